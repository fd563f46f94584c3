#!/bin/bash
# Brings the machine and the state directory of this checkout up to date:
#     setup.sh EXTRA...     extras of python/pyproject.toml that the environment must have
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

missing=$("$checkout/scripts/system.sh" missing "$@")
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then
        "$checkout/scripts/system.sh" "$@"
    elif command -v sudo > /dev/null && sudo -v; then
        sudo env PG_CONFIG="${PG_CONFIG:-}" "$checkout/scripts/system.sh" "$@"
    else
        printf 'This machine lacks:\n%s\n' "$(sed 's/^/    /' <<< "$missing")"
        printf 'An administrator must run, as root:\n    %s\n' "$checkout/scripts/system.sh $*"
        exit 1
    fi >&2
fi

pg_config=$(find_pg_config)
python=$("$checkout/scripts/interpreter.sh" "$pg_config")
mkdir -p "$home"
exec 8> "$home/setup.lock"
flock 8
if [ "$(id -u)" = 0 ]; then
    chmod 755 "$(dirname "$home")" "$home"
fi
missing=$("$checkout/scripts/environment.sh" missing "$venv" "$python" "$@")
if [ -n "$missing" ]; then
    quietly "installing Python packages for: ${missing//$'\n'/ }" "$checkout/scripts/environment.sh" "$venv" "$python" "$@"
fi

# The server runs a copy: its user may not be able to read the checkout. A link to it is swapped, because sessions that
# are open import from it at any time.
copy=$(mktemp -d "$package.XXXXXX")
cp -r "$checkout/python/pgml_tune" "$copy/"
find "$copy" -name __pycache__ -prune -exec rm -r {} +
"$python" -m compileall -q "$copy" > /dev/null || true # the copy is checked by lint, not here
chmod -R go+rX "$copy"
[ -L "$package" ] || rm -rf "$package"
ln -s "$(basename "$copy")" "$copy/link"
mv -T "$copy/link" "$package"
find "$home" -maxdepth 1 -name "$(basename "$package").*" ! -path "$copy" -exec rm -r {} +
