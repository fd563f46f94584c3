"""Jobs as their callers see them: what is queued, for whom, with which rows, and what is refused before that."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

PAIRS = "SELECT a, b FROM pair ORDER BY id"
TUNE = "CALL finetune_sbert('minilm@v1', %s, options => %s)"
QUANTIZE = "CALL quantize_model('minilm@v1', options => %s)"


@pytest.fixture(autouse=True)
def no_worker(db: psycopg.Connection[Any]) -> None:
    """Jobs wait: no worker is started."""
    db.execute("SELECT configure('auto_start_worker', 'off')")
    db.execute(
        "CREATE TABLE pair AS SELECT g AS id, 'text ' || g AS a, 'other ' || g AS b FROM generate_series(1, 40) AS g"
    )
    db.execute("GRANT SELECT ON pair TO olga, adam")


def jobs(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute("SELECT job_id, state::text FROM pgml_tune.jobs ORDER BY job_id").fetchall()


def queue(db: psycopg.Connection[Any], seed: int = 42) -> int:
    """A job that waits."""
    job: int = fetch_value(db, TUNE, (PAIRS, json.dumps({"seed": seed})))
    return job


def test_a_job_keeps_the_rows_of_its_query_as_they_were(db: psycopg.Connection[Any]) -> None:
    job = queue(db)
    db.execute("UPDATE pair SET a = 'changed'")
    lines = fetch_value(db, "SELECT string_agg(lines, E'\n') FROM pgml_tune.job_rows WHERE job_id = %s", (job,))
    assert [json.loads(line) for line in lines.split("\n")] == [
        {"a": f"text {number}", "b": f"other {number}"} for number in range(1, 41)
    ]
    part = db.execute(
        "SELECT part, query, row_count, column_names, shape, rows_sha256 = encode(sha256(%s), 'hex')"
        " FROM pgml_tune.job_part",
        ((lines + "\n").encode(),),
    ).fetchall()
    assert part == [("train", PAIRS, 40, ["a", "b"], "pair", True)]


def test_the_same_call_twice_is_one_job_until_that_has_ended(db: psycopg.Connection[Any]) -> None:
    job = queue(db)
    assert queue(db) == job
    assert queue(db, seed=43) != job
    assert fetch_value(db, "SELECT cancel_job(%s)", (job,))
    assert queue(db) not in (job, job + 1)


def test_32_equal_calls_at_once_are_one_job(db: psycopg.Connection[Any], connect: Connect) -> None:
    sessions = [connect() for _ in range(32)]
    with ThreadPoolExecutor(len(sessions)) as pool:
        numbers = set(pool.map(queue, sessions))
    assert len(numbers) == 1
    assert jobs(db) == [(numbers.pop(), "queued")]


def test_the_same_call_of_another_role_is_another_job(db: psycopg.Connection[Any], connect: Connect) -> None:
    assert queue(connect("olga")) != queue(connect("adam"))


def test_nothing_is_left_of_a_rolled_back_call(db: psycopg.Connection[Any]) -> None:
    for _ in range(20):
        with db.transaction(force_rollback=True):
            queue(db)
    assert jobs(db) == []
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_rows") == 0


def test_a_call_in_a_transaction_block_says_that_it_only_queues(db: psycopg.Connection[Any]) -> None:
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    with db.transaction():
        job = queue(db)
    assert len(notices) == 1 and notices[0].startswith(f"job {job} is queued and waits for a worker")
    assert jobs(db) == [(job, "queued")]


def test_a_call_without_a_worker_says_so_and_returns(db: psycopg.Connection[Any]) -> None:
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    job = queue(db)
    assert len(notices) == 1 and notices[0].startswith(f"job {job} is queued and waits for a worker")


def test_roles_see_and_cancel_their_own_jobs_and_an_administrator_all(
    db: psycopg.Connection[Any], connect: Connect
) -> None:
    olga, adam = connect("olga"), connect("adam")
    theirs, his, ours = queue(olga), queue(adam), queue(db)
    assert [job for job, _ in jobs(olga)] == [theirs]
    assert [job for job, _ in jobs(adam)] == [theirs, his, ours]
    with refused("42704"):
        olga.execute("SELECT cancel_job(%s)", (his,))
    with refused("42704"):
        olga.execute("SELECT job_log(%s)", (his,))
    assert fetch_value(adam, "SELECT cancel_job(%s)", (theirs,))
    assert not fetch_value(olga, "SELECT cancel_job(%s)", (theirs,))
    assert jobs(db) == [(theirs, "cancelled"), (his, "queued"), (ours, "queued")]


def test_rows_of_a_job_are_deleted_when_it_ends(db: psycopg.Connection[Any]) -> None:
    job = queue(db)
    db.execute("SELECT cancel_job(%s)", (job,))
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job_rows") == 0
    assert fetch_value(db, "SELECT row_count FROM pgml_tune.job_part WHERE job_id = %s", (job,)) == 40


def test_rows_are_read_as_the_caller(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("CREATE TABLE hidden AS SELECT 'secret ' || g AS a, 'b' || g AS b FROM generate_series(1, 40) AS g")
    db.execute("CREATE TABLE shared (a text, b text, owner text)")
    db.execute("INSERT INTO shared SELECT a, b, 'postgres' FROM hidden")
    db.execute("INSERT INTO shared SELECT 'mine ' || g, 'b' || g, 'olga' FROM generate_series(1, 12) AS g")
    db.execute("ALTER TABLE shared ENABLE ROW LEVEL SECURITY; GRANT SELECT ON shared TO olga")
    db.execute("CREATE POLICY own ON shared FOR SELECT USING (owner = current_user)")
    olga = connect("olga")
    for query in (
        "SELECT a, b FROM hidden",
        "SELECT lines, part FROM pgml_tune.job_rows",
        "SELECT prosrc, proname FROM pg_proc, hidden",
    ):
        with refused("42501"):
            olga.execute(TUNE, (query, "{}"))
    olga.execute(TUNE, ("SELECT a, b FROM shared", "{}"))
    assert "secret" not in fetch_value(db, "SELECT string_agg(lines, '') FROM pgml_tune.job_rows")
    assert fetch_value(db, "SELECT sum(row_count) FROM pgml_tune.job_rows") == 12


def test_rows_are_read_under_the_search_path_of_the_caller(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE SCHEMA elsewhere; ALTER TABLE pair SET SCHEMA elsewhere")
    with refused("42P01"):
        queue(db)
    db.execute("SET search_path = elsewhere, public")
    queue(db)
    assert fetch_value(db, "SHOW search_path") == "elsewhere, public"


WRITERS = [
    "INSERT INTO pair VALUES (0, 'a', 'b') RETURNING a, b",
    "WITH gone AS (DELETE FROM pair RETURNING a, b) SELECT a, b FROM gone",
    "SELECT a, b FROM pair; DELETE FROM pair",
    "SELECT a, b FROM pair) AS q; DELETE FROM pair; SELECT * FROM (SELECT 1",
    "SELECT a, b FROM pair, writes()",
    "SELECT a, nextval('numbers')::text FROM pair",
    "SELECT a, b INTO kept FROM pair",
    "TRUNCATE pair", "DROP TABLE pair", "COMMIT", "COPY pair TO STDOUT", "EXPLAIN ANALYZE DELETE FROM pair",
    "DO $$ BEGIN DELETE FROM pair; END $$", "CALL maintain()", "SET search_path = x", "", ";", "--", "/* a", "SELECT",
]  # fmt: skip


@pytest.mark.parametrize("query", WRITERS)
def test_a_query_that_is_not_a_plain_read_is_refused_and_changes_nothing(
    db: psycopg.Connection[Any], query: str
) -> None:
    db.execute("CREATE SEQUENCE numbers")
    db.execute("CREATE FUNCTION writes() RETURNS void LANGUAGE plpgsql AS $$ BEGIN DELETE FROM pair; END $$")
    with refused("25006", "42601", "42P11", "0A000", "22023", "42804"):
        db.execute(TUNE, (query, "{}"))
    assert fetch_value(db, "SELECT count(*) FROM pair") == 40
    assert fetch_value(db, "SELECT to_regclass('kept') IS NULL AND NOT (SELECT is_called FROM numbers)")
    assert jobs(db) == []


def test_a_column_may_have_any_name(db: psycopg.Connection[Any]) -> None:
    db.execute(TUNE, ('SELECT a AS q, b AS "we""ird" FROM pair -- all of them', "{}"))
    assert fetch_value(db, "SELECT column_names FROM pgml_tune.job_part") == ["q", 'we"ird']


def test_more_rows_or_bytes_than_the_limit_are_refused(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('job_rows', '39')")
    with refused("54000"):
        queue(db)
    db.execute("SELECT configure('job_rows', '40'), configure('job_row_bytes', '1024')")
    with refused("54000"):
        queue(db)
    assert jobs(db) == []
    db.execute("SELECT configure('job_row_bytes', NULL)")
    queue(db)


def test_many_rows_are_kept_in_chunks_and_in_order(db: psycopg.Connection[Any]) -> None:
    db.execute(TUNE, ("SELECT g::text AS a, 'x' || g AS b FROM generate_series(1, 2500) AS g", "{}"))
    rows = db.execute("SELECT chunk_no, row_count, lines FROM pgml_tune.job_rows ORDER BY chunk_no").fetchall()
    assert [row[:2] for row in rows] == [(1, 1000), (2, 1000), (3, 500)]
    numbers = [json.loads(line)["a"] for _, _, lines in rows for line in lines.split("\n")]
    assert numbers == [str(number) for number in range(1, 2501)]


def test_a_role_may_queue_so_many_jobs(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("SELECT configure('jobs_queued', '2')")
    olga = connect("olga")
    queue(olga, 1), queue(olga, 2)
    with refused("53400"):
        queue(olga, 3)
    queue(connect("adam"))


BY_HAND = [
    "INSERT INTO pgml_tune.job (kind, parameters, request_sha256) VALUES ('import_model', '{}', repeat('a', 64))",
    "INSERT INTO pgml_tune.job (kind, parameters, request_sha256) VALUES ('maintain', '{}', repeat('a', 64))",
    "INSERT INTO pgml_tune.job (kind, parameters, request_sha256) VALUES ('embed', '{}', repeat('a', 64))",
    "INSERT INTO pgml_tune.job (kind, parameters, request_sha256, role_id) VALUES ('finetune_sbert', '{}', '', 10)",
    "INSERT INTO pgml_tune.job_rows (job_id, part, chunk_no, row_count, lines) SELECT job_id, 'eval', 1, 1, '{}'"
    " FROM pgml_tune.job",
    "INSERT INTO pgml_tune.job_part (job_id, part, query, row_count, rows_sha256, column_names, shape)"
    " SELECT job_id, 'eval', '', 0, '', '{a}', 'text' FROM pgml_tune.job",
    "UPDATE pgml_tune.job SET cancel_requested_at = now()",
    "UPDATE pgml_tune.job SET state = 'succeeded'",
    "UPDATE pgml_tune.job_progress SET phase = 'x'",
    "SELECT parameters FROM pgml_tune.job",
    "SELECT lines FROM pgml_tune.job_rows",
    "SELECT line FROM pgml_tune.job_line",
    "DELETE FROM pgml_tune.job",
    "SELECT job_id FROM pgml_tune.job FOR UPDATE",
    "SELECT job_id FROM pgml_tune.jobs FOR UPDATE",
    "SELECT pgml_tune._claim_job('x', interval '1 minute', 1)",
    "INSERT INTO pgml_tune.worker (name, backend_pid, is_one_shot) VALUES ('x', 1, false)",
]


@pytest.mark.parametrize("statement", BY_HAND)
def test_jobs_of_others_and_what_workers_write_are_out_of_reach(
    db: psycopg.Connection[Any], connect: Connect, statement: str
) -> None:
    queue(db)
    with refused("42501"):
        connect("olga").execute(statement)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.job WHERE state = 'queued'") == 1


REFUSED = [
    ("CALL finetune_sbert('nothere', 'SELECT a, b FROM pair')", "42704"),
    ("CALL finetune_sbert('minilm@v9', 'SELECT a, b FROM pair')", "42704"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', 'v1')", "42710"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', '../v2')", "22023"),
    ("CALL finetune_sbert('minilm', NULL)", "22023"),
    ("CALL finetune_sbert(NULL, 'SELECT a, b FROM pair')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', eval_query => ' ')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '{\"epoch\": 1}')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '{\"epochs\": 0}')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '[]')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', wait => NULL)", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair WHERE id < 9')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair WHERE false')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a FROM pair')", "42804"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b, ''NaN''::float8 + id AS score FROM pair')", "22023"),
    (
        "CALL finetune_sbert('minilm', 'SELECT a, b, CASE WHEN id = 3 THEN ''NaN'' ELSE 0.5 END::float8 FROM pair')",
        "22023",
    ),
    ("CALL finetune_sbert('minilm', 'SELECT a, b, id AS score FROM pair')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '{\"loss\": \"triplet\"}')", "42804"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b, b AS c FROM pair', options => '{\"hard_negatives\": 1}')", "42804"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '{\"matryoshka\": [385]}')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a, b FROM pair', options => '{\"max_seq_length\": 8000}')", "22023"),
    (
        "CALL finetune_sbert('minilm', 'SELECT a, b FROM pair',"
        ' options => \'{"early_stopping": 1, "eval_share": 0}\')',
        "22023",
    ),
    ("CALL finetune_classifier('minilm', 'SELECT a, b FROM pair')", "22023"),
    ("CALL finetune_classifier('minilm', 'SELECT a, id FROM pair', 'sorter')", "22023"),
    ("CALL finetune_classifier('minilm', 'SELECT a, 1 FROM pair', 'sorter')", "22023"),
    ("CALL finetune_classifier('minilm', 'SELECT a, id % 2 FROM pair', 'minilm')", "42710"),
    ("CALL finetune_text_to_sql('minilm', 'SELECT a, b FROM pair')", "0A000"),
    ("CALL finetune_text_to_sql('fresh@v1', 'SELECT a, b FROM pair')", "22023"),
    ("CALL finetune_text_to_sql(NULL, 'SELECT a, b FROM pair')", "22023"),
    ("CALL finetune_text_to_sql('fresh', 'SELECT a, id FROM pair')", "42804"),
    (
        "CALL finetune_text_to_sql('fresh', 'SELECT a, b FROM pair', options => '{\"base\": \"fresh@v1\"}')",
        "42704",
    ),
    ("CALL finetune_text_to_sql('fresh', 'SELECT a, b FROM pair', options => '{\"base\": \"minilm@v1\"}')", "0A000"),
    ("CALL distill_model('minilm', 'layers:0', 'SELECT a FROM pair')", "22023"),
    ("CALL distill_model('minilm', 'nothere', 'SELECT a FROM pair')", "42704"),
    ("CALL distill_model('minilm', NULL, 'SELECT a FROM pair')", "22023"),
    ("CALL distill_model('minilm', 'layers:2', 'SELECT a, b FROM pair')", "42804"),
    ("CALL quantize_model('minilm', 'int4')", "22023"),
    ("CALL quantize_model('minilm', NULL)", "22023"),
    ("CALL quantize_model('minilm@v1-int8')", "0A000"),
    ("CALL quantize_model('minilm', 'int8_static')", "22023"),
    ("CALL quantize_model('minilm', 'fp16', 'SELECT a FROM pair')", "22023"),
    ("CALL quantize_model('minilm', 'int8_dynamic')", "42710"),
    ("CALL export_onnx('minilm', '{\"opset\": 1}')", "22023"),
    ("CALL export_tensorrt('minilm', 'int8')", "22023"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{}')", "22023"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{{spearman,pearson}}')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT a AS x, b AS x FROM pair')", "22023"),
    ("CALL finetune_sbert('minilm', 'SELECT FROM pair')", "42804"),
    ("CALL finetune_sbert('minilm', 'SELECT a, ARRAY[b] AS b FROM pair')", "42804"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{accuracy}')", "22023"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{spearman}')", "42804"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{spearman,ndcg@10}')", "22023"),
    ("CALL evaluate_model('minilm', 'SELECT a, b FROM pair', '{ndcg@0}')", "22023"),
    ("CALL tune_engine(NULL)", "22023"),
    ("CALL tune_engine('nothere')", "42704"),
    ("CALL tune_engine('minilm', 'v9')", "42704"),
    ("CALL tune_engine('minilm@v1', 'v1-int8')", "22023"),
    ("CALL tune_engine('minilm', '../v1')", "22023"),
    ("CALL tune_engine('minilm', options => '{\"min_cosine\": 2}')", "22023"),
    ("CALL tune_engine('minilm', options => '{\"engines\": [\"onnx\"]}')", "22023"),
    ("CALL tune_engine('minilm', options => '{\"provider\": \"cpu\"}')", "22023"),
    ("CALL tune_engine('minilm', wait => NULL)", "22023"),
    ("SELECT reset_engine(NULL)", "42704"),
    ("SELECT reset_engine('minilm', 'v9')", "42704"),
    ("CALL import_model('x', '')", "22023"),
    ("CALL import_model('X', '/tmp')", "22023"),
    ("CALL import_model('minilm', '/tmp', 'classification')", "42710"),
    ("CALL import_model('x', '/tmp', 'translation')", "22023"),
    ("SELECT cancel_job(NULL)", "42704"),
    ("SELECT job_log(0)", "42704"),
    ("SELECT model_card('nothere')", "42704"),
    ("SELECT model_card('minilm', 'v9')", "42704"),
    ("SELECT model_card(NULL)", "42704"),
]


@pytest.mark.parametrize(("statement", "state"), REFUSED)
def test_a_bad_argument_is_refused_before_anything_is_queued(
    db: psycopg.Connection[Any], statement: str, state: str
) -> None:
    with refused(state) as failure:
        db.execute(statement)
    assert failure.value.diag.message_primary
    assert jobs(db) == []


def test_a_card_tells_what_is_known(db: psycopg.Connection[Any]) -> None:
    card = fetch_value(db, "SELECT model_card('minilm')")
    assert (card["model"], card["version"], card["is_serving"]) == ("minilm", "v1", True)
    assert card["artifact"]["storage"] == "fp32" and card["artifact"]["dimensions"] == 384
    assert card["checks"]["export"]["cosine_min"] >= 0.9999
    assert card["evaluations"] == []
    assert fetch_value(db, "SELECT model_card('minilm@v1-int8') ->> 'version'") == "v1-int8"


@pytest.mark.parametrize("query", [f"{PAIRS};", f"{PAIRS} ; \n", f"{PAIRS};;"])
def test_a_semicolon_at_the_end_means_nothing(db: psycopg.Connection[Any], query: str) -> None:
    db.execute(TUNE, (query, "{}"))
    assert fetch_value(db, "SELECT query FROM pgml_tune.job_part") == PAIRS


@pytest.mark.parametrize("part", ["../x", "/x", "test", ""])
def test_a_part_is_named_as_parts_are(db: psycopg.Connection[Any], connect: Connect, part: str) -> None:
    olga = connect("olga")
    job = queue(olga)
    statement = (
        "INSERT INTO pgml_tune.job_part (job_id, part, query, row_count, rows_sha256, column_names, shape)"
        " VALUES (%s, %s, '', 0, '', '{a}', 'text')"
    )
    with refused("23514"):
        olga.execute(statement, (job, part))


def test_functions_that_return_sets_are_read_once(db: psycopg.Connection[Any]) -> None:
    body = "SELECT 'row ' || i FROM generate_series(1, 2500) AS i"
    db.execute(f"CREATE FUNCTION lazy() RETURNS SETOF text LANGUAGE sql AS $$ {body} $$")
    db.execute(TUNE, ("SELECT lazy() AS a, 'x' AS b", "{}"))
    lines = fetch_value(db, "SELECT string_agg(lines, E'\n' ORDER BY chunk_no) FROM pgml_tune.job_rows")
    assert [json.loads(line)["a"] for line in lines.split("\n")] == [f"row {number}" for number in range(1, 2501)]


def test_the_transaction_can_write_after_rows_were_taken(db: psycopg.Connection[Any]) -> None:
    with db.transaction():
        queue(db)
        db.execute("INSERT INTO pair VALUES (99, 'a', 'b')")
        assert fetch_value(db, "SHOW transaction_read_only") == "off"


def test_json_values_may_span_lines(db: psycopg.Connection[Any]) -> None:
    db.execute(TUNE, ("SELECT a, b, (E'\n0.' || id % 10)::json AS score FROM pair", "{}"))
    assert fetch_value(db, "SELECT shape FROM pgml_tune.job_part") == "pair_score"


def test_nobody_can_take_the_place_of_the_job_of_another(db: psycopg.Connection[Any], connect: Connect) -> None:
    queue(db)
    sha256 = fetch_value(db, "SELECT request_sha256 FROM pgml_tune.job")
    db.execute("SELECT cancel_job(job_id) FROM pgml_tune.jobs")
    connect("olga").execute(
        "INSERT INTO pgml_tune.job (kind, parameters, request_sha256) VALUES ('evaluate_model', '{}', %s)", (sha256,)
    )
    job = queue(db)
    assert fetch_value(db, "SELECT kind FROM pgml_tune.job WHERE job_id = %s", (job,)) == "finetune_sbert"


HOSTILE = """
CREATE SCHEMA hostile;
CREATE FUNCTION hostile.trip(anyelement) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN RAISE LOG 'the canary is dead'; RETURN true; END $$;
CREATE TYPE hostile.mood AS ENUM ('good', 'bad');
CREATE FUNCTION hostile.as_json(hostile.mood) RETURNS json LANGUAGE plpgsql AS $$
BEGIN RAISE LOG 'the canary is dead'; RETURN '1'::json; END $$;
CREATE CAST (hostile.mood AS json) WITH FUNCTION hostile.as_json(hostile.mood);
CREATE TABLE hostile.rated AS
SELECT 'text ' || g AS a, 'other ' || g AS b, 'good'::hostile.mood AS mood FROM generate_series(1, 20) AS g;
CREATE DOMAIN hostile.text AS pg_catalog.text CHECK (hostile.trip(VALUE));
CREATE DOMAIN hostile.refcursor AS pg_catalog.refcursor CHECK (hostile.trip(VALUE::pg_catalog.text));
CREATE FUNCTION hostile.equals(text, text) RETURNS boolean LANGUAGE sql AS $$ SELECT hostile.trip($1) $$;
CREATE OPERATOR hostile.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = hostile.equals);
"""


def test_taking_rows_runs_no_code_of_others(db: psycopg.Connection[Any], server_log: Callable[[int], str]) -> None:
    db.execute(HOSTILE)
    position = len(server_log(0).encode())
    with refused("42804"):
        db.execute(TUNE, ("SELECT a, b, mood FROM hostile.rated", "{}"))
    db.execute("SET search_path = hostile, pg_catalog, public")
    db.execute("CALL public.finetune_sbert('minilm@v1', 'SELECT a, b FROM hostile.rated')")
    db.execute("RESET search_path")
    db.execute("SELECT cancel_job(max(job_id)) FROM pgml_tune.jobs")
    assert "the canary is dead" not in server_log(position)


def test_two_jobs_cannot_make_the_same_version(db: psycopg.Connection[Any]) -> None:
    call = "CALL finetune_sbert('minilm@v1', %s, 'named', options => %s)"
    db.execute(call, (PAIRS, '{"seed": 1}'))
    with refused("42710"):
        db.execute(call, (PAIRS, '{"seed": 2}'))
    db.execute(call, (PAIRS, '{"seed": 1}'))  # the same job
    assert len(jobs(db)) == 1
