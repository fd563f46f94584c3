#!/bin/bash
# Prints the Python interpreter whose library PL/Python of the given pg_config is linked to.
set -euo pipefail

library=$("$1" --pkglibdir)/plpython3.so
version=$(ldd "$library" | sed -n 's/.*libpython\(3\.[0-9]*\).*/\1/p' | head -1)
for candidate in "/usr/bin/python$version" "$(command -v "python$version")"; do
    if [ -n "$version" ] && [ -x "$candidate" ]; then
        echo "$candidate"
        exit
    fi
done
echo "cannot tell which interpreter $library uses: pass PYTHON=/path/to/python3" >&2
exit 1
