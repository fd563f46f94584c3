#!/bin/bash
# A private cluster of this checkout on a Unix socket:
#     cluster.sh start|stop|create NAME      create throws the old one of that name away and starts nothing
#     cluster.sh env NAME [DATABASE]         prints how to connect
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

command=$1 name=$2
folder=$home/$name
bin=$("$(find_pg_config)" --bindir)
socket=$folder/socket
if [ "${#socket}" -gt 85 ]; then
    socket=/tmp/pgml_tune-$(id -u)-$checkout_id-$name # the system allows 107 bytes
fi

stop() {
    if [ -e "$folder/data/postmaster.pid" ]; then
        (cd / && as_postgres "$bin/pg_ctl" stop -D "$folder/data" -m fast --silent) || true
    fi
}

settings() {
    cat <<END
listen_addresses = ''
unix_socket_directories = '$socket'
max_connections = 120
max_prepared_transactions = 10
wal_level = replica
restart_after_crash = on
fsync = ${PGML_TUNE_FSYNC:-on}
shared_buffers = 256MB
maintenance_work_mem = 256MB
log_line_prefix = '%m [%p] %q%u@%d '
END
}

initialize() {
    postgres_folder "$folder" "$folder/models" "$folder/import" "$folder/log"
    postgres_folder -m 700 "$folder/spool" "$folder/data"
    (cd / && as_postgres "$bin/initdb" -D "$folder/data" --username=postgres --auth=trust --encoding=UTF8 \
        --locale=C.UTF-8 --no-instructions --no-sync)
    settings | as_postgres tee -a "$folder/data/postgresql.conf" > /dev/null
    cat > "$folder/pgml_tune.toml" <<END
model_root = "$folder/models"
spool_dir = "$folder/spool"
import_dirs = ["$folder/import"]
END
}

# The environment of the server is these variables and no others.
launch() {
    postgres_folder -m 700 "$socket"
    [ -O "$socket" ] || [ "$(id -u)" = 0 ] || { echo "$socket belongs to somebody else" >&2; exit 1; }
    local site_packages
    site_packages=$(echo "$venv"/lib/python3.*/site-packages)
    (cd / && as_postgres env -i PATH=/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME="$folder" TOKENIZERS_PARALLELISM=false \
        PYTHONPATH="$package:$site_packages" PGML_TUNE_CONFIG="$folder/pgml_tune.toml" \
        "$bin/pg_ctl" start -D "$folder/data" -l "$folder/log/postgres.log" --silent) 8>&- 9>&- # the locks of setup.sh and test.sh
}

is_running() { (cd / && as_postgres "$bin/pg_ctl" status -D "$folder/data") > /dev/null 2>&1; }

case $command in
    start)
        [ -s "$folder/pgml_tune.toml" ] || quietly "creating the private cluster \"$name\"" "$0" initialize "$name"
        is_running || quietly "starting the private cluster \"$name\"" "$0" launch "$name"
        ;;
    create)
        stop
        ! is_running || { echo "FAILED: the server in $folder does not stop" >&2; exit 1; }
        rm -rf "$folder"
        quietly "creating the private cluster \"$name\"" "$0" initialize "$name"
        ;;
    initialize | launch | stop) "$command" ;;
    env)
        printf 'export PGHOST=%q PGPORT=5432 PGUSER=postgres PGDATABASE=%q\n' "$socket" "${3:-postgres}"
        ;;
esac
