"""A share of the calls goes to the candidate of a rollout in its space: by unit, logged, with somebody behind it."""

import base64
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect
from job_workers import Installation

TEXTS = [f"a text about thing number {number}" for number in range(40)]
CANDIDATE = "v1-int8-block"
LOGGED = """
SELECT c.task, c.version, c.variant, c.unit, c.texts, c.cache, c.is_fallback, c.sqlstate, c.call_id, c.share, c.phase,
       c.collection, c.output_count, c.sample_rate, c.model, c.is_cold, c.rollout_id
FROM pgml_tune._calls AS c ORDER BY c.call_id
"""


@dataclass(frozen=True)
class Logged:
    """A call as the log has it."""

    task: str
    version: str
    variant: str | None
    unit: int | None
    texts: int
    cache: str
    is_fallback: bool
    sqlstate: str | None
    call_id: int
    share: int | None
    phase: int | None
    collection: str | None
    output_count: int
    sample_rate: float
    model: str
    is_cold: bool
    rollout_id: int | None


def logged(db: psycopg.Connection[Any], task: str | None = None) -> list[Logged]:
    """What has been logged in a database, oldest first for each session."""
    calls = [Logged(*row) for row in db.execute(LOGGED).fetchall()]
    return [call for call in calls if task in (None, call.task)]


def roll_out(db: psycopg.Connection[Any], percent: int, model: str = "minilm", version: str = CANDIDATE) -> None:
    """Gives a version a share of the units."""
    db.execute('SELECT rollout_model(%s, %s, %s, \'{"untracked": "accept"}\')', (model, version, percent))


def salt(db: psycopg.Connection[Any], model: str = "minilm") -> str:
    return str(fetch_value(db, "SELECT salt FROM pgml_tune.serving WHERE model = %s", (model,)))


def unit_of(db: psycopg.Connection[Any], text: str) -> int:
    """The number of a unit, as SQL computes it."""
    return int(fetch_value(db, "SELECT pgml_tune._unit(%s, %s)", (salt(db), text)))


def vector(db: psycopg.Connection[Any], text: str, version: str) -> Any:
    return fetch_value(db, "SELECT embed(%s, 'minilm@' || %s)", (text, version))


def expected_version(db: psycopg.Connection[Any], text: str, share: int) -> str:
    return CANDIDATE if unit_of(db, text) % 10_000 < share else "v1"


# Units


def test_each_text_is_answered_by_the_version_of_its_unit_and_logged_so(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 30)
    for text in TEXTS:
        version = expected_version(db, text, 3000)
        assert fetch_value(db, "SELECT embed(%s)", (text,)) == vector(db, text, version)
        call_id = fetch_value(db, "SELECT last_call_id() - 1")  # the other call came after it
        (call,) = [call for call in logged(db) if call.call_id == call_id]
        variant = "candidate" if version == CANDIDATE else "serving"
        assert (call.version, call.variant, call.unit) == (version, variant, unit_of(db, text))
        assert (call.task, call.share, call.phase, call.sample_rate, call.output_count) == ("embed", 3000, 1, 1.0, 384)


def test_a_growing_share_takes_nobody_back(db: psycopg.Connection[Any]) -> None:
    before: set[str] = set()
    for percent in (5, 20, 50, 90):
        roll_out(db, percent)
        now = {text for text in TEXTS if fetch_value(db, "SELECT embed(%s)", (text,)) == vector(db, text, CANDIDATE)}
        assert before <= now
        before = now
    assert len(before) > 25


def test_every_session_sends_a_unit_to_the_same_version(db: psycopg.Connection[Any], connect: Connect) -> None:
    roll_out(db, 50)
    other = connect("alice")
    for text in TEXTS[:20]:
        assert fetch_value(db, "SELECT embed(%s)", (text,)) == fetch_value(other, "SELECT embed(%s)", (text,))


def test_an_array_is_answered_text_by_text_and_each_text_is_a_unit(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 40)
    texts = [*TEXTS, None, *TEXTS[:5]]
    found = fetch_value(db, "SELECT embed(%s::text[])::text[]", (texts,))
    db.execute(
        "CREATE TABLE answer AS SELECT a.body, a.embedding::vector"
        " FROM unnest(%s::text[], %s::text[]) AS a (body, embedding)",
        (texts, found),
    )
    for text in TEXTS:
        version = expected_version(db, text, 4000)
        near = "SELECT max(embedding <=> embed(body, %s)) < 1e-5 FROM answer WHERE body = %s"
        assert fetch_value(db, near, (f"minilm@{version}", text)) is True
    assert fetch_value(db, "SELECT embedding IS NULL FROM answer WHERE body IS NULL")
    calls = logged(db, "batch")
    assert len(calls) == len(texts) - 1
    assert {call.unit for call in calls} == {unit_of(db, text) for text in TEXTS}
    assert all((call.version == CANDIDATE) == (call.unit is not None and call.unit % 10_000 < 4000) for call in calls)


def test_the_unit_of_a_session_sends_all_its_calls_to_one_version(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 50)
    for unit in ("user 1", "user 2", "user 3", "übergroß"):
        version = expected_version(db, unit, 5000)
        db.execute("SELECT set_config('pgml_tune.unit', %s, false)", (unit,))
        for text in TEXTS[:5]:
            assert fetch_value(db, "SELECT embed(%s)", (text,)) == vector(db, text, version)
        db.execute("SELECT embed(%s::text[])", (TEXTS[:7],))
        db.execute("SELECT semantic_similarity('one', 'two')")
        calls = [call for call in logged(db) if call.variant is not None][-7:]
        assert {(call.unit, call.version) for call in calls} == {(unit_of(db, unit), version)}
        assert [(call.task, call.texts) for call in calls[-2:]] == [("batch", 7), ("similarity", 2)]


def test_a_unit_too_long_is_refused_also_while_no_rollout_runs(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT embed('a')")
    db.execute("SELECT set_config('pgml_tune.unit', repeat('x', 1001), false)")
    with refused("22023"):
        db.execute("SELECT embed('a')")
    db.execute("SELECT embed('a', 'minilm@v1')")


def test_a_unit_that_is_empty_is_none_and_one_too_long_is_refused(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 50)
    db.execute("SET pgml_tune.unit = ''")
    db.execute("SELECT embed(%s)", (TEXTS[0],))
    assert logged(db)[-1].unit == unit_of(db, TEXTS[0])
    db.execute("SELECT set_config('pgml_tune.unit', repeat('é', 500), false)")
    db.execute("SELECT embed(%s)", (TEXTS[0],))
    db.execute("SELECT set_config('pgml_tune.unit', repeat('é', 500) || 'x', false)")
    for call in ("embed('a')", "embed(ARRAY['a'])", "semantic_similarity('a', 'b')"):
        with refused("22023"):
            db.execute(f"SELECT {call}")


def test_two_texts_that_are_compared_are_one_unit(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 50)
    for left, right in zip(TEXTS[::2], TEXTS[1::2], strict=True):
        found = fetch_value(db, "SELECT semantic_similarity(%s, %s)", (left, right))
        version = logged(db, "similarity")[-1].version
        named = fetch_value(db, "SELECT semantic_similarity(%s, %s, 'minilm@' || %s)", (left, right, version))
        assert found == pytest.approx(named, abs=1e-6)
    assert {call.version for call in logged(db, "similarity") if call.variant} == {"v1", CANDIDATE}


def test_named_versions_passages_and_token_counts_are_never_routed(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 99)
    for text in TEXTS[:20]:
        assert fetch_value(db, "SELECT embed(%s, 'minilm@v1')", (text,)) == vector(db, text, "v1")
        found = "SELECT embedding FROM pgml_tune._embed_passages(ARRAY[%s], 'minilm', NULL, 0)"
        assert fetch_value(db, found, (text,)) == vector(db, text, "v1")
        db.execute("SELECT token_count(%s), embed_pinned(%s, 'minilm', 'v1')", (text, text))
    assert {call.variant for call in logged(db)} == {None}
    assert {call.task for call in logged(db)} <= {"embed", "passages"}


def test_units_are_the_same_in_a_database_of_another_encoding(db: psycopg.Connection[Any], connect: Connect) -> None:
    db.execute("DROP DATABASE IF EXISTS encoded_units")
    db.execute("CREATE DATABASE encoded_units TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    encoded = connect(dbname="encoded_units", client_encoding="UTF8")
    try:
        encoded.execute("SET client_min_messages = warning")
        encoded.execute("CREATE EXTENSION pgml_tune CASCADE")
        for version in ("v1", CANDIDATE):
            encoded.execute("SELECT register_model('minilm', 'minilm@' || %s, 'embedding', %s)", (version, version))
        roll_out(encoded, 50)
        for unit in ("Müller", "Möller", "plain"):
            encoded.execute("SELECT set_config('pgml_tune.unit', %s, false)", (unit,))
            encoded.execute("SELECT embed('a')")
            assert logged(encoded)[-1].unit == unit_of(encoded, unit)
    finally:
        encoded.close()
        db.execute("DROP DATABASE encoded_units WITH (FORCE)")


# Which version a name means


def serve_by_function(db: psycopg.Connection[Any], version: str) -> None:
    """Lets the catalog say what plain embed() serves, ahead of every snapshot; the row of the model stays behind."""
    find = """
        SELECT m.model_id, ARRAY[v.model_version_id::text, v.version, v.artifact_sha256, v.dimensions::text]::text
        FROM pgml_tune.model AS m JOIN pgml_tune.model_version AS v USING (model_id)
        WHERE m.name = 'minilm' AND v.version = %s
    """
    (found,) = db.execute(find, (version,)).fetchall()
    model_id, served = found
    db.execute(
        f"CREATE OR REPLACE FUNCTION pgml_tune._serving_{model_id}() RETURNS text[] LANGUAGE sql STABLE"
        f" SET search_path = pg_catalog, pg_temp AS $$ SELECT '{served}'::text[] $$"
    )


def test_an_older_snapshot_follows_the_catalog_as_views_do(db: psycopg.Connection[Any], connect: Connect) -> None:
    reader = connect("alice")
    reader.execute("SELECT embed('a')")
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM pgml_tune.models")
    serve_by_function(db, "v1-int8")
    assert fetch_value(reader, "SELECT embed('a')") == vector(db, "a", "v1-int8")
    reader.execute("COMMIT")
    serve_by_function(db, "v1")
    assert fetch_value(reader, "SELECT embed('a')") == vector(db, "a", "v1")


def test_a_rollout_of_a_version_that_serves_no_more_is_over(db: psycopg.Connection[Any]) -> None:
    roll_out(db, 50)
    serve_by_function(db, "v1-int8")
    for text in TEXTS[:10]:
        assert fetch_value(db, "SELECT embed(%s)", (text,)) == vector(db, text, "v1-int8")
    assert {call.variant for call in logged(db)} == {None}


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_transaction_that_has_embedded_holds_what_the_name_means(
    db: psycopg.Connection[Any], connect: Connect, isolation: str
) -> None:
    reader = connect("alice")
    take = "BEGIN; SET LOCAL lock_timeout = '100ms'; LOCK TABLE pgml_tune.serving IN ACCESS EXCLUSIVE MODE; COMMIT"
    for _ in range(3):  # also where the session knows the answer from the transaction before
        reader.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        reader.execute("SELECT embed('a')")
        with refused("55P03"):
            db.execute(take)
        db.execute("ROLLBACK")
        reader.execute("COMMIT")
        db.execute(take)
    reader.execute("BEGIN")
    reader.execute("SELECT embed('a', 'minilm@v1'), embed_pinned('a', 'minilm', 'v1')")
    db.execute(take)


# What is logged outside a rollout


def test_the_sample_decides_what_is_logged_and_errors_always_are(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '0'), configure('max_input_bytes', '100')")
    for text in TEXTS[:10]:
        db.execute("SELECT embed(%s)", (text,))
    for call in ("embed(repeat('x', 101))", "embed(ARRAY[repeat('x', 101)])"):
        with refused("54000"):
            db.execute(f"SELECT {call}")
    assert [(call.task, call.sqlstate, call.sample_rate) for call in logged(db)] == [
        ("embed", "54000", 1.0), ("batch", "54000", 1.0),
    ]  # fmt: skip
    db.execute("SELECT configure('log_sample', '1')")
    db.execute("BEGIN")
    db.execute("SELECT embed(%s), embed('new'), embed(ARRAY[%s, 'newer'])", (TEXTS[0], TEXTS[1]))
    db.execute("ROLLBACK")
    assert [(call.task, call.texts, call.cache) for call in logged(db)[2:]] == [
        ("embed", 1, "session"), ("embed", 1, "miss"), ("batch", 2, "mixed"),
    ]  # fmt: skip


def test_a_call_that_has_loaded_its_model_is_cold(connect: Connect, db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    fresh = connect("alice")
    for text in TEXTS[:3]:
        fresh.execute("SELECT embed(%s)", (text,))
    assert [call.is_cold for call in logged(db)] == [True, False, False]


def test_text_and_sketch_are_logged_only_where_the_settings_say_so(db: psycopg.Connection[Any]) -> None:
    db.execute("SELECT configure('log_sample', '1')")
    kept = "SELECT input_text, sketch, unknown_tokens, tokens FROM pgml_tune.call_log ORDER BY call_id DESC LIMIT 1"
    db.execute("SELECT embed('a secret 𓀀')")
    db.execute("SELECT pgml_tune._ingest_logs()")
    text, sketch, unknown, tokens = db.execute(kept).fetchone() or ()
    assert (text, sketch) == (None, None)
    assert 0 < unknown < tokens
    db.execute("SELECT configure('log_text', 'on'), configure('log_sketch', 'on')")
    db.execute("SELECT embed('no secret')")
    db.execute("SELECT pgml_tune._ingest_logs()")
    text, sketch, unknown, _ = db.execute(kept).fetchone() or ()
    assert (text, unknown, len(base64.b64decode(sketch))) == ("no secret", 0, 32)


# Candidates that fail


@dataclass(frozen=True)
class Breakable:
    """A model of two versions in one space, of which the second can be broken and mended."""

    name: str
    file: Path
    content: bytes

    def break_candidate(self) -> None:
        self.file.write_bytes(self.content[:-1] + bytes([self.content[-1] ^ 1]))

    def mend_candidate(self) -> None:
        self.file.write_bytes(self.content)


@pytest.fixture(scope="module")
def digests(server_home: Path) -> tuple[str, Iterator[str]]:
    """An artifact that serves, and others of its space, one for each test that breaks one."""
    installation = Installation(server_home)
    tiny = installation.build_tiny()
    return tiny, iter(installation.variants(tiny, uuid.uuid4().hex, 5))


@pytest.fixture
def breakable(db: psycopg.Connection[Any], digests: tuple[str, Iterator[str]], server_home: Path) -> Breakable:
    name = f"breakable-{uuid.uuid4().hex[:12]}"
    serving, others = digests
    candidate = next(others)
    for version, digest in (("v1", serving), ("v2", candidate)):
        db.execute("SELECT register_model(%s, %s, 'embedding', %s)", (name, digest, version))
    file = server_home / "models" / candidate / "model.onnx"
    return Breakable(name, file, file.read_bytes())


@pytest.fixture
def session(db: psycopg.Connection[Any], connect: Connect, breakable: Breakable) -> psycopg.Connection[Any]:
    """A session that has loaded none of the versions."""
    roll_out(db, 99, breakable.name, "v2")
    return connect("alice")


def unit_of_candidate(db: psycopg.Connection[Any], model: str) -> str:
    """A text that belongs to the candidate at 99 percent."""
    chosen = "SELECT t FROM unnest(%s::text[]) AS t WHERE pgml_tune._unit(%s, t) %% 10000 < 9900 LIMIT 1"
    return str(fetch_value(db, chosen, (TEXTS, salt(db, model))))


def test_the_serving_version_answers_for_a_broken_candidate_until_it_is_not_tried_any_more(
    db: psycopg.Connection[Any], connect: Connect, breakable: Breakable, session: psycopg.Connection[Any]
) -> None:
    breakable.break_candidate()
    text = unit_of_candidate(db, breakable.name)
    serving = fetch_value(db, "SELECT embed(%s, %s)", (text, f"{breakable.name}@v1"))
    for _ in range(3):
        assert fetch_value(session, "SELECT embed(%s, %s)", (text, breakable.name)) == serving
    breakable.mend_candidate()
    assert fetch_value(session, "SELECT embed(%s, %s)", (text, breakable.name)) == serving
    calls = [call for call in logged(db) if call.variant]
    assert [(call.version, call.variant, call.is_fallback, call.sqlstate) for call in calls] == [
        ("v1", "candidate", True, "XX001")
    ] * 4
    fresh = connect("alice")
    assert fetch_value(fresh, "SELECT embed(%s, %s)", (text, breakable.name)) is not None
    assert [(call.version, call.is_fallback) for call in logged(db) if call.variant and not call.sqlstate] == [
        ("v2", False)
    ]


def test_a_new_phase_tries_a_candidate_again(
    db: psycopg.Connection[Any], breakable: Breakable, session: psycopg.Connection[Any]
) -> None:
    db.execute("SELECT configure('candidate_failures', '1')")
    breakable.break_candidate()
    text = unit_of_candidate(db, breakable.name)
    session.execute("SELECT embed(%s, %s)", (text, breakable.name))
    breakable.mend_candidate()
    session.execute("SELECT embed(%s, %s)", (text, breakable.name))
    roll_out(db, 98, breakable.name, "v2")
    session.execute("SELECT embed(%s, %s)", (text, breakable.name))
    calls = [call for call in logged(db) if call.variant]
    assert [(call.phase, call.is_fallback) for call in calls] == [(1, True), (1, True), (2, False)]


def test_an_array_falls_back_as_a_whole(
    db: psycopg.Connection[Any], breakable: Breakable, session: psycopg.Connection[Any]
) -> None:
    breakable.break_candidate()
    found = fetch_value(session, "SELECT embed(%s::text[], %s)::text[]", (TEXTS, breakable.name))
    same = "SELECT bool_and(a::vector <=> embed(b, %s) < 1e-5) FROM unnest(%s::text[], %s::text[]) AS u (a, b)"
    assert fetch_value(session, same, (f"{breakable.name}@v1", found, TEXTS)) is True
    calls = logged(db, "batch")
    assert len(calls) == len(TEXTS)
    assert {(call.version, call.is_fallback) for call in calls if call.variant == "candidate"} == {("v1", True)}


def test_an_error_of_both_versions_reaches_the_caller_and_opens_nothing(
    db: psycopg.Connection[Any], breakable: Breakable, session: psycopg.Connection[Any]
) -> None:
    db.execute("SELECT configure('long_input', 'error'), configure('candidate_failures', '1')")
    text = unit_of_candidate(db, breakable.name)
    session.execute("SELECT set_config('pgml_tune.unit', %s, false)", (text,))
    for _ in range(3):
        with refused("54000"):
            session.execute("SELECT embed(repeat('word ', 2000), %s)", (breakable.name,))
    session.execute("SELECT embed('short', %s)", (breakable.name,))
    calls = [(call.version, call.is_fallback, call.sqlstate) for call in logged(db) if call.variant]
    assert calls == [("v1", False, "54000")] * 3 + [("v2", False, None)]


def test_a_cancel_passes_through_a_candidate(db: psycopg.Connection[Any], connect: Connect) -> None:
    roll_out(db, 99)
    db.execute("SELECT configure('candidate_failures', '1')")
    session = connect("alice")
    text = unit_of_candidate(db, "minilm")
    session.execute("SELECT set_config('pgml_tune.unit', %s, false), embed('warm')", (text,))
    session.execute("SET statement_timeout = '300ms'")
    with refused("57014"):
        session.execute(
            "SELECT embed((SELECT array_agg(g || repeat(' word', 200)) FROM generate_series(1, 3000) AS g))"
        )
    session.execute("SET statement_timeout = 0")
    session.execute("SELECT embed('a text')")
    calls = [(call.version, call.is_fallback, call.sqlstate) for call in logged(db) if call.variant][-2:]
    assert calls == [(CANDIDATE, False, "57014"), (CANDIDATE, False, None)]


# Searches


@pytest.fixture
def notes(db: psycopg.Connection[Any]) -> Callable[[str], None]:
    """Keeps a table of notes embedded under a model."""

    def keep(model: str) -> None:
        db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
        db.execute("GRANT SELECT ON note TO alice")
        db.execute("INSERT INTO note SELECT g, 'note ' || g FROM generate_series(1, 50) AS g")
        db.execute("CALL auto_embed('note', 'body', %s, 'notes')", (model,))

    return keep


SEARCH = "SELECT count(*) FROM semantic_search('notes', %s, 5)"


def test_a_search_is_one_logged_call_of_the_version_of_its_unit(
    db: psycopg.Connection[Any], connect: Connect, notes: Callable[[str], None]
) -> None:
    notes("minilm")
    roll_out(db, 50)
    session = connect("alice")
    for text in TEXTS[:20]:
        assert fetch_value(session, SEARCH, (text,)) == 5
        call = logged(db, "search")[-1]
        assert call.version == expected_version(db, text, 5000)
        assert (call.unit, call.collection, call.output_count) == (unit_of(db, text), "notes", 5)
        assert call.call_id == fetch_value(session, "SELECT last_call_id()")
    assert {call.variant for call in logged(db, "search")} == {"serving", "candidate"}
    assert len(logged(db, "search")) == 20


def test_a_search_falls_back_with_model_and_vectors_together(
    db: psycopg.Connection[Any], connect: Connect, breakable: Breakable, notes: Callable[[str], None]
) -> None:
    notes(breakable.name)
    roll_out(db, 99, breakable.name, "v2")
    breakable.break_candidate()
    session = connect("alice")
    text = unit_of_candidate(db, breakable.name)
    for _ in range(4):
        assert fetch_value(session, SEARCH, (text,)) == 5
        assert fetch_value(session, "SELECT count(*) FROM hybrid_search('notes', %s, 5)", (text,)) == 5
    calls = logged(db, "search")
    assert [(call.version, call.variant, call.is_fallback, call.sqlstate) for call in calls] == [
        ("v1", "candidate", True, "XX001")
    ] * 8
    assert {call.output_count for call in calls} == {5}


def test_a_search_that_never_ends_is_logged_as_canceled(
    db: psycopg.Connection[Any], connect: Connect, notes: Callable[[str], None]
) -> None:
    notes("minilm")
    db.execute("SELECT configure('log_sample', '1')")
    session = connect("alice")
    session.execute("SELECT pgml_tune._embed_question('a', 'minilm', 'v1', '{\"collection\": \"notes\"}')")
    session.execute("SELECT embed('next')")
    session.execute("SELECT pgml_tune._end_search(3)")
    calls = [(call.task, call.sqlstate) for call in logged(db) if call.task in ("search", "embed")]
    assert calls == [("search", "57014"), ("embed", None)]


def test_a_call_within_a_search_does_not_end_it(
    db: psycopg.Connection[Any], connect: Connect, notes: Callable[[str], None]
) -> None:
    notes("minilm")
    db.execute("SELECT configure('log_sample', '1')")
    db.execute("ALTER TABLE note ENABLE ROW LEVEL SECURITY")
    db.execute("CREATE POLICY near ON note USING (vector_dims(embed(body)) = 384)")
    session = connect("alice")
    assert fetch_value(session, SEARCH, ("a question",)) == 5
    session.execute("SELECT embed('next')")
    assert [(call.sqlstate, call.output_count) for call in logged(db, "search")] == [(None, 5)]


def test_nobody_tells_of_a_search_that_is_not_his(
    db: psycopg.Connection[Any], connect: Connect, notes: Callable[[str], None]
) -> None:
    notes("minilm")
    roll_out(db, 50)
    session = connect("alice")
    session.execute("SET pgml_tune.unit = 'one'")
    number = unit_of(db, "one")
    own, other = ("v1", CANDIDATE) if number % 10_000 >= 5000 else (CANDIDATE, "v1")
    ask = "SELECT pgml_tune._embed_question('a', 'minilm', %s, %s)"
    notes_route = '{"collection": "notes", "unit": 1, "variant": "candidate", "share": 1, "phase": 9, "rollout_id": 77}'
    for version, route in [
        (other, notes_route),  # the version of other units
        ("v1-int8", notes_route),  # which has no part in it
        (own, '{"collection": "nothere"}'),
        (own, '{"collection": "notes", "is_fallback": true}'),  # no candidate has failed
        (own, "{}"),
        (own, "null"),
        (own, None),
    ]:
        with refused("22023"):
            session.execute(ask, (version, route))
    session.execute(ask, (own, notes_route))
    session.execute("SELECT pgml_tune._end_search(1)")
    (call,) = logged(db, "search")
    assert (call.unit, call.share, call.phase, call.version) == (number, 5000, 1, own)
    assert call.variant == ("serving" if own == "v1" else "candidate")
    with refused("22023"):
        connect("bob").execute(ask, ("v1", '{"collection": "notes"}'))  # he may not read the table
