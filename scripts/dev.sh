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

has_database() { [ -n "$("${psql[@]}" -d postgres -c "SELECT 1 FROM pg_database WHERE datname = 'pgml_tune'")" ]; }

# A changed script under the same version number gets a new database; what was kept in the old one is there under another name,
# and the models stay on disk.
script=$(cat "$checkout"/extension/pgml_tune--*.sql | sha256sum | cut -c1-64)
if has_database && [ "$script" != "$(cat "$home/dev/created" 2> /dev/null)" ]; then
    before=pgml_tune_before_$(date +%Y%m%d_%H%M%S)
    "${psql[@]}" -d postgres -c "ALTER DATABASE pgml_tune RENAME TO $before"
    say "the extension has changed: your database of before is now called $before"
fi
if ! has_database; then
    "${psql[@]}" -d postgres -c 'CREATE DATABASE pgml_tune'
    quietly "creating the extension" "${psql[@]}" -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION pgml_tune CASCADE'
    echo "$script" > "$home/dev/created"
fi

if [ -z "$("${psql[@]}" -c "SELECT 1 FROM pgml_tune.model_versions WHERE model = 'minilm'")" ]; then
    # What an earlier checkout imported has nothing to train from.
    [ -d "$home/dev/models/checkpoints" ] || rm -f "$home/dev/models/names"/minilm@v1*
    if [ -e "$home/dev/models/names/minilm@v1" ]; then
        "${psql[@]}" -c "SELECT register_model('minilm', 'minilm@v1', 'embedding', 'v1')" > /dev/null
    else
        say "importing the model minilm"
        import_minilm dev pgml_tune
    fi
fi
say "PostgreSQL is running:  source .dev/env && psql"
