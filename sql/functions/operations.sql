CREATE OR REPLACE FUNCTION @extschema@.configure(name text, value text)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.configure(name, value)
$python$;
COMMENT ON FUNCTION @extschema@.configure(text, text) IS
    'Sets a setting for the whole database from the next statement on, NULL taking it back to its default, and returns the value in force; see pgml_tune.settings.';

CREATE OR REPLACE FUNCTION pgml_tune._settings()
RETURNS TABLE (name text, value text, default_value text, valid text, trades text)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.settings()
$python$;
COMMENT ON FUNCTION pgml_tune._settings() IS 'Every setting with its value, default, range and what it trades.';

CREATE OR REPLACE FUNCTION @extschema@.doctor()
RETURNS TABLE (check_name text, status text, detail text, fix text)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.doctor()
$python$;
COMMENT ON FUNCTION @extschema@.doctor() IS
    'One row per check of the installation: ok, warn or fail, what was found, and the command or statement that mends it.';

CREATE OR REPLACE FUNCTION pgml_tune._clear_files()
RETURNS integer
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import operations
return operations.clear_files()
$python$;
COMMENT ON FUNCTION pgml_tune._clear_files() IS
    'Removes what killed jobs and imports left below the model root and what no version uses, an hour after it was made, and says how many folders.';

-- No SET clause: a procedure that has one cannot commit.
CREATE OR REPLACE PROCEDURE @extschema@.maintain()
LANGUAGE plpgsql
AS $$
DECLARE
    v_removed integer;
BEGIN
    BEGIN
        IF pgml_tune._rotate_cache() THEN
            RAISE NOTICE 'table cache: oldest generation emptied';
        END IF;
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'table cache: oldest generation is in use, left for the next run';
    END;
    -- At once, because of the lock on the emptied table; in a transaction block this is an error that lets go of it.
    COMMIT;
    BEGIN
        PERFORM pgml_tune._rotate_logs();
    EXCEPTION WHEN lock_not_available THEN
        RAISE NOTICE 'log of calls: its table is in use, partitions are left for the next run';
    END;
    COMMIT;
    PERFORM pgml_tune._ingest_logs();
    COMMIT;
    PERFORM pgml_tune._compact_counts();
    PERFORM pgml_tune._forget_columns();
    PERFORM pgml_tune._expire_jobs();
    COMMIT;
    v_removed := pgml_tune._clear_files();
    IF v_removed OPERATOR(pg_catalog.>) 0 THEN
        RAISE NOTICE 'model root: % folders that nothing uses removed', v_removed;
    END IF;
    COMMIT;
    WHILE pgml_tune._embed_sql_examples() OPERATOR(pg_catalog.>) 0 LOOP
        COMMIT;
    END LOOP;
    COMMIT;
    CALL pgml_tune._mend();
    CALL pgml_tune._retire();
END
$$;
COMMENT ON PROCEDURE @extschema@.maintain() IS
    'Empties the oldest generation of a full table cache, adds up the counters, deletes old jobs and files that nothing uses, brings collections in line with their tables (partitions, owners, grants, row security), and gives up vectors whose rollback_window is over; run it every few minutes, outside a transaction block.';

CREATE OR REPLACE PROCEDURE pgml_tune._maintain()
LANGUAGE plpgsql
AS $$
BEGIN
    CALL @extschema@.maintain();
END
$$;
COMMENT ON PROCEDURE pgml_tune._maintain() IS 'Lets the worker call maintain(), wherever that is.';
