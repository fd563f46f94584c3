-- Keys of rows that the worker has to look at: their text is another, or gone. Rows are added and deleted, never changed, and who
-- writes to a table waits for nobody who reads here.
CREATE TABLE pgml_tune.queue (
    queue_id      bigint GENERATED ALWAYS AS IDENTITY,
    collection_id bigint NOT NULL,
    key           text[] NOT NULL,  -- a value for each column of the key, as PostgreSQL writes it
    tries         integer NOT NULL DEFAULT 0,  -- that have failed
    enqueued_at   timestamptz NOT NULL DEFAULT now(),
    due_at        timestamptz,  -- NULL: at once; else after a failure
    CONSTRAINT queue_pkey PRIMARY KEY (collection_id, queue_id),
    CONSTRAINT queue_key_check CHECK (cardinality(key) > 0 AND array_ndims(key) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
COMMENT ON TABLE pgml_tune.queue IS 'Rows of collections in mode queue that wait for the worker.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue_queue_id_seq', '');

CREATE TABLE pgml_tune.queue_failure (
    collection_id bigint NOT NULL,
    key           text[] NOT NULL,
    tries         integer NOT NULL,
    sqlstate      text NOT NULL,
    message       text NOT NULL,
    enqueued_at   timestamptz NOT NULL,
    failed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX queue_failure_collection_id_idx ON pgml_tune.queue_failure (collection_id);  -- asked with each batch
COMMENT ON TABLE pgml_tune.queue_failure IS 'Rows that the worker has given up after five tries; see pgml_tune.queue_failures.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.queue_failure', '');

CREATE FUNCTION pgml_tune._check_queue_owner()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_stranger bigint;
BEGIN
    SELECT q.collection_id INTO v_stranger
    FROM (SELECT DISTINCT n.collection_id FROM pgml_tune_new AS n) AS q
    LEFT JOIN pgml_tune.collection AS c ON c.collection_id = q.collection_id
    LEFT JOIN pg_class AS s ON s.oid = c.source
    WHERE pg_has_role(s.relowner, 'USAGE') IS NOT TRUE AND NOT EXISTS (
        -- After a change of owner the triggers run as the former one, until maintain().
        SELECT FROM pg_proc AS p
        WHERE p.pronamespace = 'pgml_tune'::regnamespace AND p.proname = '_sync_' || q.collection_id
          AND pg_has_role(p.proowner, 'USAGE')
    )
    LIMIT 1;
    -- A superuser also restores them, in any order.
    IF FOUND AND NOT (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = current_user) THEN
        RAISE EXCEPTION 'must be owner of the table of collection %', v_stranger USING ERRCODE = '42501';
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_queue_owner() IS 'Lets only the owner of a table queue its rows.';
CREATE TRIGGER queue_owner AFTER INSERT ON pgml_tune.queue REFERENCING NEW TABLE AS pgml_tune_new
    FOR EACH STATEMENT EXECUTE FUNCTION pgml_tune._check_queue_owner();
