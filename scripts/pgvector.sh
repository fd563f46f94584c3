#!/bin/bash
# Builds pgvector for the given pg_config from the source package of Debian trixie, for releases that do not carry it.
# Works on package lists of its own, so that the apt sources of the machine stay as they are.
set -euo pipefail

pg_config=$1
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
chmod 755 "$build"
mkdir -p "$build/lists/partial" "$build/source"

mirror=$(apt-get indextargets --format '$(SITE) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' |
    sed -n '/security/d; s/ [a-z]* main$//p' | grep -m1 '/debian/*$')
cat > "$build/trixie.sources" <<END
Types: deb-src
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
options=(-o Dir::Etc::sourcelist="$build/trixie.sources" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$build/lists" -o APT::Sandbox::User=root)

apt-get install -y --no-install-recommends build-essential dpkg-dev
apt-get "${options[@]}" update
cd "$build/source"
apt-get "${options[@]}" source pgvector
cd pgvector-*/
make PG_CONFIG="$pg_config" OPTFLAGS="" with_llvm=no
make PG_CONFIG="$pg_config" OPTFLAGS="" with_llvm=no install
