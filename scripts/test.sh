#!/bin/bash
# Runs checks of this checkout, each named by its make target:
#     test.sh lint|unit|check-generated|installcheck|integration|clients|fuzz|soak-jobs|soak-queue|soak-rollout|soak-serving|bench|bench-train|bench-sql|bench-load|bench-gpu ...
. "$(dirname "${BASH_SOURCE[0]}")/home.sh"

cd "$checkout"
data_message="DATA_DIR names no folder: tests that need the data sets are SKIPPED"
[ -d "${DATA_DIR:-}" ] || say "$data_message"
pytest=("$venv/bin/python" -m pytest -c python/pyproject.toml --rootdir .)

lint() {
    "$venv/bin/ruff" check --config python/pyproject.toml python scripts tests bench docs
    "$venv/bin/mypy" --config-file python/pyproject.toml
}

# What the tests of a file share is built once, so a file stays with one process.
unit() { "${pytest[@]}" -n 2 --dist loadfile tests/unit; }

check-generated() { make --no-print-directory --silent check-generated; }

installcheck() {
    test_cluster
    make --no-print-directory installcheck PGHOST="$PGHOST" PG_CONFIG="$PG_CONFIG"
    stop_test_cluster
}

# Two processes with a cluster each. Tests make a database each, and end processes, not the machine.
integration() {
    export PGML_TUNE_FSYNC=off
    test_cluster test_two
    local other=$PGML_TUNE_TEST_HOME:$PGHOST
    test_cluster
    PGML_TUNE_TEST_CLUSTERS="$PGML_TUNE_TEST_HOME:$PGHOST $other" \
        "${pytest[@]}" -n 2 --dist loadfile -m "not fuzz" tests/integration
    stop_test_cluster test_two
    stop_test_cluster
    unset PGML_TUNE_FSYNC
}

clients() {
    PGML_TUNE_CLIENTS=$("$checkout/scripts/clients.sh")
    export PGML_TUNE_CLIENTS
    on_test_cluster "${pytest[@]}" tests/clients
}

fuzz() { PGML_TUNE_FUZZ_CASES=${PGML_TUNE_FUZZ_CASES:-20000} on_test_cluster "${pytest[@]}" -m fuzz tests/integration; }

# kill -9 of workers and jobs, fifty times.
soak-jobs() {
    PGML_TUNE_JOB_KILLS=${PGML_TUNE_JOB_KILLS:-50} on_test_cluster "${pytest[@]}" -s tests/integration/test_job_kills.py
}

# kill -9 of workers that feed a queue, fifty times, under writers; and twenty times between five crashes of the server.
soak-queue() {
    PGML_TUNE_QUEUE_CRASH_KILLS=${PGML_TUNE_QUEUE_CRASH_KILLS:-20} \
        PGML_TUNE_QUEUE_CRASH_RESTARTS=${PGML_TUNE_QUEUE_CRASH_RESTARTS:-5} \
        on_test_cluster "${pytest[@]}" -s tests/integration/test_queue_crash.py
    PGML_TUNE_QUEUE_KILLS=${PGML_TUNE_QUEUE_KILLS:-50} \
        on_test_cluster "${pytest[@]}" -s -k killed_under_load tests/integration/test_queue.py
}

# Eight who switch a model back and forth under fifty who search, for a minute.
soak-rollout() {
    PGML_TUNE_SWITCH_SECONDS=${PGML_TUNE_SWITCH_SECONDS:-60} \
        on_test_cluster "${pytest[@]}" -s tests/integration/test_rollout_scale.py
}

# 50 kills and 20 stops of the process that serves models, a million requests of 16 clients that hang up, and a million
# random frames beside half-open peers, which may double the 99th percentile of others at most.
soak-serving() {
    PGML_TUNE_SWAP_REQUESTS=${PGML_TUNE_SWAP_REQUESTS:-1000000} \
        "${pytest[@]}" -s tests/unit/test_serving.py -k nobody_ever_gets
    PGML_TUNE_RANDOM_FRAMES=${PGML_TUNE_RANDOM_FRAMES:-1000000} "${pytest[@]}" -s tests/unit/test_serving_attacks.py
    PGML_TUNE_SERVING_KILLS=${PGML_TUNE_SERVING_KILLS:-50} PGML_TUNE_SERVING_STOPS=${PGML_TUNE_SERVING_STOPS:-20} \
        on_test_cluster "${pytest[@]}" -s tests/integration/test_serving.py -k "killed or stands_still"
}

bench() { on_test_cluster "$venv/bin/python" bench/run.py; }

bench-train() { on_test_cluster "$venv/bin/python" bench/train.py; }

bench-sql() { on_test_cluster "$venv/bin/python" bench/sql.py; }

bench-load() { on_test_cluster "$venv/bin/python" bench/load.py; }

bench-gpu() { "$venv/bin/python" bench/gpu.py; } # no server

on_test_cluster() {
    test_cluster
    "$@"
    stop_test_cluster
}

# A new cluster, whose model root holds minilm in all precisions under the names minilm@v1, @v1-int8, @v1-int8-block.
test_cluster() {
    local name=${1:-test}
    "$checkout/scripts/cluster.sh" create "$name"
    # Models are copied before the server starts: what a session has mapped must not be written.
    local imported
    imported=$home/imported-$(cat "$package"/pgml_tune/jobs/*.py python/constraints.txt | sha256sum | cut -c1-16)
    [ ! -d "$imported" ] || cp -a "$imported/." "$home/$name/models/"
    "$checkout/scripts/cluster.sh" start "$name"
    eval "$("$checkout/scripts/cluster.sh" env "$name")"
    export PGML_TUNE_TEST_HOME=$home/$name
    if [ ! -d "$imported" ]; then
        rm -rf "$home"/imported-*
        local psql=("$("$PG_CONFIG" --bindir)/psql" --no-psqlrc --quiet)
        "${psql[@]}" -c 'CREATE DATABASE import'
        "${psql[@]}" -d import -c 'SET client_min_messages = warning' -c 'CREATE EXTENSION pgml_tune CASCADE'
        say "importing the model minilm, in fp32 and both 8-bit forms"
        import_minilm "$name" import --quantize int8_dynamic --quantize int8_block
        "${psql[@]}" -c 'DROP DATABASE import'
        cp -a "$home/$name/models" "$imported.new"
        mv "$imported.new" "$imported"
    fi
}

stop_test_cluster() {
    local name=${1:-test}
    # A crash of the server is a failure, whatever the test that caused it says.
    if grep -E 'was terminated by signal|PANIC:' "$home/$name/log/postgres.log"; then
        echo "FAILED: the server crashed, see $home/$name/log/postgres.log" >&2
        exit 1
    fi
    "$checkout/scripts/cluster.sh" stop "$name"
}

extras=(cli train model openvino test)
[[ " $*" != *" bench"* ]] || extras+=(bench)
"$checkout/scripts/setup.sh" "${extras[@]}"
PG_CONFIG=$(find_pg_config)
export PG_CONFIG
exec 9> "$home/test.lock" # the test cluster serves one run at a time
flock 9
for check in "$@"; do
    say "$check"
    "$check"
done
say "passed: $*"
