#!/bin/bash
# Stops the private clusters of this checkout.
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

for name in dev test; do
    if [ -e "$home/$name/data/postmaster.pid" ]; then
        quietly "stopping the private cluster \"$name\"" "$checkout/scripts/cluster.sh" stop "$name"
    fi
done
rm -rf "$checkout/.dev/env" "$checkout/.dev/bin"
