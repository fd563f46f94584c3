"""Generated calls of every public function: whatever they get, they answer or refuse by the book."""

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sql_script
from conditions import fetch_value
from inputs import CANARY, Expression, Generator
from job_workers import Installation
from odd_tables import COLLECTIONS, ODD_TABLES

DIMENSIONS = 384
CASES = int(os.environ.get("PGML_TUNE_FUZZ_CASES", "1000"))
DOCUMENTED = set(
    "42704 42710 22023 55000 54000 0A000 53400 58000 XX001 42501 42703 42804 42809 42P01 21000 22021 22P02"
    " 25000 25006 2D000 40001 40P01 55P03 57014 53100 53200".split()
)
# What PostgreSQL says of a literal before the function is called: an invalid name, \u0000 in JSON, a huge number, a
# table of a schema that does not exist.
OF_CASTS = {"42602", "22P05", "22003", "3F000"}
# And of a query of the caller that it cannot run.
OF_QUERIES = set("42601 42P02 42P11 22012 54001 42725 42883 42846 42P10 42702 22P06 26000".split())


@dataclass(frozen=True)
class Call:
    """One call: its SQL, its parameters, and whether a correct answer is NULL."""

    sql: str
    parameters: tuple[object, ...]
    wants_null: bool = False
    length: int | None = None  # of the array it must return; None: not known
    nulls: tuple[bool, ...] | None = None  # where that array must hold NULL
    kind: str = "value"  # or "rows", or "procedure"

    def statement(self, wrapper: str) -> str:
        if self.kind == "procedure":
            return f"CALL public.{self.sql}"
        return wrapper.format(call=f"ARRAY(SELECT r::text FROM public.{self.sql} AS r)" if self.kind == "rows"
                              else f"public.{self.sql}")  # fmt: skip


def embed(generator: Generator) -> Call:
    text = generator.text()
    return Call("embed(%s::text, %s::text, %s::text)", (text, generator.model(), generator.kind()), text is None)


def embed_many(generator: Generator) -> Call:
    texts = generator.array()
    rest = (generator.model(), generator.kind())
    if isinstance(texts, Expression):
        return Call(f"embed({texts.sql}, %s::text, %s::text)", rest, length=texts.length)
    call = Call("embed(%s::text[], %s::text, %s::text)", (texts, *rest), texts is None)
    if texts is None:
        return call
    return Call(call.sql, call.parameters, length=len(texts), nulls=tuple(text is None for text in texts))


def embed_pinned(generator: Generator) -> Call:
    version = generator.valid_mostly(["v1", "v1-int8"], ["v9", generator.name()])
    arguments = (generator.text(), generator.valid_mostly(["minilm"], [generator.name()]), version, generator.kind())
    return Call("embed_pinned(%s::text, %s::text, %s::text, %s::text)", arguments, None in arguments)


def semantic_similarity(generator: Generator) -> Call:
    a, b = generator.text(), generator.text()
    return Call("semantic_similarity(%s::text, %s::text, %s::text)", (a, b, generator.model()), None in (a, b))


def token_count(generator: Generator) -> Call:
    text = generator.text()
    return Call("token_count(%s::text, %s::text)", (text, generator.model()), text is None)


def classify(generator: Generator) -> Call:
    text, model = generator.text(), generator.valid_mostly(["sorter", "sorter@v1", None], [generator.name()])
    top_k = generator.count("1", "2", "3", "10")
    return Call("classify(%s::text, %s::text, %s::text::integer)", (text, model, top_k), text is None, kind="rows")


def text_to_sql(generator: Generator) -> Call:
    text = generator.text()
    arguments = (text, generator.valid_mostly([sql_script.MODEL, None], [generator.name()]), tables_of(generator))
    return Call("text_to_sql(%s::text, %s::text, %s::text::regclass[])", arguments, text is None)


def ask(generator: Generator) -> Call:
    text, rows = generator.text(), generator.count("1", "2", "1000")
    arguments = (text, generator.valid_mostly([sql_script.MODEL, None], [generator.name()]), tables_of(generator), rows)
    sql = "ask(%s::text, %s::text, %s::text::regclass[], %s::text::integer)"
    return Call(sql, arguments, text is None, kind="rows")


def text_to_sql_candidates(generator: Generator) -> Call:
    text, k = generator.text(), generator.count("1", "2", "4", "32")
    arguments = (text, generator.valid_mostly([sql_script.MODEL, None], [generator.name()]), tables_of(generator), k)
    sql = "text_to_sql_candidates(%s::text, %s::text, %s::text::regclass[], %s::text::integer)"
    return Call(sql, arguments, text is None, kind="rows")


def tables_of(generator: Generator) -> object:
    odd: list[object] = ["{}", "{NULL}", "{pg_class}", "{4711}", "{nowhere}", "{", '{{odd."We\\"\\"ird\\""}}']
    return generator.valid_mostly([None, "{odd.plain}", "{odd.parts,odd.secured,odd.parts}"], odd)


def register_model(generator: Generator) -> Call:
    arguments = (
        generator.valid_mostly(["fuzzed", "fuzzed-too"], [generator.name()]),
        generator.artifact(),
        generator.task(),
        generator.valid_mostly([None, "v1"], [generator.name()]),
        generator.options(),
    )
    return Call("register_model(%s::text, %s::text, %s::text, %s::text, %s::jsonb)", arguments)


def drop_model_version(generator: Generator) -> Call:
    name = generator.valid_mostly(["minilm"], [generator.name()])
    version = generator.valid_mostly(["v1", "v1-int8"], [generator.name()])
    return Call("drop_model_version(%s::text, %s::text)::text", (name, version))


def configure(generator: Generator) -> Call:
    return Call("configure(%s::text, %s::text)", generator.setting())


def cache_purge(generator: Generator) -> Call:
    choose = generator.random.choice
    age, number = choose([None, "1 day", "-1 day", "9999999 years", "0"]), choose([None, 0, 1, -1, 2**63 - 1])
    arguments = (generator.model(), generator.role(), age, number, choose([None, 0, -1, 10**9, 2**63 - 1]))
    return Call("cache_purge(%s::text, %s::text::regrole, %s::text::interval, %s::bigint, %s::bigint)", arguments)


def stat_reset(generator: Generator) -> Call:
    return Call("stat_reset()::text", ())


def grant(generator: Generator) -> Call:
    level = generator.random.choice(["usage", "operate", "admin", "ask"])
    return Call(f"grant_{level}(%s::text::regrole)::text", (generator.role(),))


def last_call_id(generator: Generator) -> Call:
    return Call("last_call_id()", ())


def doctor(generator: Generator) -> Call:
    return Call("doctor()::text", ())


def maintain(generator: Generator) -> Call:
    return Call("maintain()", (), kind="procedure")


def embed_table(generator: Generator) -> Call:
    arguments = (
        generator.table(), generator.text_column(), generator.vector_column(), generator.model_mostly(),
        generator.valid_mostly([None, "1", "2", "1000"], ["0", "-1", "2147483648"], 0.95),
        generator.random.choice([True, False]),
    )  # fmt: skip
    sql = "embed_table(%s::regclass, %s::text, %s::text, %s::text, %s::text::integer, %s::boolean)"
    return Call(sql, arguments, kind="procedure")


def prepare_rollout(generator: Generator) -> Call:
    name = generator.valid_mostly(["minilm"], [generator.name()], 0.8)
    version = generator.valid_mostly(["v1", "v1-int8"], [generator.name()], 0.8)
    arguments = (name, version, generator.preparation())
    return Call("prepare_rollout(%s::text, %s::text, %s::jsonb)", arguments, kind="procedure")


def track_column(generator: Generator) -> Call:
    column = generator.valid_mostly(["embedding"], [generator.vector_column()], 0.92)
    arguments = (generator.table(), column, generator.tracked_model())
    return Call("track_column(%s::regclass, %s::text, %s::text)::text", arguments)


def auto_embed(generator: Generator) -> Call:
    arguments = (
        generator.table(), generator.text_column(), generator.model_mostly(), generator.new_collection(),
        generator.mode(), generator.collection_options(),
    )  # fmt: skip
    sql = "auto_embed(%s::regclass, %s::text, %s::text, %s::text, %s::text, %s::jsonb)"
    return Call(sql, arguments, kind="procedure")


def drop_auto_embed(generator: Generator) -> Call:
    return Call("drop_auto_embed(%s::text)::text", (generator.collection(),))


def requeue_failed(generator: Generator) -> Call:
    return Call("requeue_failed(%s::text)::text", (generator.collection(),))


def semantic_search(generator: Generator) -> Call:
    arguments = (generator.collection(), generator.text(), generator.count("1", "3", "10", "100"), generator.filter())
    return Call("semantic_search(%s::text, %s::text, %s::text::integer, %s::jsonb)", arguments, kind="rows")


def hybrid_search(generator: Generator) -> Call:
    arguments = (
        generator.collection(), generator.text(), generator.count("1", "3", "10", "100"), generator.filter(),
        generator.weight(),
    )  # fmt: skip
    sql = "hybrid_search(%s::text, %s::text, %s::text::integer, %s::jsonb, %s::text::float8)"
    return Call(sql, arguments, kind="rows")


def finetune_sbert(generator: Generator) -> Call:
    version = generator.valid_mostly([None, "v2"], [generator.name()], 0.95)
    evaluation = generator.valid_mostly([None], [generator.rows()], 0.9)
    model = generator.valid_mostly(["minilm", "minilm@v1"], [generator.name()], 0.95)
    arguments = (model, generator.rows(), version, evaluation, generator.training_options())
    sql = "finetune_sbert(%s::text, %s::text, %s::text, %s::text, %s::jsonb)"
    return Call(sql, arguments, kind="procedure")


def evaluate_model(generator: Generator) -> Call:
    metrics = generator.valid_mostly(
        [None], [["spearman"], ["ndcg@5", "latency"], [], [None], ["mrr@0"], ["mrr@99999999999"], ["x" * 9999]], 0.8
    )
    options = generator.valid_mostly([None, "{}", '{"k": 5}'], [generator.options()], 0.95)
    model = generator.valid_mostly(["minilm", "minilm@v1-int8"], [generator.name()], 0.95)
    arguments = (model, generator.rows(), metrics, options)
    return Call("evaluate_model(%s::text, %s::text, %s::text[], %s::jsonb)", arguments, kind="procedure")


def tune_engine(generator: Generator) -> Call:
    model = generator.valid_mostly(["minilm", "minilm@v1"], [generator.name()], 0.9)
    version = generator.valid_mostly([None, "v1"], [generator.name()], 0.9)
    options = generator.valid_mostly([None, "{}", '{"engines": ["openvino"]}'], [generator.options()], 0.9)
    return Call("tune_engine(%s::text, %s::text, %s::jsonb)", (model, version, options), kind="procedure")


def reset_engine(generator: Generator) -> Call:
    name = generator.valid_mostly(["minilm", "minilm@v1"], [generator.name()], 0.7)
    version = generator.valid_mostly([None, "v1", "v1-int8"], [generator.name()], 0.7)
    return Call("reset_engine(%s::text, %s::text)::text", (name, version))


def cancel_job(generator: Generator) -> Call:
    return Call("cancel_job(%s::text::bigint)::text", (generator.number(),))


def model_card(generator: Generator) -> Call:
    name = generator.valid_mostly(["minilm"], [generator.name()], 0.7)
    version = generator.valid_mostly([None, "v1", "v1-int8"], [generator.name()], 0.7)
    return Call("model_card(%s::text, %s::text)::text", (name, version))


def report(generator: Generator) -> Call:
    name, time = generator.valid_mostly(["minilm"], [generator.name()]), generator.interval()
    reports = {
        "ab_report(%s::text)": (name,),
        "quality_report(%s::text, %s::text::interval)": (name, time),
        "drift_report(%s::text, %s::text::interval, %s::text::interval)": (name, time, generator.interval()),
    }
    sql = generator.random.choice([*reports])
    return Call(sql, reports[sql], kind="rows")


def ab_selftest(generator: Generator) -> Call:
    name, rounds = generator.valid_mostly(["minilm"], [generator.name()]), generator.count("1", "20")
    return Call("ab_selftest(%s::text, %s::text::integer)", (name, rounds), kind="rows")


def record_feedback(generator: Generator) -> Call:
    texts = [generator.valid_mostly([None, "a text"], [generator.text()], 0.95) for _ in range(3)]
    arguments = (generator.valid_mostly(["1", "4711"], [generator.number()], 0.95), generator.weight(), *texts)
    sql = "record_feedback(%s::text::bigint, %s::text::float8, %s::text, %s::text, %s::text)"
    return Call(sql, arguments)


def add_sql_example(generator: Generator) -> Call:
    sql = generator.valid_mostly(["SELECT 1 AS a", "SELECT 'x' || 'y'"], [generator.rows()], 0.8)
    arguments = (generator.text(), sql, generator.valid_mostly([None], [generator.name()], 0.9))
    return Call("add_sql_example(%s::text, %s::text, %s::text)", arguments)


def drop_sql_example(generator: Generator) -> Call:
    return Call("drop_sql_example(%s::text::bigint)::text", (generator.number(),))


SHARES: dict[Callable[[Generator], Call], float] = {
    embed: 0.18, embed_many: 0.11, embed_pinned: 0.1, semantic_similarity: 0.05, token_count: 0.05,
    register_model: 0.06, drop_model_version: 0.03, configure: 0.04, cache_purge: 0.02, stat_reset: 0.01, grant: 0.02,
    classify: 0.04, text_to_sql: 0.05, ask: 0.01, text_to_sql_candidates: 0.03, last_call_id: 0.005, doctor: 0.005,
    maintain: 0.01,
    prepare_rollout: 0.02, embed_table: 0.06, track_column: 0.03, auto_embed: 0.07, drop_auto_embed: 0.02,
    requeue_failed: 0.01,
    semantic_search: 0.08, hybrid_search: 0.06, finetune_sbert: 0.06, evaluate_model: 0.04,
    tune_engine: 0.03, reset_engine: 0.02, cancel_job: 0.01, model_card: 0.02,
    report: 0.03, ab_selftest: 0.01, record_feedback: 0.03, add_sql_example: 0.05, drop_sql_example: 0.01,
}  # fmt: skip
OF_TABLES = (embed_table, track_column, auto_embed)
OF_QUESTIONS = (text_to_sql, ask, text_to_sql_candidates)
OF_COLLECTIONS = (drop_auto_embed, requeue_failed, semantic_search, hybrid_search)
ANSWERS_FOR_TEXTS = (embed, embed_many, embed_pinned, semantic_similarity, token_count)

WRAPPERS = [
    "SELECT {call}",
    "SELECT {call}",
    "SELECT (SELECT {call})",
    "WITH c AS MATERIALIZED (SELECT {call} AS r) SELECT r FROM c",
    "SELECT {call} FROM pg_catalog.generate_series(1, 2) AS g OFFSET 1",
    "SELECT CASE WHEN true THEN {call} END",
]
STATES: list[list[str]] = [
    [],
    ["SET TRANSACTION READ ONLY"],
    ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
    ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"],
    ["SET TRANSACTION ISOLATION LEVEL SERIALIZABLE READ ONLY"],
    ["SET LOCAL ROLE alice"],
    ["SET LOCAL ROLE stranger"],
    ["SET LOCAL ROLE adam"],
    ["SET LOCAL search_path = ''"],
    ["SET LOCAL search_path = hostile, pg_catalog"],
    ["SET LOCAL standard_conforming_strings = off", "SET LOCAL backslash_quote = on"],
    ["SET LOCAL datestyle = 'SQL, DMY'", "SET LOCAL intervalstyle = 'sql_standard'",
    "SET LOCAL bytea_output = 'escape'"],
    ["SET LOCAL extra_float_digits = -15"],
    ["SET LOCAL statement_timeout = 1"],
    ["SET LOCAL lock_timeout = 1"],
    ["SET LOCAL work_mem = '64kB'"],
    ["SET LOCAL jit = on", "SET LOCAL jit_above_cost = 0"],
    ["SET LOCAL {forced_parallel} = on"],
    ["SET LOCAL pgml_tune.cache = 'off'"],
    ["SET LOCAL pgml_tune.cache = 'session'"],
    ["SET LOCAL pgml_tune.cache = 'rubbish'"],
    ["SET LOCAL pgml_tune.cache = ''"],
    ["SAVEPOINT a", "SELECT 1", "ROLLBACK TO a"],
    ["SAVEPOINT a", "SELECT public.embed('a')", "ROLLBACK TO a"],
    ["SET LOCAL enable_seqscan = off", "SET LOCAL plan_cache_mode = force_generic_plan"],
    ["SET LOCAL row_security = off", "SET LOCAL check_function_bodies = off"],
]
HOSTILE_SCHEMA = """
CREATE SCHEMA hostile;
GRANT USAGE ON SCHEMA hostile TO PUBLIC;
CREATE FUNCTION hostile.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$;
CREATE FUNCTION hostile.jsonb_to_recordset(jsonb) RETURNS SETOF record LANGUAGE plpgsql
    AS $$ BEGIN RAISE division_by_zero; END $$;
CREATE FUNCTION hostile.equals(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$;
CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equals);
CREATE TABLE hostile.setting (name text, value text);
"""
LEAST_ANSWERED = 0.25  # of the cases of a function, or the generator tests nothing but refusals


@dataclass
class Outcome:
    """What came of a case: a fault, or an answer, or a refusal by the book."""

    fault: str = ""
    answered: bool = False


def run_case(session: psycopg.Connection[Any], make: Callable[[Generator], Call], number: int) -> Outcome:
    """Makes the call of a number and judges what comes back."""
    generator = Generator(number)
    call = make(generator)
    forced = "debug_parallel_query" if session.info.server_version >= 160000 else "force_parallel_mode"
    state = generator.random.choice(STATES)
    wrapper = generator.random.choice(WRAPPERS)
    sql = call.statement(wrapper)
    session.execute("BEGIN")
    try:
        for statement in state:
            session.execute(statement.format(forced_parallel=forced))
        rows = session.execute(sql, call.parameters or None)
        answer = None if call.kind == "procedure" else rows.fetchone()[0]  # type: ignore[index]
    except psycopg.Error as error:
        fault = judge_error(make, error)
        return Outcome(f"{state} {fault}" if fault else "")
    finally:
        if not session.closed:
            session.execute("ROLLBACK")
    fault = judge_answer(make, call, answer)
    return Outcome(f"{state} {call.sql}: {fault}" if fault else "", True)


def judge_error(make: Callable[[Generator], Call], error: psycopg.Error) -> str:
    if error.sqlstate is None:
        return f"the session ended: {error}"
    of_queries = OF_QUERIES if make in (finetune_sbert, evaluate_model) else set()
    if error.sqlstate not in DOCUMENTED | OF_CASTS | of_queries:
        return f"undocumented {error.sqlstate}: {error}"
    report = error.diag
    shown = [report.message_primary, report.message_detail, report.message_hint, report.context, report.internal_query]
    return "text of the user in the error" if any(part and CANARY in part for part in shown) else ""


def judge_answer(make: Callable[[Generator], Call], call: Call, answer: Any) -> str:
    if make in (semantic_search, hybrid_search):
        k = int(str(call.parameters[2]))
        return "" if len(answer) <= k else f"{len(answer)} rows for k = {k}"
    if make is classify:
        wanted = 0 if call.wants_null else min(3, int(str(call.parameters[2])))
        return "" if len(answer) == wanted else f"{len(answer)} labels, not {wanted}"
    if make not in ANSWERS_FOR_TEXTS:
        return ""
    if (answer is None) != call.wants_null:
        return f"NULL is {answer is None}, not {call.wants_null}"
    if answer is None:
        return ""
    if make in (embed, embed_pinned):
        return judge_vector(answer)
    if make is semantic_similarity:
        return "" if -1 <= answer <= 1 else f"cosine {answer}"
    if make is token_count:
        return "" if answer >= 2 else f"{answer} tokens"
    return judge_vectors(call, answer)


def judge_vectors(call: Call, answer: Any) -> str:
    vectors = answer if isinstance(answer, list) else split_array(answer)
    if len(vectors) != call.length:
        return f"{len(vectors)} vectors for {call.length} texts"
    if call.nulls is not None and tuple(vector is None for vector in vectors) != call.nulls:
        return "NULL in other places than in the input"
    return next(filter(None, map(judge_vector, filter(None, set(vectors)))), "")


def split_array(text: str) -> list[str | None]:
    """The elements of a vector[] in its text form."""
    inner = text[1:-1]
    parts = inner.replace('"', "").replace("],[", "]\n[").replace("],NULL", "]\nNULL").replace("NULL,", "NULL\n")
    return [None if part == "NULL" else part for part in parts.split("\n")] if inner else []


def judge_vector(text: str) -> str:
    vector = json.loads(text)
    norm = math.sqrt(sum(number * number for number in vector))
    if len(vector) != DIMENSIONS:
        return f"{len(vector)} dimensions"
    return "" if abs(norm - 1) <= 1e-3 else f"norm {norm}"


@pytest.fixture
def fuzzed(
    request: pytest.FixtureRequest, db: psycopg.Connection[Any], server_home: Path, server_log: Callable[[int], str]
) -> Iterator[psycopg.Connection[Any]]:
    """A session to torment; afterwards the server must be the same and its log without the users' texts."""
    if request.node.callspec.params["make"] is classify:
        digest = Installation(server_home).build_classifier()
        db.execute("SELECT register_model('sorter', %s, 'classification')", (digest,))
    if request.node.callspec.params["make"] in OF_QUESTIONS:
        sql_script.register(db)
        db.execute("SELECT configure('ask_privileged', 'on')")
    db.execute(HOSTILE_SCHEMA)
    db.execute("SET statement_timeout = '60s'")
    db.execute("SELECT configure('auto_start_worker', 'off')")
    identity = "SELECT pg_postmaster_start_time()::text || pg_backend_pid()"
    before, position = fetch_value(db, identity), len(server_log(0).encode())
    yield db
    assert fetch_value(db, identity) == before
    assert CANARY not in server_log(position)


def run_cases(session: psycopg.Connection[Any], make: Callable[[Generator], Call], first: int, count: int) -> None:
    if make in OF_TABLES + OF_COLLECTIONS + OF_QUESTIONS:
        session.execute("SET client_min_messages = warning")
        session.execute(ODD_TABLES)
    if make in OF_QUESTIONS:
        session.execute("SET search_path = odd, public")
        sql_script.follow(session, {"": [f"SELECT {CANARY} FROM nowhere", "SELECT 1"]}, sql_script.ALONE, 2000)
    if make in OF_COLLECTIONS:
        for statement in COLLECTIONS:
            session.execute(statement)
    faults, answered = {}, 0
    for number in range(first, first + count):
        outcome = run_case(session, make, number)
        answered += outcome.answered
        if outcome.fault:
            faults[number] = outcome.fault
        assert not session.closed, faults
    assert not faults
    # Cases run in transaction blocks, where maintain() has to refuse; there is no job to cancel, no call to test with,
    # no collection in mode queue.
    rarely = (grant, maintain, cancel_job, ab_selftest, drop_sql_example, requeue_failed)
    assert answered >= count * LEAST_ANSWERED or make in rarely


@pytest.mark.parametrize("make", SHARES, ids=lambda make: make.__name__)
def test_function_answers_or_refuses_by_the_book(fuzzed: psycopg.Connection[Any], make: Callable[..., Call]) -> None:
    run_cases(fuzzed, make, 0, math.ceil(1000 * SHARES[make]))


@pytest.mark.fuzz
@pytest.mark.parametrize("make", SHARES, ids=lambda make: make.__name__)
def test_function_survives_many_generated_calls(fuzzed: psycopg.Connection[Any], make: Callable[..., Call]) -> None:
    run_cases(fuzzed, make, 1_000_000, math.ceil(CASES * SHARES[make]))
