#!/bin/bash
# Runs the command pgml-tune on a database of a private cluster, as the user that owns the cluster:
#     pgml-tune.sh CLUSTER DATABASE ARGUMENT...
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

cluster=$1
eval "$("$checkout/scripts/cluster.sh" env "$cluster" "$2")"
shift 2
as_postgres test -x . || cd /
as_postgres env HOME="$home/$cluster" PYTHONPATH="$package" PGML_TUNE_CONFIG="$home/$cluster/pgml_tune.toml" \
    "$venv/bin/python" -P -m pgml_tune.cli "$@"
