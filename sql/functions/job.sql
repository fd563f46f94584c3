CREATE OR REPLACE FUNCTION pgml_tune._may_see_job(viewer_id oid, role_id oid)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(pg_has_role(viewer_id, role_id, 'USAGE'), false)
        OR has_function_privilege(viewer_id, '@extschema@.register_model(text, text, text, text, jsonb)', 'EXECUTE')
$$;
COMMENT ON FUNCTION pgml_tune._may_see_job(oid, oid) IS 'Whether a job of a role is the viewer''s own, or he is an administrator.';

-- Who may CALL the procedure of a kind may add a job of it; a job added past the procedure gains nothing.
CREATE OR REPLACE FUNCTION pgml_tune._check_job()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_limit integer;
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_proc AS p
        JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
        JOIN pg_extension AS e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
        WHERE e.extname = 'pgml_tune' AND p.prokind = 'p' AND p.proname = NEW.kind AND 'job_id' = ANY (p.proargnames)
          AND has_function_privilege(NEW.role_id, p.oid, 'EXECUTE')
    ) THEN
        RAISE EXCEPTION 'permission denied for jobs of kind "%"', NEW.kind USING ERRCODE = '42501';
    END IF;
    -- Vectors of the worker that differ from those of the version get into caches, indexes and generated columns of all.
    IF NEW.kind = 'tune_engine'
        AND (CASE jsonb_typeof(NEW.parameters -> 'min_cosine')
            WHEN 'number' THEN (NEW.parameters -> 'min_cosine')::numeric ELSE 0
        END) < 0.99999
        AND NOT has_function_privilege(NEW.role_id, '@extschema@.configure(text, text)', 'EXECUTE') THEN
        RAISE EXCEPTION 'permission denied for option "min_cosine" below 0.99999'
            USING ERRCODE = '42501',
                  DETAIL = 'It may change vectors of a version for all sessions of the server.',
                  HINT = format('SELECT @extschema@.grant_admin(%L)', NEW.role_id::regrole);
    END IF;
    SELECT s.value::integer INTO v_limit FROM pgml_tune.setting AS s WHERE s.name = 'jobs_queued';
    v_limit := coalesce(v_limit, 100);  -- the default in settings.py
    IF (
        SELECT count(*) FROM pgml_tune.job AS j WHERE j.role_id = NEW.role_id AND j.state IN ('queued', 'running')
    ) >= v_limit THEN
        RAISE EXCEPTION 'role "%" has % jobs that wait or run', pg_get_userbyid(NEW.role_id), v_limit
            USING ERRCODE = '53400',
                  DETAIL = 'More are not accepted before one of them has ended.',
                  HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs WHERE ended_at IS NULL';
    END IF;
    -- Both would work to their ends, and the second in vain.
    IF EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.state IN ('queued', 'running') AND j.parameters #>> '{target,version}' IS NOT NULL
          AND j.parameters #>> '{target,version}' = NEW.parameters #>> '{target,version}'
          AND j.parameters #>> '{target,model}' = NEW.parameters #>> '{target,model}'
          AND (j.role_id, j.request_sha256) <> (NEW.role_id, NEW.request_sha256)
          AND NEW.kind <> 'export_onnx'  -- its version is known when it is done
    ) THEN
        RAISE EXCEPTION 'version "%" of model "%" is being made by another job', NEW.parameters #>> '{target,version}',
            NEW.parameters #>> '{target,model}'
            USING ERRCODE = '42710',
                  DETAIL = 'It may be the job of another role.',
                  HINT = 'Choose another version name, or wait: SELECT * FROM pgml_tune.jobs WHERE ended_at IS NULL';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_job() IS 'Lets only those add a job who may call its procedure, and not too many; only administrators one that may change vectors.';
CREATE OR REPLACE TRIGGER job_check BEFORE INSERT ON pgml_tune.job
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job();

CREATE OR REPLACE FUNCTION pgml_tune._check_job_rows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.job_id = NEW.job_id AND j.role_id = NEW.role_id AND j.state = 'queued'
    ) THEN
        RAISE EXCEPTION 'job % takes no rows', NEW.job_id USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_job_rows() IS 'Lets a role add to its own jobs only, and before they run.';
CREATE OR REPLACE TRIGGER job_rows_check BEFORE INSERT ON pgml_tune.job_rows
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job_rows();
CREATE OR REPLACE TRIGGER job_part_check BEFORE INSERT ON pgml_tune.job_part
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_job_rows();

CREATE OR REPLACE FUNCTION pgml_tune._cancel()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    UPDATE pgml_tune.job AS j SET
        cancel_requested_at = coalesce(j.cancel_requested_at, clock_timestamp()),
        state = CASE j.state WHEN 'queued' THEN 'cancelled' ELSE j.state END,
        ended_at = CASE j.state WHEN 'queued' THEN clock_timestamp() END
    WHERE j.job_id = NEW.job_id AND j.ended_at IS NULL AND pgml_tune._may_see_job(NEW.role_id, j.role_id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._cancel() IS
    'Lets a role ask for the cancel of a job of its own, and an administrator of any; one that waits ends at once.';
CREATE OR REPLACE TRIGGER job_cancel_request BEFORE INSERT ON pgml_tune.job_cancel
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._cancel();

CREATE OR REPLACE FUNCTION pgml_tune._forget_job_rows()
RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM pgml_tune.job_rows AS r WHERE r.job_id = NEW.job_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pgml_tune._forget_job_rows() IS 'Deletes the snapshots of a job that has ended.';
CREATE OR REPLACE TRIGGER job_ended AFTER UPDATE ON pgml_tune.job
    FOR EACH ROW WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION pgml_tune._forget_job_rows();

CREATE OR REPLACE FUNCTION pgml_tune._add_job(kind text, parameters jsonb, request text)
RETURNS TABLE (job_id bigint, is_new boolean)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_sha256 text := encode(sha256(convert_to(request, 'UTF8')), 'hex');
    v_is_new boolean;
BEGIN
    -- Until this transaction ends no worker goes because it has found nothing to do.
    PERFORM pg_advisory_xact_lock_shared(1886350708, 1);
    -- Whoever adds the same at the same time is waited for.
    INSERT INTO pgml_tune.job (kind, parameters, request_sha256)
    VALUES (_add_job.kind, _add_job.parameters, v_sha256)
    ON CONFLICT DO NOTHING;
    v_is_new := FOUND;
    RETURN QUERY SELECT w.job_id, v_is_new FROM pgml_tune._own_requests AS w WHERE w.request_sha256 = v_sha256;
END
$$;
COMMENT ON FUNCTION pgml_tune._add_job(text, jsonb, text) IS
    'Adds a job of the caller, or finds the one that was added for the same request and has not ended.';

CREATE OR REPLACE FUNCTION pgml_tune._foreign_types(type_ids oid[])
RETURNS TABLE (place integer, type_name text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT t.place::integer, format_type(t.type_id, NULL)
    FROM unnest(type_ids) WITH ORDINALITY AS t (type_id, place)
    CROSS JOIN LATERAL pgml_tune._base_type(t.type_id, -1) AS b
    WHERE b.base >= 16384
    ORDER BY t.place
$$;
COMMENT ON FUNCTION pgml_tune._foreign_types(oid[]) IS
    'Types, by their place, that are not PostgreSQL''s own and no domain over one: whoever made them may have made a cast to JSON, which would run.';

-- Neither of the next two sets the search path, because the query is the caller's own and finds its names as he does; all
-- of ours are qualified. A string of several statements cannot be opened as a cursor, and what changes data is refused
-- while rows are fetched. Not by a subtransaction that is rolled back: functions that return sets would begin again.
CREATE OR REPLACE FUNCTION pgml_tune._next_rows(query_rows refcursor)
RETURNS text[]
LANGUAGE plpgsql
SET transaction_read_only = on
AS $$
DECLARE
    v_line pg_catalog.text;
    v_lines pg_catalog.text[] := '{}';
    v_bytes pg_catalog.int4 := 0;
BEGIN
    FOR v_place IN 1 .. 1000 LOOP
        FETCH query_rows INTO v_line;
        EXIT WHEN NOT FOUND;
        v_lines[v_place] := v_line;
        v_bytes := v_bytes OPERATOR(pg_catalog.+) pg_catalog.octet_length(v_line);
        EXIT WHEN v_bytes OPERATOR(pg_catalog.>) 4194304;
    END LOOP;
    RETURN v_lines;
END
$$;
COMMENT ON FUNCTION pgml_tune._next_rows(refcursor) IS 'The next rows of a cursor, up to 1,000 or 4 MB, read without writing.';

CREATE OR REPLACE FUNCTION pgml_tune._take_rows(
    job_id bigint, part text, query text, column_names text[], max_rows bigint, max_bytes bigint
)
RETURNS text
LANGUAGE plpgsql
AS $$
DECLARE
    v_rows pg_catalog.refcursor;
    v_lines pg_catalog.text[];
    v_count pg_catalog.int8 := 0;
    v_bytes pg_catalog.int8 := 0;
BEGIN
    OPEN v_rows NO SCROLL FOR EXECUTE pgml_tune._rows_query(query, column_names);
    FOR v_chunk_no IN 1 .. 2147483647 LOOP
        v_lines := pgml_tune._next_rows(v_rows);
        EXIT WHEN pg_catalog.cardinality(v_lines) OPERATOR(pg_catalog.=) 0;
        v_count := v_count OPERATOR(pg_catalog.+) pg_catalog.cardinality(v_lines);
        v_bytes := v_bytes OPERATOR(pg_catalog.+) pgml_tune._add_rows(job_id, part, v_chunk_no, v_lines);
        IF v_count OPERATOR(pg_catalog.>) max_rows THEN
            RETURN 'rows';
        END IF;
        IF v_bytes OPERATOR(pg_catalog.>) max_bytes THEN
            RETURN 'bytes';
        END IF;
    END LOOP;
    CLOSE v_rows;
    RETURN 'taken';
END
$$;
COMMENT ON FUNCTION pgml_tune._take_rows(bigint, text, text, text[], bigint, bigint) IS
    'Keeps the rows of a query of the caller for a job; says taken, or rows or bytes when there are more than allowed.';

CREATE OR REPLACE FUNCTION pgml_tune._rows_query(query text, column_names text[])
RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    -- A value of type json may hold line ends, which mean nothing in it.
    SELECT format(
        E'SELECT pg_catalog.replace(pg_catalog.row_to_json(r.*)::pg_catalog.text, E\'\\n\', \' \') FROM (\n%s\n) AS r (%s)',
        query, string_agg(quote_ident(c.name), ', ' ORDER BY c.place)
    )
    FROM unnest(column_names) WITH ORDINALITY AS c (name, place)
$$;
COMMENT ON FUNCTION pgml_tune._rows_query(text, text[]) IS 'A query for the rows of a query, each as a line of JSON.';

CREATE OR REPLACE FUNCTION pgml_tune._add_rows(job_id bigint, part text, chunk_no integer, lines text[])
RETURNS integer
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lines text := array_to_string(lines, E'\n');
BEGIN
    INSERT INTO pgml_tune.job_rows (job_id, part, chunk_no, row_count, lines)
    VALUES (_add_rows.job_id, _add_rows.part, _add_rows.chunk_no, cardinality(_add_rows.lines), v_lines);
    RETURN octet_length(v_lines);
END
$$;
COMMENT ON FUNCTION pgml_tune._add_rows(bigint, text, integer, text[]) IS 'Keeps a chunk of rows for a job; says how many bytes it is.';

CREATE OR REPLACE FUNCTION pgml_tune._schemas_of_path(path text)
RETURNS name[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp  -- put back at the end, so that the other one lasts no longer than this
AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', path, true);
    RETURN pg_catalog.current_schemas(false);
END
$$;
COMMENT ON FUNCTION pgml_tune._schemas_of_path(text) IS 'The schemas that a search path names, of those that the caller may use.';

CREATE OR REPLACE FUNCTION pgml_tune._worker_is_alive()
RETURNS boolean
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.worker AS w
        WHERE w.seen_at > clock_timestamp() - interval '30 seconds'
          AND EXISTS (SELECT FROM pg_stat_get_activity(w.backend_pid))
    )
$$;
COMMENT ON FUNCTION pgml_tune._worker_is_alive() IS 'Whether a worker of this database was seen in the last half minute and still has its session.';

CREATE OR REPLACE FUNCTION pgml_tune._server_address()
RETURNS TABLE (host text, port text, database text, role text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(
               nullif(btrim(split_part(current_setting('unix_socket_directories'), ',', 1), ' "'), ''),
               'localhost'
           ),
           current_setting('port'), current_database()::text, pg_get_userbyid(e.extowner)::text
    FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
$$;
COMMENT ON FUNCTION pgml_tune._server_address() IS 'Where a worker on this machine reaches this database, and as whom.';

CREATE OR REPLACE FUNCTION pgml_tune._job_status(job_id bigint)
RETURNS TABLE (
    kind text, state text, phase text, step bigint, steps bigint, loss double precision, metric text,
    metric_value double precision, seconds_left double precision, result text, sqlstate text, message text, detail text,
    hint text
)
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT j.kind, j.state::text, p.phase, p.steps_done, p.steps_total, p.loss, p.metric, p.metric_value,
           p.seconds_left, j.result::text, j.sqlstate, j.message, j.detail, j.hint
    FROM pgml_tune.jobs AS j
    LEFT JOIN pgml_tune.stat_progress AS p ON p.job_id = j.job_id
    WHERE j.job_id = _job_status.job_id
$$;
COMMENT ON FUNCTION pgml_tune._job_status(bigint) IS 'What whoever waits for a job tells of it.';

CREATE OR REPLACE FUNCTION @extschema@.cancel_job(job_id bigint)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_has_ended boolean;
BEGIN
    SELECT j.ended_at IS NOT NULL INTO v_has_ended FROM pgml_tune.jobs AS j WHERE j.job_id = cancel_job.job_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % does not exist', coalesce(job_id::text, 'NULL')
            USING ERRCODE = '42704', HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs';
    END IF;
    INSERT INTO pgml_tune.job_cancel (job_id) VALUES (cancel_job.job_id);
    RETURN NOT v_has_ended;
END
$$;
COMMENT ON FUNCTION @extschema@.cancel_job(bigint) IS
    'Cancels a job: one that waits at once, one that runs within ten seconds; false if it had ended already.';

CREATE OR REPLACE FUNCTION @extschema@.job_log(job_id bigint)
RETURNS SETOF text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM pgml_tune.jobs AS j WHERE j.job_id = job_log.job_id) THEN
        RAISE EXCEPTION 'job % does not exist', coalesce(job_id::text, 'NULL')
            USING ERRCODE = '42704', HINT = 'SELECT job_id, kind, state FROM pgml_tune.jobs';
    END IF;
    RETURN QUERY
        SELECT to_char(l.logged_at, 'HH24:MI:SS') || '  ' || l.line
        FROM pgml_tune._job_lines AS l WHERE l.job_id = job_log.job_id ORDER BY l.job_line_id;
END
$$;
COMMENT ON FUNCTION @extschema@.job_log(bigint) IS 'What a job has told while it ran, line by line, the oldest first.';

CREATE OR REPLACE FUNCTION pgml_tune._expire_jobs()
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_jobs bigint[];
BEGIN
    SELECT array_agg(j.job_id) INTO v_jobs
    FROM pgml_tune.job AS j
    WHERE j.ended_at < now() - make_interval(days => coalesce(
        (SELECT s.value::integer FROM pgml_tune.setting AS s WHERE s.name = 'job_keep_days'),
        30  -- the default in settings.py
    ));
    DELETE FROM pgml_tune.job_line AS l WHERE l.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job_part AS p WHERE p.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job_progress AS p WHERE p.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.job AS j WHERE j.job_id = ANY (v_jobs);
    DELETE FROM pgml_tune.worker AS w WHERE w.seen_at < now() - interval '1 day';
END
$$;
COMMENT ON FUNCTION pgml_tune._expire_jobs() IS 'Deletes jobs that ended long ago, with all that was kept of them.';

CREATE OR REPLACE FUNCTION pgml_tune._file_users()
RETURNS TABLE (installation_id oid, digests text[], labels text[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT e.oid,
           ARRAY(
               SELECT v.artifact_sha256 FROM pgml_tune.model_version AS v
               UNION
               SELECT a.artifact ->> 'digest'
               FROM pgml_tune.job AS j, jsonb_array_elements(j.artifacts) AS a (artifact)
               WHERE j.state IN ('queued', 'running') AND a.artifact ->> 'digest' IS NOT NULL
           ),
           ARRAY(
               SELECT concat_ws('-', e.oid, j.job_id, j.fencing_token) FROM pgml_tune.job AS j WHERE j.state = 'running'
           )
    -- Not of the database: job numbers begin again when the extension is created anew.
    FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
$$;
COMMENT ON FUNCTION pgml_tune._file_users() IS 'The artifacts that this database needs, and what the folders of the jobs that run now are called.';
