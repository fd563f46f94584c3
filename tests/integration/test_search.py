"""semantic_search() and hybrid_search() find what an exact comparison in numpy finds, under filters and snapshots."""

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from collection_parts import parts
from conditions import fetch_value, refused, wait_until
from conftest import Connect
from library import BODIES, QUERIES, Library, build, same


@pytest.fixture(scope="module")
def library(connect_shared: Connect) -> Library:
    collections = {
        "library": ("body", {"index": "hnsw"}),
        "library_exact": ("same", {"index": "none", "text_search": "none"}),
        "library_half": ("half", {"index": "hnsw", "storage": "halfvec"}),
    }
    return build(connect_shared(), collections)


@pytest.mark.parametrize("k", [1, 10, 40, 100, len(BODIES), len(BODIES) + 50])
def test_search_without_an_index_equals_numpy(library: Library, k: int) -> None:
    for query in QUERIES[:4]:
        same(library.search(query, k, "library_exact"), library.exact(query, k))


@pytest.mark.parametrize("collection", ["library", "library_half"])
def test_search_by_hnsw_finds_what_numpy_finds(library: Library, collection: str) -> None:
    overlap = 0
    tolerance = 1e-6 if collection == "library" else 1e-3
    for query in QUERIES:
        found, exact = library.search(query, 10, collection), library.exact(query, 10)
        overlap += len({key for key, _ in found} & {key for key, _ in exact})
        assert [distance for _, distance in found] == sorted(distance for _, distance in found)
        exact_of = dict(library.exact(query, len(BODIES)))
        assert [distance for _, distance in found] == pytest.approx([exact_of[key] for key, _ in found], abs=tolerance)
    assert overlap >= 0.98 * 10 * len(QUERIES)


@pytest.mark.parametrize("k", [41, 100, 250, len(BODIES), 10_000])
def test_large_k_is_filled_by_hnsw(library: Library, k: int) -> None:
    for query in QUERIES[:3]:
        found = library.search(query, k)
        assert len(found) == len({key for key, _ in found}) == min(k, len(BODIES))


def test_document_is_the_row(library: Library) -> None:
    key, distance, document = library.db.execute(
        "SELECT key, distance, document FROM semantic_search('library', 'two parrots', 1)"
    ).fetchall()[0]
    row = fetch_value(library.db, "SELECT to_jsonb(l) FROM library AS l WHERE id = %s", (key["id"],))
    assert document == row and set(key) == {"id"} and 0 <= distance <= 2


FILTERS = [
    ({}, "true"),
    ({"shelf": 3}, "shelf = 3"),
    ({"shelf": "3"}, "shelf = 3"),
    ({"price": 2.5}, "price = 2.5"),
    ({"price": "2.50"}, "price = 2.5"),
    ({"lent": True}, "lent"),
    ({"lent": False}, "NOT lent"),
    ({"lent": None}, "lent IS NULL"),
    ({"printed": "2024-01-04"}, "printed = '2024-01-04'"),
    ({"kind": "report"}, "kind = 'report'"),
    ({"facts": {"list": [1, 0], "n": 2}}, "facts = '{\"n\": 2, \"list\": [1, 0]}'"),
    ({"code": "c4ca4238a0b923820dcc509a6f75849b"}, "code = md5('1')::uuid"),
    ({"weight": 0.25}, "weight = 0.25"),
    ({"title": "Title 3"}, "title = 'Title 3'"),
    ({"initial": "b"}, "initial = 'b'"),
    ({"mark": "M3"}, "mark = 'M3'"),
    ({"added": "2024-01-01 04:00+02"}, "added = '2024-01-01 02:00+00'"),
    ({"id": 17}, "id = 17"),
    ({"body": BODIES[30]}, "id = 31"),
    ({'Odd "one" name': "odd 1"}, "shelf IS NOT NULL AND id % 2 = 1"),
    ({"shelf": 3, "lent": True, "kind": "novel"}, "shelf = 3 AND lent AND kind = 'novel'"),
    ({"shelf": 3, "lent": None}, "shelf = 3 AND lent IS NULL"),
    ({"shelf": -1}, "false"),
    ({"title": "'; DROP TABLE library; --"}, "false"),
]


@pytest.mark.parametrize("collection", ["library", "library_exact"])
@pytest.mark.parametrize(("filter_", "condition"), FILTERS, ids=lambda value: str(value)[:40])
def test_filter_leaves_what_equality_in_sql_leaves(
    library: Library, collection: str, filter_: dict[str, Any], condition: str
) -> None:
    ids = [row[0] for row in library.db.execute(f"SELECT id FROM library WHERE {condition}").fetchall()]
    for k in (3, 200):
        found, exact = library.search(QUERIES[0], k, collection, filter_), library.exact(QUERIES[0], k, ids)
        same(found, exact)
    found_by_words = library.db.execute(
        "SELECT (key ->> 'id')::integer FROM hybrid_search('library', 'parrots', 500, %s)", (json.dumps(filter_),)
    ).fetchall()
    assert {key for (key,) in found_by_words} <= set(ids)


@pytest.mark.parametrize(
    ("filter_", "state"),
    [
        ('{"nothere": 1}', "42703"),
        ('{"": 1}', "42703"),
        ('{"BODY": "x"}', "42703"),
        ('{"ctid": "(0,1)"}', "42703"),
        ('{"tableoid": 1}', "42703"),
        ('{"shelf": "x"}', "22P02"),
        ('{"shelf": 1.5}', "22P02"),
        ('{"shelf": true}', "22P02"),
        ('{"shelf": 99999999}', "22003"),
        ('{"kind": "poem"}', "22P02"),
        ('{"code": "no uuid"}', "22P02"),
        ('{"lent": "perhaps"}', "22P02"),
        ('{"printed": "no date"}', "22007"),
        ('{"shelf": [1, 2]}', "22023"),
        ('{"shelf": {"a": 1}}', "22023"),
        ("[]", "22023"),
        ('[{"shelf": 1}]', "22023"),
        ("1", "22023"),
        ('"shelf"', "22023"),
        ("null", "22023"),
        ("true", "22023"),
    ],
)
def test_filter_that_makes_no_sense_is_refused(library: Library, filter_: str, state: str) -> None:
    for function in ("semantic_search", "hybrid_search"):
        with refused(state):
            library.db.execute(f"SELECT * FROM {function}('library', 'x', 10, %s)", (filter_,))


@pytest.mark.parametrize(
    ("arguments", "state"),
    [
        (("library", "x", 0), "22023"),
        (("library", "x", -1), "22023"),
        (("library", "x", None), "22023"),
        (("library", "x", 2147483647), "54000"),
        ((None, "x", 10), "22023"),
        (("nothere", "x", 10), "42704"),
        (("", "x", 10), "42704"),
        (("Library", "x", 10), "42704"),
        (("library", "x" * 1048577, 10), "54000"),
    ],
    ids=str,
)
def test_argument_out_of_bounds_is_refused(library: Library, arguments: tuple[Any, ...], state: str) -> None:
    for function in ("semantic_search", "hybrid_search"):
        with refused(state):
            library.db.execute(f"SELECT * FROM {function}(%s, %s, %s)", arguments)


@pytest.mark.parametrize("query", ["", " ", "%", "'; DROP TABLE library; --", "& | ! <-> :*", '"', "中文", "x " * 4000])
def test_odd_query_is_answered(library: Library, query: str) -> None:
    for function in ("semantic_search", "hybrid_search"):
        rows = library.db.execute(f"SELECT * FROM {function}('library', %s)", (query,)).fetchall()
        assert len(rows) == 10


def test_null_query_finds_nothing(library: Library) -> None:
    for function in ("semantic_search", "hybrid_search"):
        assert library.db.execute(f"SELECT * FROM {function}('library', NULL)").fetchall() == []


def test_search_stands_in_joins_and_runs_in_prepared_statements(library: Library) -> None:
    joined = library.db.execute(
        "SELECT q.text, l.body, s.distance FROM unnest(%s::text[]) AS q (text)"
        " CROSS JOIN LATERAL semantic_search('library_exact', q.text, 2) AS s"
        " JOIN library AS l ON l.id = (s.key ->> 'id')::integer",
        (QUERIES[:5],),
    ).fetchall()
    expected = [(query, BODIES[key - 1]) for query in QUERIES[:5] for key, _ in library.exact(query, 2)]
    assert sorted((query, body) for query, body, _ in joined) == sorted(expected)
    library.db.execute(
        "PREPARE searching (text, integer, jsonb) AS SELECT (key ->> 'id')::integer, distance"
        " FROM semantic_search('library_exact', $1, $2, $3)"
    )
    for query in QUERIES[:8]:
        same(library.db.execute(f"EXECUTE searching ('{query}', 3, NULL)").fetchall(), library.exact(query, 3))
    library.db.execute("DEALLOCATE searching")


@pytest.mark.parametrize(
    "begin",
    [
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
        "BEGIN ISOLATION LEVEL SERIALIZABLE",
        "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE",
    ],
)
def test_search_works_in_every_kind_of_transaction(library: Library, begin: str) -> None:
    library.db.execute(begin)
    same(library.search(QUERIES[1], 5, "library_exact"), library.exact(QUERIES[1], 5))
    assert len(library.db.execute("SELECT * FROM hybrid_search('library', 'the old bridge')").fetchall()) == 10
    library.db.execute("COMMIT")


def test_repeatable_read_searches_in_its_snapshot(connect: Connect, db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO note VALUES (1, 'a lighthouse'), (2, 'a tractor')")
    db.execute("CALL auto_embed('note', 'body', collection => 'note')")
    older = connect()
    older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    search = "SELECT (key ->> 'id')::integer FROM semantic_search('note', 'two parrots')"
    assert older.execute(search).fetchall() == [(2,), (1,)] or older.execute(search).fetchall() == [(1,), (2,)]
    db.execute("INSERT INTO note VALUES (3, 'two parrots'); DELETE FROM note WHERE id = 1")
    assert {key for (key,) in older.execute(search).fetchall()} == {1, 2}
    older.execute("COMMIT")
    assert [key for (key,) in older.execute(search).fetchall()] == [3, 2]


def test_settings_of_the_session_are_as_before(connect_shared: Connect, library: Library) -> None:
    session = connect_shared()
    own = {"hnsw.ef_search": "57", "hnsw.iterative_scan": "strict_order"}
    shown = "SELECT current_setting('hnsw.ef_search'), current_setting('hnsw.iterative_scan')"
    # A new session searches at once, and finds pgvector's own defaults afterwards.
    session.execute("SELECT * FROM semantic_search('library', 'a', 200)")
    assert session.execute(shown).fetchone() == ("40", "off")
    for name, value in own.items():
        session.execute("SELECT set_config(%s, %s, false)", (name, value))
    calls = [
        ("SELECT * FROM semantic_search('library', 'a', 200)", None),
        ("SELECT * FROM semantic_search('library', 'a', 5, '{\"shelf\": 3}')", None),
        ("SELECT * FROM hybrid_search('library', 'a bridge', 200)", None),
        ("SELECT * FROM semantic_search('library', 'a', 0)", "22023"),
        ("SELECT * FROM semantic_search('library', 'a', 5, '{\"shelf\": \"x\"}')", "22P02"),
        ("SELECT 1 / (distance - distance) FROM semantic_search('library', 'a', 200)", "22012"),
    ]
    for begin, end in (("", ""), ("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT a", "ROLLBACK TO a; COMMIT")):
        for call, state in calls:
            session.execute(begin) if begin else None
            if state is None:
                session.execute(call)
                assert session.execute(shown).fetchone() == tuple(own.values())
            else:
                with refused(state):
                    session.execute(call)
            session.execute(end) if end else None
            assert session.execute(shown).fetchone() == tuple(own.values()), call
    # What the user sets in the same transaction is what stays.
    session.execute("BEGIN")
    session.execute("SELECT * FROM semantic_search('library', 'a', 200)")
    session.execute("SET hnsw.ef_search = 99")
    session.execute("COMMIT")
    assert fetch_value(session, "SELECT current_setting('hnsw.ef_search')") == "99"
    # The caller's higher value is not lowered, and planner settings of his change no result.
    session.execute("SET enable_indexscan = off; SET enable_seqscan = off")
    assert len(session.execute("SELECT * FROM semantic_search('library', 'a', 200)").fetchall()) == 200
    session.close()


def test_own_order_by_uses_the_hnsw_index(library: Library) -> None:
    names = parts(library.db, "library")
    query = f"SELECT id FROM {names['view']} ORDER BY embedding <=> {names['query']}('talking birds') LIMIT 10"
    library.db.execute("SET enable_sort = off")  # the planner would rather compare and sort so few rows
    plan = "\n".join(row[0] for row in library.db.execute(f"EXPLAIN {query}").fetchall())
    found = [key for (key,) in library.db.execute(query).fetchall()]
    library.db.execute("RESET enable_sort")
    assert f"Index Scan using {names['side'].split('.')[1]}_hnsw" in plan
    assert len(set(found) & {key for key, _ in library.exact("talking birds", 10)}) >= 9


def test_search_uses_the_hnsw_index(library: Library, connect_shared: Connect) -> None:
    side = parts(library.db, "library")["side"]
    count = "SELECT idx_scan FROM pg_stat_user_indexes WHERE relid = %s::regclass AND indexrelname LIKE '%%_hnsw'"
    before = fetch_value(library.db, count, (side,))
    with connect_shared() as session:
        session.execute("SET enable_sort = off")
        session.execute("SELECT * FROM semantic_search('library', 'talking birds')")
    session.close()
    wait_until(lambda: fetch_value(library.db, count, (side,)) > before)


def test_names_of_the_callers_path_change_nothing(library: Library, connect_shared: Connect) -> None:
    session = connect_shared()
    session.execute("CREATE SCHEMA evil")
    session.execute(
        "CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE division_by_zero; END $$;"
        "CREATE FUNCTION evil.text_trap(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.trap()';"
        "CREATE FUNCTION evil.integer_trap(integer, integer) RETURNS boolean LANGUAGE sql AS 'SELECT evil.trap()';"
        "CREATE FUNCTION evil.vector_trap(vector, vector) RETURNS double precision LANGUAGE sql"
        " AS 'SELECT CASE WHEN evil.trap() THEN 0 ELSE 1 END';"
        "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.text_trap);"
        "CREATE OPERATOR evil.= (LEFTARG = integer, RIGHTARG = integer, FUNCTION = evil.integer_trap);"
        "CREATE OPERATOR evil.<=> (LEFTARG = vector, RIGHTARG = vector, FUNCTION = evil.vector_trap);"
        "CREATE FUNCTION evil.embed_pinned(text, text, text, text) RETURNS vector LANGUAGE sql"
        " AS 'SELECT CASE WHEN evil.trap() THEN NULL END::vector';"
        "CREATE FUNCTION evil.to_jsonb(anyelement) RETURNS jsonb LANGUAGE sql"
        " AS 'SELECT to_jsonb(evil.trap())';"
        "CREATE FUNCTION evil.websearch_to_tsquery(regconfig, text) RETURNS tsquery LANGUAGE sql"
        " AS 'SELECT CASE WHEN evil.trap() THEN NULL END::tsquery';"
        "CREATE TABLE evil.collection (name text); CREATE TABLE evil.library (id integer, body text);"
        "CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.trap())"
    )
    session.execute("SET search_path = evil, public, pg_catalog")
    for collection in ("library", "library_exact"):
        search = f"SELECT key, distance FROM semantic_search('{collection}', 'birds', 5, $$"
        rows = session.execute(search + '{"kind": "novel", "shelf": 1}$$)').fetchall()
        assert len(rows) == 5
    assert len(session.execute("SELECT * FROM hybrid_search('library', 'the bridge')").fetchall()) == 10
    session.execute("SET search_path = ''")
    assert len(session.execute("SELECT * FROM public.semantic_search('library', 'the bridge')").fetchall()) == 10
    session.close()


def test_failed_search_shows_neither_the_query_nor_the_filter(
    db: psycopg.Connection[Any], connect: Connect, server_log: Callable[[int], str]
) -> None:
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text); INSERT INTO note VALUES (0, 'a'), (1, 'b')")
    db.execute("CALL auto_embed('note', 'body', collection => 'note')")
    db.execute("ALTER TABLE note ENABLE ROW LEVEL SECURITY; CREATE POLICY failing ON note USING (1 / id > 0)")
    db.execute("GRANT SELECT ON note TO alice")
    db.execute("CALL maintain()")
    alice, canary = connect("alice"), "kanarienvogel9999"
    vector = fetch_value(db, "SELECT left(embed_pinned(%s, 'minilm', 'v1', 'query')::text, 16)", (canary,))
    position = len(server_log(0).encode())
    for function in ("semantic_search", "hybrid_search"):
        for filter_ in (None, json.dumps({"body": canary})):
            with refused("22012") as failure:
                alice.execute(f"SELECT * FROM {function}('note', %s, 5, %s)", (canary, filter_))
            report = failure.value.diag
            shown = f"{report.message_primary} {report.message_detail} {report.context} {report.internal_query}"
            assert canary not in shown and vector not in shown
    assert canary not in server_log(position) and vector not in server_log(position)


def test_chunked_collection_answers_with_the_best_chunk_of_each_row(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE book (part uuid, \"No\" smallint, body text, PRIMARY KEY (part, \"No\"))")
    for number in range(30):
        body = ". ".join(BODIES[number * 11 : number * 11 + 9]) + "."
        db.execute("INSERT INTO book VALUES (md5(%s)::uuid, %s, %s)", (str(number % 5), number, body))
    db.execute(
        "CALL auto_embed('book', 'body', collection => 'book',"
        " options => '{\"chunk_tokens\": 24, \"chunk_overlap\": 4}')"
    )
    names = parts(db, "book")
    assert fetch_value(db, f"SELECT max(chunk_no) > 2 FROM {names['side']}")
    for query in QUERIES[:6]:
        best = db.execute(
            f"SELECT key_1::text, key_2::integer, min(embedding <=> {names['query']}(%s)) FROM {names['side']}"
            " GROUP BY 1, 2 ORDER BY 3",
            (query,),
        ).fetchall()
        for k in (1, 5, 30, 100):
            search = "SELECT key ->> 'part', (key ->> 'No')::integer, distance FROM semantic_search('book', %s, %s)"
            found = db.execute(search, (query, k)).fetchall()
            assert len(found) == len(set(found)) == min(k, 30)
            assert [row[2] for row in found] == pytest.approx([row[2] for row in best[:k]], abs=1e-6)
    words = db.execute("SELECT key, score FROM hybrid_search('book', 'microscope parrots', 30, weight => 0)").fetchall()
    assert words and len({str(key) for key, _ in words}) == len(words)


def test_search_follows_writes_and_returns_k_rows_among_dead_tuples(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    db.execute("INSERT INTO note SELECT g, b FROM unnest(%s::text[]) WITH ORDINALITY AS u (b, g)", (BODIES[:150],))
    db.execute("CALL auto_embed('note', 'body', collection => 'note', options => '{\"index\": \"hnsw\"}')")
    side = parts(db, "note")["side"]
    db.execute(f"ALTER TABLE {side} SET (autovacuum_enabled = off); ANALYZE {side}; ANALYZE note")
    db.execute("SET enable_sort = off")  # the graph, although there are so few rows
    for turn in range(3):
        db.execute("UPDATE note SET body = body || ' again'")
        for query in QUERIES:
            rows = db.execute("SELECT key, document ->> 'body' FROM semantic_search('note', %s)", (query,)).fetchall()
            assert len(rows) == 10 and all(body.count(" again") == turn + 1 for _, body in rows)
    db.execute("DELETE FROM note WHERE id > 5")
    for k in (3, 10):
        rows = db.execute("SELECT key FROM semantic_search('note', 'two parrots', %s)", (k,)).fetchall()
        assert len(rows) == min(k, 5) and all(key["id"] <= 5 for (key,) in rows)
    db.execute("TRUNCATE note")
    assert db.execute("SELECT * FROM semantic_search('note', 'two parrots')").fetchall() == []
    assert db.execute("SELECT * FROM hybrid_search('note', 'two parrots')").fetchall() == []


def test_empty_collection_finds_nothing_until_it_has_rows(db: psycopg.Connection[Any]) -> None:
    db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text)")
    db.execute("CALL auto_embed('note', 'body', collection => 'note')")
    assert db.execute("SELECT * FROM semantic_search('note', 'a')").fetchall() == []
    db.execute("INSERT INTO note VALUES (1, NULL), (2, ''), (3, 'a')")
    assert [key["id"] for (key,) in db.execute("SELECT key FROM semantic_search('note', 'a')").fetchall()] == [3, 2]
