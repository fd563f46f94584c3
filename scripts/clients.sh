#!/bin/bash
# Makes the environment in which the examples of docs/clients run, and prints where it is. WHEELS as in environment.sh.
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

folder=$home/clients
python=$("$checkout/scripts/interpreter.sh" "$(find_pg_config)")
wanted=$checkout/python/clients.txt
stamp=$folder/.installed-$({ "$python" --version; cat "$wanted"; } | sha256sum | cut -c1-16)

install() {
    local pip=("$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps)
    [ -z "${WHEELS:-}" ] || pip+=(--no-index --find-links "$WHEELS")
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "${pip[@]}" --requirement "$wanted"
    touch "$stamp"
}

if [ "${1:-}" = install ]; then
    install
elif [ ! -e "$stamp" ]; then
    quietly "installing the clients of docs/clients" "$0" install >&2
fi
echo "$folder"
