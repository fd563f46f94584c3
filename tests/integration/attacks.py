"""What alice tries on a collection of hers and bob's rows; @names stand for its parts."""

from dataclasses import dataclass

QUERY = "a red bicycle"

# Operators and functions of alice that tell what they are given.
LEAK = """
CREATE FUNCTION @own.leak(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
    AS $$ BEGIN RAISE NOTICE 'leaked %', left($1, 80); RETURN true; END $$;
CREATE FUNCTION @own.spy(vector, vector) RETURNS double precision LANGUAGE plpgsql COST 0.0000001
    AS $$ BEGIN RAISE NOTICE 'leaked % %', left($1::text, 80), left($2::text, 80); RETURN 0; END $$;
CREATE OPERATOR @own.<=> (LEFTARG = vector, RIGHTARG = vector, FUNCTION = @own.spy);
CREATE FUNCTION @own.equals(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001
    AS $$ BEGIN RAISE NOTICE 'leaked % %', left($1, 80), left($2, 80); RETURN true; END $$;
CREATE OPERATOR @own.= (LEFTARG = text, RIGHTARG = text, FUNCTION = @own.equals);
CREATE FUNCTION @own.to_jsonb(anyelement) RETURNS jsonb LANGUAGE plpgsql
    AS $$ BEGIN RAISE NOTICE 'leaked %', $1::text; RETURN '{}'; END $$;
CREATE FUNCTION @own.embed_pinned(text, text, text, text) RETURNS vector LANGUAGE plpgsql
    AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN NULL; END $$;
"""


@dataclass(frozen=True)
class Attack:
    """Statements of alice. They work on her own rows, or all of them are refused with one of these states."""

    statements: list[str]
    refused: str = ""


SEARCH = "public.semantic_search('@collection', 'a red bicycle', 200)"
HYBRID = "public.hybrid_search('@collection', 'password w-bob-password', 200"
ATTACKS = {
    "side_table": Attack(
        [
            "SELECT left(s::text, 200) FROM @side AS s",
            "SELECT key_1, encode(text_sha256, 'hex'), left(embedding::text, 60), lexemes FROM ONLY @side",
            "SELECT count(*), min(key_1), max(key_1), left(avg(embedding)::text, 60) FROM @side",
            "SELECT key_1, embedding <=> @query('a red bicycle') FROM @side ORDER BY 2 LIMIT 3000",
            "SELECT * FROM ts_stat('SELECT lexemes FROM @side')",
        ]
    ),
    "view": Attack(
        [
            "SELECT left(v::text, 200) FROM @view AS v",
            "SELECT id, body FROM @view WHERE id LIKE 'k-bob-%' OR body LIKE '%bob%' OR true",
            "SELECT DISTINCT left(sum(embedding)::text, 60) FROM @view",
        ]
    ),
    "query_function": Attack(
        [
            "SET enable_seqscan = off; SET hnsw.ef_search = 1000",
            "SELECT id, embedding <=> @query('a red bicycle') FROM @view"
            " ORDER BY embedding <=> @query('a red bicycle') LIMIT 1000",
            "SELECT id, body FROM @view ORDER BY embedding <=> @query('the red password w-bob-password') LIMIT 50",
        ]
    ),
    "semantic_search": Attack(
        [f"SELECT * FROM {SEARCH}", "SELECT * FROM public.semantic_search('@collection', 'w-bob-password', 50)"]
    ),
    "filters": Attack(
        [
            f"SELECT * FROM public.semantic_search('@collection', 'a red bicycle', 200, '{filter_}')"
            for filter_ in (
                '{"tenant": "bob"}', '{"id": "k-bob-7"}', '{"amount": 7}', '{"tenant": ["alice", "bob"]}',
                '{"body": "the red password w-bob-password"}', '{"tenant": "bob", "amount": 1}', '{}',
            )
        ]
    ),
    "hybrid_search": Attack(
        [f"SELECT * FROM {HYBRID})", *(f"SELECT * FROM {HYBRID}, weight => {weight})" for weight in ("0", "1"))]
    ),
    "leaky_function_over_the_view": Attack(
        [
            "SELECT count(*) FROM @view WHERE @own.leak(body)",
            "SELECT count(*) FROM @view WHERE @own.leak(embedding::text) AND @own.leak(id)",
            "SELECT id FROM @view WHERE @own.leak(body) ORDER BY embedding <=> @query('a red bicycle') LIMIT 5",
        ]
    ),
    "leaky_function_over_the_side_table": Attack(
        [
            "SELECT count(*) FROM @side WHERE @own.leak(key_1)",
            "SELECT count(*) FROM @side WHERE @own.leak(encode(text_sha256, 'hex')) OR @own.leak(embedding::text)",
            "SELECT count(*) FROM @side AS s JOIN @source AS d ON d.id = s.key_1 AND @own.leak(d.body || s.key_1)",
        ]
    ),
    "leaky_function_over_the_search": Attack(
        [
            f"SELECT count(*) FROM {SEARCH} WHERE @own.leak(document::text) AND @own.leak(distance::text)",
            f"SELECT count(*) FROM {HYBRID}) WHERE @own.leak(key::text) AND @own.leak(score::text)",
        ]
    ),
    "own_operators_and_functions": Attack(
        [
            "SET search_path = @own, public, pg_catalog",
            f"SELECT * FROM {SEARCH}",
            f"SELECT * FROM {HYBRID})",
            """SELECT * FROM public.semantic_search('@collection', 'x', 9, '{"tenant": "bob"}')""",
            "SELECT id FROM @view WHERE body = 'x' ORDER BY embedding <=> @query('a red bicycle') LIMIT 1000",
            "SELECT count(*) FROM @side WHERE key_1 = 'x'",
            "SELECT * FROM pgml_tune.embedding_collections WHERE collection = 'x' OR true",
        ]
    ),
    "temporary_objects": Attack(
        [
            "CREATE TEMP TABLE doc AS SELECT * FROM @source",
            "CREATE TEMP VIEW shown AS SELECT * FROM @side",
            "CREATE TEMP TABLE copied AS SELECT * FROM @view",
            "SELECT left(s::text, 100) FROM shown AS s UNION ALL SELECT left(c::text, 100) FROM copied AS c",
            "CREATE TEMP TABLE collection (name text, embeddings regclass)",
            f"SELECT * FROM {SEARCH}",
            "CREATE MATERIALIZED VIEW @own.kept AS SELECT key_1 FROM @side",
            "SELECT * FROM @own.kept",
        ]
    ),
    "explain_analyze": Attack(
        [
            "SELECT id FROM @view LIMIT 1",
            "EXPLAIN (ANALYZE, VERBOSE, BUFFERS) SELECT * FROM @view WHERE @own.leak(body)",
            "EXPLAIN (ANALYZE, VERBOSE, FORMAT JSON) SELECT * FROM @side ORDER BY embedding <=> @query('a') LIMIT 9",
            f"EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM {SEARCH}",
        ]
    ),
    "cursors": Attack(
        [
            "BEGIN",
            "DECLARE a SCROLL CURSOR WITH HOLD FOR SELECT id, body FROM @view",
            "DECLARE b SCROLL CURSOR WITH HOLD FOR SELECT key_1 FROM @side",
            f"DECLARE c CURSOR WITH HOLD FOR SELECT * FROM {SEARCH}",
            "COMMIT",
            "FETCH ALL FROM a; FETCH BACKWARD ALL FROM a; FETCH ALL FROM b; FETCH ALL FROM c",
        ]
    ),
    "copy": Attack(
        [
            "COPY @side (key_1, text_sha256) TO STDOUT",
            "COPY (SELECT id, body FROM @view) TO STDOUT",
            f"COPY (SELECT * FROM {SEARCH}) TO STDOUT",
        ]
    ),
    "errors_over_hidden_rows": Attack(
        [
            "SELECT id FROM @view LIMIT 1",
            "SELECT 1 / (CASE WHEN id LIKE 'k-bob-%' THEN 0 ELSE 1 END) FROM @view",
            "SELECT 1 / (CASE WHEN key_1 LIKE 'k-bob-%' THEN 0 ELSE 1 END) FROM @side",
            "SELECT count(*) FROM @view WHERE id NOT LIKE 'k-alice-%' AND body::integer > 0",
            "SELECT count(*) FROM @side WHERE key_1 NOT LIKE 'k-alice-%' AND key_1::integer > 0",
            "SELECT count(*) FROM @side WHERE key_1 NOT LIKE 'k-alice-%' AND (embedding <=> '[1]') > 0",
            f"SELECT (document ->> 'body')::integer FROM {SEARCH} WHERE document ->> 'tenant' <> 'alice'",
            f"SELECT 1 / (distance - distance) FROM {SEARCH} WHERE document ->> 'tenant' <> 'alice'",
        ]
    ),
    "statistics": Attack(
        [
            "SELECT id FROM @view LIMIT 1",
            "SELECT left(s::text, 2000) FROM pg_stats AS s WHERE schemaname IN ('pgml_tune', '@schema')",
            "SELECT * FROM pg_stats_ext; SELECT * FROM pg_stats_ext_exprs",
            "SELECT * FROM pg_statistic LIMIT 100",
            "ANALYZE VERBOSE @side",
        ]
    ),
    "writes_to_the_side_table": Attack(
        [
            "INSERT INTO @side (key_1, chunk_no) VALUES ('k-bob-1', 1)",
            "INSERT INTO @side (key_1, chunk_no) VALUES ('k-bob-1', 1) ON CONFLICT DO NOTHING RETURNING *",
            "UPDATE @side SET chunk_no = chunk_no RETURNING key_1",
            "DELETE FROM @side WHERE key_1 LIKE 'k-bob%' RETURNING key_1",
            "TRUNCATE @side",
            "CREATE TABLE @own.probe (k text, n integer, FOREIGN KEY (k, n) REFERENCES @side)",
            "CREATE TRIGGER spy AFTER INSERT ON @side EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "CREATE POLICY mine ON @side USING (true)",
            "CREATE INDEX ON @side (key_1)",
            "CREATE RULE mine AS ON INSERT TO @side DO ALSO NOTHING",
            "MERGE INTO @side AS t USING @source AS s ON s.id = t.key_1 WHEN MATCHED THEN DELETE",
            "UPDATE @view SET chunk = chunk",
            "SELECT key_1 FROM @side FOR UPDATE",
        ],
        refused="42501 55000",
    ),
    "tablesample": Attack(
        [
            "SELECT key_1, left(embedding::text, 60) FROM @side TABLESAMPLE SYSTEM (100)",
            "SELECT key_1 FROM @side TABLESAMPLE BERNOULLI (100) REPEATABLE (1) WHERE @own.leak(key_1)",
        ]
    ),
    "row_security_off": Attack(
        [
            "SET row_security = off; SELECT key_1 FROM @side",
            "SET row_security = off; SELECT id FROM @view",
            f"SET row_security = off; SELECT * FROM {SEARCH}",
            f"SET row_security = off; SELECT * FROM {HYBRID})",
            "SET row_security = off; COPY @side TO STDOUT",
        ],
        refused="42501",
    ),
    "security_definer": Attack(
        [
            "CREATE FUNCTION @own.peek() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER"
            " AS $$ SELECT key_1 FROM @side UNION ALL SELECT body FROM @view $$",
            "SELECT * FROM @own.peek()",
            "CREATE VIEW @own.shown AS SELECT key_1, left(embedding::text, 60) FROM @side WHERE @own.leak(key_1)",
            "SELECT * FROM @own.shown",
            f"CREATE VIEW @own.searched AS SELECT * FROM {SEARCH}",
            "SELECT * FROM @own.searched",
        ]
    ),
    "impersonation_of_the_owner": Attack(
        [
            "SET ROLE olga",
            "SET SESSION AUTHORIZATION olga",
            "GRANT olga TO alice",
            "ALTER TABLE @side OWNER TO alice",
            "ALTER TABLE @side DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE @source DISABLE ROW LEVEL SECURITY",
            "GRANT SELECT ON @side TO alice",
            "ALTER VIEW @view SET (security_invoker = off)",
            "CREATE OR REPLACE VIEW @view AS SELECT 1",
            "ALTER FUNCTION @query(text) OWNER TO alice",
            "DROP TABLE @side",
            "SELECT public.drop_auto_embed('@collection')",
            "CALL public.auto_embed('@source', 'body', collection => 'mine')",
            "CALL public.embed_table('@source', 'body', 'embedding')",
            "SELECT public.track_column('@source', 'body', 'minilm')",
            "SELECT * FROM pgml_tune.collection; INSERT INTO pgml_tune.collection DEFAULT VALUES",
        ],
        refused="42501",
    ),
    "joins_with_the_search": Attack(
        [
            "SELECT s.* FROM @source AS d, LATERAL public.semantic_search('@collection', d.body, 3) AS s"
            " WHERE d.amount < 5",
            f"SELECT d.id, s.distance FROM @source AS d FULL JOIN {SEARCH} AS s ON s.key ->> 'id' = d.id",
            f"SELECT count(*) FROM {SEARCH} AS s JOIN @side AS e ON e.key_1 = s.key ->> 'id' AND @own.leak(e.key_1)",
        ]
    ),
    "writes_to_the_source": Attack(
        [
            "SELECT id FROM @view LIMIT 1",
            "UPDATE @source SET body = body WHERE @own.leak(body) RETURNING id",
            "UPDATE @source SET body = body || ' w-alice-more' WHERE id = 'k-alice-1' RETURNING *",
            "DELETE FROM @source WHERE tenant = 'bob' RETURNING *",
            "UPDATE @source SET tenant = 'alice' WHERE tenant <> 'alice' RETURNING *",
            "INSERT INTO @source VALUES ('k-alice-0', 'bob', 'w-alice-smuggled')",
            "INSERT INTO @source VALUES ('k-alice-1', 'alice', 'twice') ON CONFLICT (id) DO UPDATE SET amount = 1"
            " RETURNING *",
            "UPDATE @source SET body = repeat('x', 2000000) WHERE id = 'k-alice-2'",
        ]
    ),
    "collections": Attack(
        [
            "SELECT * FROM @view LIMIT 1",
            "SELECT * FROM pgml_tune.embedding_collections",
            "SELECT * FROM pgml_tune.tracked_columns",
            "SELECT * FROM pgml_tune.embedding_collections WHERE @own.leak(collection || rows || embedded)",
        ]
    ),
}  # fmt: skip
