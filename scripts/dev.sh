#!/bin/bash
# Starts the private cluster "dev": database pgml_tune with the extension and the model minilm.
# Writes .dev/env, which says how to connect, and .dev/bin/pgml-tune.
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

"$checkout/scripts/setup.sh" cli train model
"$checkout/scripts/cluster.sh" start dev
env_file=$checkout/.dev/env
bin=$checkout/.dev/bin
mkdir -p "$bin"
printf '#!/bin/sh\nexec %q dev pgml_tune "$@"\n' "$checkout/scripts/pgml-tune.sh" > "$bin/pgml-tune"
chmod 755 "$bin/pgml-tune"
{
    "$checkout/scripts/cluster.sh" env dev pgml_tune
    printf 'case ":$PATH:" in *:%q:*) ;; *) export PATH=%q:"$PATH" ;; esac\n' "$bin" "$bin"
} > "$env_file"
. "$env_file"
psql=("$("$(find_pg_config)" --bindir)/psql" --no-psqlrc --quiet --tuples-only --no-align --set ON_ERROR_STOP=1)

if [ -z "$("${psql[@]}" -d postgres -c "SELECT 1 FROM pg_database WHERE datname = 'pgml_tune'")" ]; then
    "${psql[@]}" -d postgres -c 'CREATE DATABASE pgml_tune'
fi

# A changed script under the same version number is created anew; the models stay on disk.
script=$(cat "$checkout"/extension/pgml_tune--*.sql | sha256sum | cut -c1-64)
created=$("${psql[@]}" -c "SELECT 1 FROM pg_extension WHERE extname = 'pgml_tune'")
if [ -z "$created" ] || [ "$script" != "$(cat "$home/dev/created" 2> /dev/null)" ]; then
    quietly "creating the extension" "${psql[@]}" -c 'SET client_min_messages = warning' \
        -c 'DROP EXTENSION IF EXISTS pgml_tune CASCADE' -c 'CREATE EXTENSION pgml_tune CASCADE'
    echo "$script" > "$home/dev/created"
fi

if [ -z "$("${psql[@]}" -c "SELECT 1 FROM pgml_tune.model_versions WHERE model = 'minilm'")" ]; then
    if [ -e "$home/dev/models/names/minilm@v1" ]; then
        "${psql[@]}" -c "SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')" > /dev/null
    else
        say "importing the model minilm"
        import_minilm dev pgml_tune
    fi
fi
say "PostgreSQL is running:  source .dev/env && psql"
