"""Code that the owner of a table plants wherever PostgreSQL lets him, and what others then do with his table."""

# Every trap says who it runs as in the server's log, which no rollback undoes and no role can switch off.
SPRING = """
CREATE FUNCTION trap.spring(what text, value text DEFAULT '') RETURNS boolean LANGUAGE plpgsql IMMUTABLE COST 0.0000001
    AS $$ BEGIN RAISE LOG 'trap % as %', what, current_user; RETURN true; END $$;
CREATE FUNCTION trap.fire() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring(TG_ARGV[0]); RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
CREATE FUNCTION trap.lowered(text) RETURNS text LANGUAGE plpgsql IMMUTABLE
    AS $$ BEGIN PERFORM trap.spring('expression'); RETURN lower($1); END $$;
CREATE FUNCTION trap.chosen() RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('default'); RETURN 'chosen'; END $$;
CREATE DOMAIN trap.label AS text CHECK (trap.spring('domain label', VALUE));
CREATE DOMAIN trap.number AS bigint CHECK (trap.spring('domain number', VALUE::text));
CREATE TYPE trap.mood AS ENUM ('good', 'bad');
CREATE TYPE trap.pair AS (a trap.label, b trap.mood);
CREATE FUNCTION trap.mood_json(trap.mood) RETURNS json LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast to json'); RETURN '1'; END $$;
CREATE CAST (trap.mood AS json) WITH FUNCTION trap.mood_json(trap.mood);
CREATE FUNCTION trap.mood_text(trap.mood) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast to text'); RETURN 'good'; END $$;
CREATE CAST (trap.mood AS text) WITH FUNCTION trap.mood_text(trap.mood) AS IMPLICIT;
CREATE FUNCTION trap.pair_json(trap.pair) RETURNS json LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('cast of a row to json'); RETURN '1'; END $$;
CREATE CAST (trap.pair AS json) WITH FUNCTION trap.pair_json(trap.pair);
CREATE FUNCTION trap.same(trap.mood, trap.mood) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('operator'); RETURN true; END $$;
CREATE OPERATOR trap.= (LEFTARG = trap.mood, RIGHTARG = trap.mood, FUNCTION = trap.same);
"""
TABLE = """
CREATE TABLE trap.{name} (
    id trap.number PRIMARY KEY, body text NOT NULL, mood trap.mood DEFAULT 'good', moods trap.mood[] DEFAULT '{{good}}',
    pair trap.pair DEFAULT ROW('a', 'bad'), label trap.label DEFAULT 'label', chosen text DEFAULT trap.chosen(),
    note text, lowered text GENERATED ALWAYS AS (trap.lowered(body)) STORED,
    CHECK (trap.spring('check of the source', body))
);
CREATE INDEX ON trap.{name} (trap.lowered(body)) WHERE trap.spring('index predicate', body);
CREATE INDEX ON trap.{name} (trap.spring('index of nothing but a constant'));
CREATE TRIGGER evil_row BEFORE INSERT OR UPDATE OR DELETE ON trap.{name} FOR EACH ROW
    EXECUTE FUNCTION trap.fire('row trigger of the source');
CREATE TRIGGER evil_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON trap.{name}
    EXECUTE FUNCTION trap.fire('statement trigger of the source');
ALTER TABLE trap.{name} ENABLE ROW LEVEL SECURITY;
CREATE POLICY evil ON trap.{name} USING (trap.spring('policy of the source', body));
GRANT ALL ON trap.{name} TO olga, alice;
INSERT INTO trap.{name} (id, body, note) SELECT g, 'planted text ' || g, 'note ' || g FROM generate_series(1, 5) AS g;
"""
SIDE = """
CREATE TRIGGER evil_row BEFORE INSERT OR UPDATE OR DELETE ON @side FOR EACH ROW
    EXECUTE FUNCTION trap.fire('row trigger of the side table');
CREATE TRIGGER evil_statement AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @side
    EXECUTE FUNCTION trap.fire('statement trigger of the side table');
ALTER TABLE @side ADD CHECK (trap.spring('check of the side table', key_1::text));
CREATE POLICY evil ON @side USING (trap.spring('policy of the side table', key_1::text));
ALTER TABLE @side ADD COLUMN extra text DEFAULT trap.chosen();
CREATE OR REPLACE FUNCTION @query(input text) RETURNS vector LANGUAGE plpgsql STABLE
    AS $$ BEGIN PERFORM trap.spring('query function'); RETURN NULL; END $$;
CREATE RULE evil AS ON UPDATE TO @view DO INSTEAD SELECT trap.spring('rule of the view');
"""

WRITES = [
    "INSERT INTO trap.{name} (id, body) VALUES (1, 'one'), (2, 'two'), (101, 'first') ON CONFLICT DO NOTHING",
    "UPDATE trap.{name} SET body = body || ' changed' WHERE id <= 3",
    "UPDATE trap.{name} SET note = 'another'",
    "UPDATE trap.{name} SET id = 500 WHERE id = 1",
    "DELETE FROM trap.{name} WHERE id = 2",
    "INSERT INTO trap.{name} (id, body) VALUES (4, 'conflict') ON CONFLICT (id) DO UPDATE SET body = excluded.body",
    "TRUNCATE trap.{name}",
]

MAINTENANCE = [
    "CALL maintain()",
    "SELECT * FROM doctor()",
    "CALL auto_embed('trap.doc', 'body', collection => 'trap')",
    "CALL auto_embed('trap.doc', 'note', collection => 'second')",
    "CALL auto_embed('trap.twin', 'body', options => '{\"chunk_tokens\": 8, \"index\": \"hnsw\"}')",
    "BEGIN",
    "CALL auto_embed('trap.twin', 'note')",
    "COMMIT",
    "CALL embed_table('trap.doc', 'body', 'vector')",
    "SELECT drop_auto_embed('trap')",
    "DROP TABLE trap.doc CASCADE",
    "CALL maintain()",
]

SEARCHES = [
    "SELECT * FROM semantic_search('trap', 'planted text')",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"mood": "good"}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"label": "label"}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"pair": {"a": "a", "b": "bad"}}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"moods": ["good"]}')""",
    """SELECT * FROM semantic_search('trap', 'planted text', 5, '{"id": 3, "note": null}')""",
    "SELECT * FROM hybrid_search('trap', 'planted text')",
    """SELECT * FROM hybrid_search('trap', 'planted text', 5, '{"mood": "good", "lowered": "planted text 1"}')""",
    "SELECT * FROM pgml_tune.embedding_collections",
]

ACTS = [
    "SELECT * FROM semantic_search('{name}', 'planted text')",
    """SELECT * FROM semantic_search('{name}', 'planted text', 5, '{{"id": 3}}')""",
    """SELECT * FROM semantic_search('{name}', 'planted text', 5, '{{"body": "planted text 3"}}')""",
    "SELECT * FROM hybrid_search('{name}', 'planted text')",
    "SELECT * FROM pgml_tune.embedding_collections WHERE collection = '{name}'",
    "CALL auto_embed('{name}.doc', 'body', collection => '{name}')",
]
FAKE = """
CREATE TYPE trap.fake AS (v text);
CREATE FUNCTION trap.fake_{target}(trap.fake) RETURNS {target} LANGUAGE plpgsql STABLE
    AS $$ BEGIN PERFORM trap.spring('cast to {target}'); RETURN NULL; END $$;
CREATE CAST (trap.fake AS {target}) WITH FUNCTION trap.fake_{target}(trap.fake) AS IMPLICIT;
"""
SWAP = "ALTER TABLE @side DROP {column} CASCADE; ALTER TABLE @side ADD {column} trap.fake DEFAULT ROW('x')"
SHADOWS = """
CREATE FUNCTION trap.sha256(bytea) RETURNS bytea LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of sha256'); RETURN pg_catalog.sha256($1); END $$;
CREATE FUNCTION trap.convert_to(text, name) RETURNS bytea LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of convert_to'); RETURN pg_catalog.convert_to($1, $2); END $$;
CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of format'); RETURN pg_catalog.format($1, VARIADIC $2); END $$;
CREATE FUNCTION trap.array_agg_text(text) RETURNS text LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow'); RETURN $1; END $$;
CREATE FUNCTION trap.bytes_equal(bytea, bytea) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of ='); RETURN false; END $$;
CREATE OPERATOR trap.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = trap.bytes_equal);
CREATE FUNCTION trap.bigint_equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql
    AS $$ BEGIN PERFORM trap.spring('shadow of ='); RETURN $1 OPERATOR(pg_catalog.=) $2; END $$;
CREATE OPERATOR trap.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = trap.bigint_equal);
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proowner = 'mallory'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s SECURITY INVOKER SET search_path = trap, public, pg_catalog', v_function);
    END LOOP;
END $$
"""
TAMPERINGS = {
    "embedding_of_another_type": FAKE.format(target="vector") + SWAP.format(column="embedding"),
    "hash_of_another_type": FAKE.format(target="bytea") + SWAP.format(column="text_sha256"),
    "lexemes_of_another_type": FAKE.format(target="tsvector") + SWAP.format(column="lexemes"),
    "side_key_of_another_type": FAKE.format(target="bigint") + SWAP.format(column="key_1"),
    "chunk_number_of_another_type": FAKE.format(target="integer") + SWAP.format(column="chunk_no"),
    "text_of_another_type": FAKE.format(target="text")
    + "DROP TRIGGER pgml_tune_@id_columns ON trap.doc;"
    " ALTER TABLE trap.doc DROP body CASCADE; ALTER TABLE trap.doc ADD body trap.fake DEFAULT ROW('x')",
    "key_of_another_type": FAKE.format(target="bigint")
    + "DROP TRIGGER pgml_tune_@id_columns ON trap.doc;"
    " ALTER TABLE trap.doc DROP id CASCADE; ALTER TABLE trap.doc ADD id trap.fake DEFAULT ROW('x')",
    "functions_as_their_caller": SHADOWS,
    "side_table_in_another_schema": "ALTER TABLE @side SET SCHEMA trap;"
    " CREATE INDEX ON trap.@name (trap.lowered(chunk_no::text)) WHERE trap.spring('index', key_1::text);"
    " CREATE INDEX ON trap.@name (trap.spring('index of nothing but a constant'))",
    "side_table_gone": "DROP TABLE @side CASCADE",
    "view_of_the_same_name": "DROP VIEW @view; CREATE VIEW @view AS SELECT trap.spring('view'), trap.chosen() AS id",
    "view_in_place_of_the_side_table": "DROP TABLE @side CASCADE;"
    " CREATE VIEW trap.embedding AS SELECT trap.spring('view'), trap.chosen() AS key_1",
    "child_of_the_side_table": "CREATE TABLE trap.child () INHERITS (@side);"
    " ALTER TABLE trap.child ADD CHECK (trap.spring('check of a child', key_1::text))",
    "deferred_trigger": "CREATE CONSTRAINT TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON @side"
    " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger')",
    "trigger_that_writes_where_another_is_deferred": """
        CREATE TABLE trap.other (x integer);
        CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON trap.other DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger of another table');
        CREATE FUNCTION trap.pass_on() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN INSERT INTO trap.other VALUES (1); RETURN NULL; END $$;
        CREATE TRIGGER evil AFTER INSERT OR UPDATE OR DELETE ON @side EXECUTE FUNCTION trap.pass_on()
    """,
    "deferred_trigger_on_a_child": "CREATE TABLE trap.child () INHERITS (@side);"
    " INSERT INTO trap.child SELECT * FROM @side; UPDATE trap.child SET key_1 = key_1 + 1000;"
    " CREATE CONSTRAINT TRIGGER evil AFTER DELETE ON trap.child DEFERRABLE INITIALLY DEFERRED"
    " FOR EACH ROW EXECUTE FUNCTION trap.fire('deferred trigger of a child')",
    "trigger_on_the_source_replaced": "DROP TRIGGER pgml_tune_@id_insert ON trap.doc;"
    " CREATE TRIGGER pgml_tune_@id_insert AFTER INSERT ON trap.doc EXECUTE FUNCTION trap.fire('trigger of our name')",
}

OBSTACLES = {
    "view_on_the_query_function": "CREATE VIEW {name}.mine AS SELECT {query}('a'); DROP TABLE {name}.doc CASCADE",
    "key_into_the_side_table": "CREATE TABLE {name}.mine (k bigint, n integer, FOREIGN KEY (k, n) REFERENCES {side});"
    " DROP TABLE {name}.doc CASCADE",
    "table_that_cannot_change": "CREATE TABLE {name}.mine (k bigint, n integer, FOREIGN KEY (k, n) REFERENCES {side});"
    " ALTER TABLE {name}.doc SET UNLOGGED",
    "column_gone": "ALTER TABLE {name}.doc DROP COLUMN body CASCADE",
    "policy_in_the_way": "CREATE POLICY source_row ON {side} USING (true);"
    " ALTER TABLE {name}.doc ENABLE ROW LEVEL SECURITY",
    "leaf_of_another_owner": "CREATE TABLE {name}.part (id bigint PRIMARY KEY, body text) PARTITION BY RANGE (id);"
    " CALL auto_embed('{name}.part', 'body'); CREATE TABLE {name}.leaf (id bigint NOT NULL, body text);"
    " INSERT INTO {name}.leaf VALUES (1, 'a'); ALTER TABLE {name}.leaf OWNER TO adam;"
    " ALTER TABLE {name}.part ATTACH PARTITION {name}.leaf FOR VALUES FROM (0) TO (9)",
    "own_view": "DROP VIEW {view}; CREATE VIEW {view} AS SELECT 1 AS x; GRANT SELECT ON {name}.doc TO alice",
    "own_function": "DROP FUNCTION {query}(text); CREATE FUNCTION {query}(text) RETURNS integer LANGUAGE sql"
    " AS 'SELECT 1'; ALTER TABLE {name}.doc OWNER TO adam",
}
