-- What stands between a model and a version in another space, and prepare_rollout(), which makes it: twins of collections and shadows
-- of recorded columns, only for the owners of their tables.

CREATE OR REPLACE FUNCTION pgml_tune._preparation_facts(version_id bigint)
RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT jsonb_build_object(
        'model_id', m.model_id, 'model', m.name, 'version_id', v.model_version_id, 'version', v.version,
        'dimensions', v.dimensions
    )
    FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
    WHERE v.model_version_id = _preparation_facts.version_id
$$;
COMMENT ON FUNCTION pgml_tune._preparation_facts(bigint) IS 'What a version is, and of which model.';

CREATE OR REPLACE FUNCTION pgml_tune._collections_to_prepare(model_id bigint, version_id bigint)
RETURNS TABLE (
    collection_id bigint, name text, owner text, is_own boolean, twin_id bigint, is_retired boolean, is_done boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.collection_id, c.name, pg_get_userbyid(s.relowner)::text, pg_has_role(s.relowner, 'USAGE'),
           t.collection_id, t.retired_xid IS NOT NULL, coalesce(
               t.is_ready AND t.is_filled AND t.retired_xid IS NULL AND pgml_tune._is_pristine(t.embeddings)
               AND EXISTS (SELECT FROM pgml_tune._collection_parts(t.collection_id))
               AND NOT EXISTS (SELECT FROM pgml_tune.vectors_missed AS m WHERE m.collection_id = t.collection_id) AND (
                   -- What the collection began with, or has answered before, has been good enough.
                   NOT t.is_twin OR t.collection_id = c.collection_id OR t.validation @> '{"passed": true}'
               ), false
           )
    FROM pgml_tune._routes(_collections_to_prepare.model_id) AS r
    JOIN pgml_tune.collection AS c ON c.collection_id = r.collection_id
    JOIN pg_class AS s ON s.oid = c.source
    JOIN pgml_tune.model_version AS v ON v.model_version_id = _collections_to_prepare.version_id
    LEFT JOIN LATERAL (
        SELECT o.*
        FROM pgml_tune.collection AS o
        JOIN pgml_tune.model_version AS w ON w.model_version_id = o.model_version_id AND w.space_id = v.space_id
        -- A row of that name that somebody else has added is none of it.
        WHERE o.name = c.name AND o.source = c.source
        ORDER BY o.collection_id <> c.collection_id, o.retired_xid IS NOT NULL, o.collection_id DESC
        LIMIT 1
    ) AS t ON true
    ORDER BY c.name
$$;
COMMENT ON FUNCTION pgml_tune._collections_to_prepare(bigint, bigint) IS
    'The collections that a model answers, and what each has of vectors that questions under a version can be compared with.';

CREATE OR REPLACE FUNCTION pgml_tune._columns_to_prepare(model_id bigint, version_id bigint)
RETURNS TABLE (
    column_id bigint, relation oid, label text, source_column text, target_column text, version text, owner text, is_own boolean,
    shadow_id bigint, shadow_column text, shadow_version_id bigint, is_done boolean, is_left boolean
)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.tracked_column_id, s.oid, format('%I.%I.%I', n.nspname, s.relname, c.target_column), c.source_column, c.target_column,
           own.version, pg_get_userbyid(s.relowner)::text,
           -- Him and nobody else: triggers of the table run as whoever fills it.
           pg_get_userbyid(s.relowner) = current_user,
           d.tracked_column_id, d.target_column, d.model_version_id, coalesce(d.is_filled, false),
           d.left_at IS NOT NULL
    FROM pgml_tune.tracked_column AS c
    JOIN pgml_tune.model_version AS own ON own.model_version_id = c.model_version_id
    JOIN pgml_tune.model_version AS v
        ON v.model_version_id = _columns_to_prepare.version_id AND v.model_id = own.model_id AND v.space_id <> own.space_id
    JOIN pg_class AS s ON s.oid = c.source
    JOIN pg_namespace AS n ON n.oid = s.relnamespace
    -- One that a table has from another is renamed there.
    JOIN pg_attribute AS a
        ON a.attrelid = s.oid AND a.attname = c.target_column AND NOT a.attisdropped AND a.attinhcount = 0
    LEFT JOIN LATERAL (
        SELECT o.*
        FROM pgml_tune.tracked_column AS o
        JOIN pgml_tune.model_version AS w ON w.model_version_id = o.model_version_id AND w.space_id = v.space_id
        JOIN pg_attribute AS b ON b.attrelid = o.source AND b.attname = o.target_column AND NOT b.attisdropped
        -- One that was kept goes back in any case; one that writers do not feed any more, since the table has another owner, is none.
        LEFT JOIN pg_proc AS f ON f.oid = to_regprocedure(format('pgml_tune._shadow_%s()', o.tracked_column_id))
        WHERE o.source = c.source AND o.shadow_of = c.target_column AND o.filled_by = 'embed_table'
          AND (o.left_at IS NOT NULL OR f.proowner = s.relowner)
        ORDER BY o.is_filled DESC, o.tracked_column_id DESC
        LIMIT 1
    ) AS d ON true
    WHERE v.model_id = _columns_to_prepare.model_id
      AND c.shadow_of IS NULL AND c.filled_by = 'embed_table' AND c.source_column IS NOT NULL
    ORDER BY 3
$$;
COMMENT ON FUNCTION pgml_tune._columns_to_prepare(bigint, bigint) IS
    'The columns that embed_table() has filled with vectors of a model in another space than a version, and their shadows in its space.';

CREATE OR REPLACE FUNCTION pgml_tune._column_users(relation oid, column_name text)
RETURNS TABLE (type text, identity text, statement text, is_blocking boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- All that PostgreSQL binds to the number of a column, and so does not follow its name. An index of its own is made once more.
    SELECT CASE WHEN r.oid IS NULL THEN i.type ELSE 'view' END,
           CASE WHEN r.oid IS NULL THEN i.identity ELSE r.oid::regclass::text END,
           CASE
               WHEN r.relkind = 'm' THEN format('DROP MATERIALIZED VIEW %s', r.oid::regclass)
               WHEN r.relkind = 'v' THEN format('DROP VIEW %s', r.oid::regclass)
               WHEN i.type IN ('function', 'procedure', 'policy', 'trigger', 'rule', 'index') THEN
                   format('DROP %s %s', upper(i.type), i.identity)
               WHEN i.type = 'table constraint' THEN format('ALTER TABLE %s DROP CONSTRAINT %I', relation::regclass, o.conname)
               WHEN i.type = 'statistics object' THEN 'DROP STATISTICS ' || i.identity
               ELSE format('SELECT pg_describe_object(%s, %s, %s)', d.classid, d.objid, d.objsubid)
           END,
           d.classid IN ('pg_constraint'::regclass, 'pg_publication_rel'::regclass)
    FROM pg_attribute AS a
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
    LEFT JOIN pg_rewrite AS u ON d.classid = 'pg_rewrite'::regclass AND u.oid = d.objid
    LEFT JOIN pg_class AS r ON r.oid = u.ev_class AND r.relkind IN ('v', 'm')
    LEFT JOIN pg_constraint AS o ON d.classid = 'pg_constraint'::regclass AND o.oid = d.objid
    LEFT JOIN pg_trigger AS g ON d.classid = 'pg_trigger'::regclass AND g.oid = d.objid
    LEFT JOIN pg_index AS x ON d.classid = 'pg_class'::regclass AND x.indexrelid = d.objid
    WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped
      AND (x.indexrelid IS NULL OR x.indexprs IS NOT NULL OR x.indpred IS NOT NULL AND x.indkey[0] <> a.attnum)
      AND (g.oid IS NULL OR g.tgname !~ '^~pgml_tune_shadow_')
    UNION ALL
    SELECT 'constraint', 'NOT NULL', format('ALTER TABLE %s ALTER %I DROP NOT NULL', relation::regclass, column_name), true
    FROM pg_attribute AS a WHERE a.attrelid = relation AND a.attname = column_name AND a.attnotnull
$$;
COMMENT ON FUNCTION pgml_tune._column_users(oid, text) IS
    'What stays with the vectors of a column when another takes its name, and the statement that drops it; is_blocking: writers would fail.';

CREATE OR REPLACE FUNCTION pgml_tune._untracked_uses(model_id bigint, version_id bigint)
RETURNS TABLE (object text, statement text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH version AS (
        SELECT m.name AS model, s.dimensions, s.version AS serving_version, v.version, v.space_id
        FROM pgml_tune.model_version AS v
        JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        JOIN pgml_tune.serving AS s ON s.model_id = v.model_id
        JOIN pgml_tune.model_version AS o ON o.model_version_id = s.model_version_id AND o.space_id <> v.space_id
        WHERE v.model_version_id = _untracked_uses.version_id AND v.model_id = _untracked_uses.model_id
    ), prepared AS (
        SELECT * FROM pgml_tune._columns_to_prepare(_untracked_uses.model_id, _untracked_uses.version_id)
    )
    SELECT format('column %I.%I.%I', n.nspname, c.relname, a.attname),
           CASE c.relkind WHEN 'm' THEN format('DROP MATERIALIZED VIEW %s', c.oid::regclass)
               WHEN 'f' THEN format('DROP FOREIGN TABLE %s', c.oid::regclass)
               ELSE CASE WHEN k.source IS NULL THEN
                   format('SELECT track_column(%L, %L, %L)', format('%I.%I', n.nspname, c.relname), a.attname,
                       w.model || '@' || w.serving_version)
               -- It needs new vectors first, which only its user can make; to record it as of them now would be untrue.
               ELSE format('SELECT * FROM pgml_tune.tracked_columns WHERE source = %L::regclass',
                   format('%I.%I', n.nspname, c.relname))
               END END
    FROM version AS w
    CROSS JOIN pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attinhcount = 0
    CROSS JOIN LATERAL pgml_tune._base_type(a.atttypid, a.atttypmod) AS b
    JOIN pg_type AS y ON y.oid = b.base
    JOIN pg_type AS t
        ON t.oid = CASE y.typcategory WHEN 'A' THEN y.typelem ELSE y.oid END AND t.typname IN ('vector', 'halfvec')
    JOIN pg_extension AS e ON e.extname = 'vector' AND e.extnamespace = t.typnamespace
    LEFT JOIN pgml_tune.tracked_column AS k ON k.source = c.oid AND k.target_column = a.attname
    LEFT JOIN pgml_tune.model_version AS o ON o.model_version_id = k.model_version_id
    WHERE c.relkind IN ('r', 'p', 'm', 'f') AND c.relpersistence <> 't'
      AND n.nspname NOT IN ('pgml_tune', 'pg_catalog', 'information_schema', 'pg_toast')
      AND CASE
          WHEN k.source IS NULL THEN b.base_modifier IN (w.dimensions, -1)
          ELSE o.model_id = _untracked_uses.model_id AND o.space_id <> w.space_id AND k.shadow_of IS NULL
              AND k.tracked_column_id NOT IN (SELECT p.column_id FROM prepared AS p)
      END
    UNION ALL
    -- They would go on with the vectors of before, under a name that promises others.
    SELECT DISTINCT format('%s %s', u.type, u.identity), u.statement
    FROM prepared AS p
    CROSS JOIN LATERAL pgml_tune._column_users(p.relation, p.target_column) AS u
    WHERE NOT u.is_blocking
    UNION ALL
    -- What is stored of a query function stays that of the version before.
    SELECT DISTINCT format('%s %s', i.type, i.identity),
           CASE i.type WHEN 'index' THEN 'DROP INDEX ' || i.identity
               ELSE format('SELECT pg_describe_object(%s, %s, %s)', d.classid, d.objid, d.objsubid) END
    FROM version AS w
    CROSS JOIN pgml_tune._collections_to_prepare(_untracked_uses.model_id, _untracked_uses.version_id) AS c
    JOIN pg_depend AS d
        ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = pgml_tune._query_function(c.collection_id)
        AND d.classid IN ('pg_class'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass)
    CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS i
    ORDER BY 1
$$;
COMMENT ON FUNCTION pgml_tune._untracked_uses(bigint, bigint) IS
    'Columns and views of users that may hold vectors of what a model serves and would not follow it into the space of a version.';

CREATE OR REPLACE FUNCTION pgml_tune._missing_steps(model_id bigint, version_id bigint)
RETURNS TABLE (what text, statement text, object text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_call text := (
        SELECT format('CALL prepare_rollout(%L, %L)', m.name, v.version)
        FROM pgml_tune.model_version AS v JOIN pgml_tune.model AS m ON m.model_id = v.model_id
        WHERE v.model_version_id = _missing_steps.version_id
    );
BEGIN
    RETURN QUERY
    SELECT 'collection', v_call, c.name
    FROM pgml_tune._collections_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c WHERE NOT c.is_done;
    RETURN QUERY
    SELECT 'column', v_call, c.label
    FROM pgml_tune._columns_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c WHERE NOT c.is_done;
    RETURN QUERY
    SELECT DISTINCT 'column', u.statement, format('%s (%s %s)', c.label, u.type, u.identity)
    FROM pgml_tune._columns_to_prepare(_missing_steps.model_id, _missing_steps.version_id) AS c
    CROSS JOIN LATERAL pgml_tune._column_users(c.relation, c.target_column) AS u
    WHERE u.is_blocking;
    RETURN QUERY
    SELECT 'untracked', u.statement, u.object
    FROM pgml_tune._untracked_uses(_missing_steps.model_id, _missing_steps.version_id) AS u;
END
$$;
COMMENT ON FUNCTION pgml_tune._missing_steps(bigint, bigint) IS
    'What stands between a model and a version in another space: collections and columns without vectors of it, and uses that nobody has recorded (untracked); none for a version in the same space.';

-- Progress.

CREATE OR REPLACE FUNCTION pgml_tune._write_preparation(
    role_id bigint, model text, version text, object text, phase text, steps bigint, step bigint
)
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pgml_tune.preparation AS p (pid, role_id, model, version, object, phase, steps, step, began_at, phase_began_at)
    VALUES (
        pg_backend_pid(), _write_preparation.role_id::oid, _write_preparation.model, _write_preparation.version,
        _write_preparation.object, _write_preparation.phase, _write_preparation.steps, _write_preparation.step,
        statement_timestamp(), clock_timestamp()
    )
    ON CONFLICT ON CONSTRAINT preparation_pkey DO UPDATE SET
        role_id = excluded.role_id, model = excluded.model, version = excluded.version, object = excluded.object,
        phase = excluded.phase, steps = excluded.steps, step = excluded.step, began_at = excluded.began_at,
        updated_at = clock_timestamp(), phase_began_at = CASE
            WHEN (p.began_at, p.object, p.phase) = (excluded.began_at, excluded.object, excluded.phase) THEN p.phase_began_at
            ELSE excluded.phase_began_at
        END
$$;
COMMENT ON FUNCTION pgml_tune._write_preparation(bigint, text, text, text, text, bigint, bigint) IS
    'Shows in pgml_tune.stat_progress how far the prepare_rollout() of this session has come.';

CREATE OR REPLACE FUNCTION pgml_tune._end_preparation()
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- Those of sessions that are gone go, too.
    DELETE FROM pgml_tune.preparation AS p
    WHERE p.pid = pg_backend_pid() OR NOT EXISTS (SELECT FROM pg_stat_activity AS a WHERE a.pid = p.pid)
$$;
COMMENT ON FUNCTION pgml_tune._end_preparation() IS 'Takes this session, and those that are gone, out of pgml_tune.stat_progress.';

CREATE OR REPLACE FUNCTION pgml_tune._preparations()
RETURNS SETOF pgml_tune.preparation
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- A session that was ended, or has gone on to another statement, leaves its row behind.
    SELECT p.*
    FROM pgml_tune.preparation AS p
    JOIN pg_stat_activity AS a ON a.pid = p.pid AND a.state = 'active' AND a.query_start <= p.began_at
    WHERE a.datname = current_database()
$$;
COMMENT ON FUNCTION pgml_tune._preparations() IS 'The prepare_rollout() calls that run now.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.prepare_rollout(name text, version text, options jsonb DEFAULT '{}')
LANGUAGE plpython3u
AS $python$
from pgml_tune.backend import preparation
preparation.prepare_rollout(name, version, options)
$python$;
COMMENT ON PROCEDURE @extschema@.prepare_rollout(text, text, jsonb) IS
    'Makes the vectors of a version in another space beside those that answer, for each collection and recorded column of the model that is yours, in committed batches, and measures them; called again it resumes. Options: batch_size, rows_per_second, sample, min_recall, golden_query, drop (gives up what was prepared).';
