#!/bin/bash
# Installs what the machine itself must have: PostgreSQL with PL/Python, pgvector, Python's venv, the SQL files.
#     system.sh EXTRA...           installs what is missing, as root; the extra "test" needs pgbouncer too
#     system.sh missing EXTRA...   prints what is missing
# Debian 12 or later; elsewhere install the same things and pass PG_CONFIG.
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"
export DEBIAN_FRONTEND=noninteractive

pg_config=$(find_pg_config)
version=$([ -z "$pg_config" ] || "$pg_config" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')

extension_folder() { echo "$("$pg_config" --sharedir)/extension"; }

missing_packages() {
    local major=${version:-N}
    [ -n "$version" ] || echo "postgresql-$major"
    [ -n "$version" ] && [ -e "$("$pg_config" --pkglibdir)/plpython3.so" ] || echo "postgresql-plpython3-$major"
    [ -n "$version" ] && [ -e "$("$pg_config" --pgxs)" ] || echo "postgresql-server-dev-$major"
    /usr/bin/python3 -c 'import ensurepip' 2> /dev/null || echo python3-venv
    command -v make > /dev/null || echo make
    [[ " $extras " != *" test "* ]] || [ -x /usr/sbin/pgbouncer ] || echo pgbouncer
}

lacks_pgvector() { [ -z "$version" ] || [ ! -e "$(extension_folder)/vector.control" ]; }

lacks_sql() {
    local file
    [ -n "$version" ] || return 0
    for file in "$checkout"/pgml_tune.control "$checkout"/extension/pgml_tune--*.sql; do
        cmp -s "$file" "$(extension_folder)/$(basename "$file")" || return 0
    done
    return 1
}

missing() {
    missing_packages
    if lacks_pgvector; then echo pgvector; fi
    if lacks_sql; then echo "the SQL files of pgml_tune"; fi
}

extras="$*"
if [ "${1:-}" = missing ]; then
    missing
    exit
fi
[ "$(id -u)" = 0 ] || { echo "system.sh must run as root" >&2; exit 1; }

packages=$(missing_packages)
if [ -n "$packages" ] || lacks_pgvector; then
    command -v apt-get > /dev/null || { echo "no apt-get here: install $(missing | paste -sd,)" >&2; exit 1; }
    quietly "reading the package lists" apt-get update
fi
if [ -n "$packages" ]; then
    if [ -z "$version" ]; then
        version=$(apt-cache depends postgresql | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -1)
        packages=${packages//-N/-$version}
    fi
    # What is installed for the private servers starts no service of the machine.
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
        chmod 755 /usr/sbin/policy-rc.d
    fi
    quietly "installing $(echo "$packages" | paste -sd' ')" apt-get install -y --no-install-recommends $packages
    pg_config=$(find_pg_config)
fi
if lacks_pgvector; then
    if [ -n "$(apt-cache policy "postgresql-$version-pgvector" | grep -v '(none)' | grep Candidate)" ]; then
        quietly "installing pgvector" apt-get install -y --no-install-recommends "postgresql-$version-pgvector"
    else
        quietly "building pgvector from the source of a later Debian" "$checkout/scripts/pgvector.sh" "$pg_config"
    fi
fi
if lacks_sql; then
    quietly "installing the SQL files" make -C "$checkout" install-sql PG_CONFIG="$pg_config"
fi
