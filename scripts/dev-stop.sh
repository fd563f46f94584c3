#!/bin/bash
# Stops the private clusters of this checkout.
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

for name in dev test; do
    [ ! -e "$home/$name/data/postmaster.pid" ] || "$checkout/scripts/cluster.sh" stop "$name"
done
rm -f "$checkout/.dev/env"
