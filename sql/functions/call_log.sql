CREATE OR REPLACE FUNCTION pgml_tune._parse_calls(lines text)
RETURNS SETOF pgml_tune.call_log
LANGUAGE sql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT timestamptz 'epoch' + f[1]::bigint * interval '1 microsecond',
           f[2]::bigint,
           f[3],
           f[4],
           f[5],
           f[6],
           f[7]::bigint,
           f[8]::integer,
           f[9]::integer,
           f[10]::bigint,
           replace(replace(replace(f[11], '%09', E'\t'), '%0A', E'\n'), '%25', '%'),
           f[12]::integer,
           f[13]::bigint,
           f[14]::integer,
           f[15]::integer,
           f[16]::integer,
           f[17],
           f[18]::double precision,
           f[19]::boolean,
           f[20]::boolean,
           f[21],
           f[22]::bigint,
           f[23]::bigint,
           f[24]::real,
           f[25]::oid,
           f[26],
           replace(replace(replace(f[27], '%09', E'\t'), '%0A', E'\n'), '%25', '%'),
           replace(replace(replace(f[28], '%09', E'\t'), '%0A', E'\n'), '%25', '%')
    FROM string_to_table(lines, E'\n') AS l (line), string_to_array(l.line, E'\t', '%') AS f
$$;
COMMENT ON FUNCTION pgml_tune._parse_calls(text) IS 'The calls that checked lines of the spool tell of.';

-- Whoever reads the logs calls this; it shows no text of users, which he may have no right to.
CREATE OR REPLACE FUNCTION pgml_tune._spooled_calls()
RETURNS SETOF text
LANGUAGE plpython3u STABLE SECURITY DEFINER PARALLEL UNSAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.spooled_calls()
$python$;
COMMENT ON FUNCTION pgml_tune._spooled_calls() IS
    'Lines of the spool that the snapshot of the statement does not show as ingested, a text for each file, without texts of users.';

CREATE OR REPLACE FUNCTION pgml_tune._ingest_logs()
RETURNS bigint
LANGUAGE plpython3u VOLATILE SECURITY DEFINER PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.ingest_logs()
$python$;
COMMENT ON FUNCTION pgml_tune._ingest_logs() IS
    'Adds what the spool holds to the log of calls and says how many; 0 while another session is doing so.';

CREATE OR REPLACE FUNCTION pgml_tune._add_log_partition(day date)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET TimeZone = 'UTC'
AS $$
DECLARE
    v_name text := 'call_log_' || to_char(day, 'YYYYMMDD');
    v_statement text;
BEGIN
    EXECUTE format('CREATE TABLE pgml_tune.%I (LIKE pgml_tune.call_log_default INCLUDING INDEXES)', v_name);
    EXECUTE format('COMMENT ON TABLE pgml_tune.%I IS %L', v_name, format('Calls of %s, UTC.', day));
    -- Default privileges may have granted it to others.
    FOR v_statement IN
        SELECT DISTINCT format('REVOKE ALL ON pgml_tune.%I FROM %s', v_name,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM pg_class AS c, aclexplode(c.relacl) AS a
        WHERE c.oid = format('pgml_tune.%I', v_name)::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE v_statement;
    END LOOP;
    EXECUTE format(
        'WITH gone AS (DELETE FROM pgml_tune.call_log_default WHERE logged_at >= $1 AND logged_at < $2 RETURNING *)
         INSERT INTO pgml_tune.%I SELECT * FROM gone',
        v_name
    ) USING day::timestamptz, (day + 1)::timestamptz;
    EXECUTE format(
        'ALTER TABLE pgml_tune.call_log ATTACH PARTITION pgml_tune.%I FOR VALUES FROM (%L) TO (%L)',
        v_name, day::timestamptz, (day + 1)::timestamptz
    );
END
$$;
COMMENT ON FUNCTION pgml_tune._add_log_partition(date) IS
    'Makes the partition of a day of the log of calls, and moves there what the default partition has of that day.';

CREATE OR REPLACE FUNCTION pgml_tune._rotate_logs()
RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '1s'  -- who waits for such a lock holds up everybody behind him
SET TimeZone = 'UTC'
AS $$
DECLARE
    v_oldest date := current_date - coalesce(
        (SELECT s.value::integer FROM pgml_tune.setting AS s WHERE s.name = 'log_keep_days'),
        30  -- the default in settings.py
    );
    v_day date;
    v_name text;
    v_dropped integer := 0;
BEGIN
    PERFORM FROM pgml_tune.log_info FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;  -- another session ingests, or does this
    END IF;
    DELETE FROM pgml_tune.call_log_default WHERE logged_at < v_oldest;
    FOR v_day IN
        SELECT current_date + g.step FROM generate_series(0, 4) AS g (step)
        UNION
        SELECT d.logged_at::date FROM pgml_tune.call_log_default AS d WHERE d.logged_at < current_date
    LOOP
        IF to_regclass('pgml_tune.call_log_' || to_char(v_day, 'YYYYMMDD')) IS NULL THEN
            PERFORM pgml_tune._add_log_partition(v_day);
        END IF;
    END LOOP;
    FOR v_name IN
        SELECT c.relname
        FROM pg_inherits AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'pgml_tune.call_log'::regclass
          AND c.relname ~ '^call_log_[0-9]{8}$'
          AND c.relname < 'call_log_' || to_char(v_oldest, 'YYYYMMDD')
    LOOP
        EXECUTE format('DROP TABLE pgml_tune.%I', v_name);
        v_dropped := v_dropped + 1;
    END LOOP;
    RETURN v_dropped;
END
$$;
COMMENT ON FUNCTION pgml_tune._rotate_logs() IS
    'Makes the partitions of the log of calls of today and the four days to come, drops those beyond log_keep_days, and says how many; never waits long for a lock.';

CREATE OR REPLACE FUNCTION pgml_tune._reset_counts()
RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM pgml_tune.call_count;
    UPDATE pgml_tune.log_info SET stats_reset_at = clock_timestamp();
$$;
COMMENT ON FUNCTION pgml_tune._reset_counts() IS 'Deletes what the sessions have counted and written.';

CREATE OR REPLACE FUNCTION @extschema@.stat_reset()
RETURNS void
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import call_log
return call_log.stat_reset()
$python$;
COMMENT ON FUNCTION @extschema@.stat_reset() IS
    'Begins pgml_tune.stat_inference and stat_cache anew; what other sessions have counted and not yet written is added with their next call.';
