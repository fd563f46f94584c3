-- What the worker calls, as owner of the extension or as a superuser: granted to nobody. Whatever the holder of a job
-- writes carries the fencing token of its claim, and is refused when the job has been claimed again or has ended.

-- Two advisory locks: (1886350708, 1) is shared by the transactions that have added a job, (1886350708, 2) is held by the
-- worker that was started to end when no job is left.
CREATE OR REPLACE FUNCTION pgml_tune._take_post()
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF pg_try_advisory_lock(1886350708, 2) THEN
        RETURN 'taken';
    END IF;
    -- Whoever has it may hang, or may just have begun.
    RETURN CASE WHEN pgml_tune._worker_is_alive() THEN 'filled' ELSE 'unclear' END;
END
$$;
COMMENT ON FUNCTION pgml_tune._take_post() IS
    'Makes the caller the worker that ends when no job is left; says taken, filled if another one is that, or unclear if it shows no life.';

CREATE OR REPLACE FUNCTION pgml_tune._may_leave()
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(1886350708, 1) THEN
        RETURN false;
    END IF;
    RETURN NOT EXISTS (SELECT FROM pgml_tune.job AS j WHERE j.state IN ('queued', 'running'));
END
$$;
COMMENT ON FUNCTION pgml_tune._may_leave() IS 'Whether there is no job, and no open transaction has added one.';

CREATE OR REPLACE FUNCTION pgml_tune._take_back_jobs()
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_lost record;
BEGIN
    FOR v_lost IN
        SELECT j.job_id, p.lost_count FROM pgml_tune.job AS j
        JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
        WHERE j.state = 'running' AND p.lease_until < clock_timestamp()
        -- Its holder may be about to end it, or to prove that it lives on.
        FOR UPDATE SKIP LOCKED
    LOOP
        UPDATE pgml_tune.job_progress AS p SET lost_count = v_lost.lost_count + 1 WHERE p.job_id = v_lost.job_id;
        IF v_lost.lost_count < 2 THEN
            UPDATE pgml_tune.job AS j SET
                state = CASE WHEN j.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END::pgml_tune.job_state,
                ended_at = CASE WHEN j.cancel_requested_at IS NULL THEN NULL ELSE clock_timestamp() END
            WHERE j.job_id = v_lost.job_id;
        ELSE
            UPDATE pgml_tune.job AS j SET
                state = 'failed', ended_at = clock_timestamp(), sqlstate = '58000',
                message = 'the worker was lost three times',
                detail = 'It ended, or did not answer, before the job was done.',
                hint = format('SELECT * FROM @extschema@.job_log(%s)', j.job_id)
            WHERE j.job_id = v_lost.job_id;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._take_back_jobs() IS 'Queues the jobs whose lease has run out; one that is lost for the third time fails.';

CREATE OR REPLACE FUNCTION pgml_tune._claim_job(worker text, lease interval, most_running integer)
RETURNS TABLE (
    job_id bigint, fencing_token integer, kind text, parameters jsonb, created_by text, artifacts jsonb,
    evaluations jsonb, result jsonb, lost_count integer, installation_id oid
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_job pgml_tune.job;
    v_lost_count integer;
BEGIN
    -- It is asked every other second, and there is hardly ever anything to claim.
    IF NOT EXISTS (
        SELECT FROM pgml_tune.job AS j
        LEFT JOIN pgml_tune.job_progress AS p ON p.job_id = j.job_id
        WHERE j.state = 'queued' OR (j.state = 'running' AND p.lease_until < clock_timestamp())
    ) THEN
        RETURN;
    END IF;
    -- One at a time: two workers could each start the last job that may run.
    LOCK TABLE pgml_tune.worker IN SHARE ROW EXCLUSIVE MODE;
    PERFORM pgml_tune._take_back_jobs();
    IF (SELECT count(*) FROM pgml_tune.job AS j WHERE j.state = 'running') >= most_running THEN
        RETURN;
    END IF;
    UPDATE pgml_tune.job AS j SET
        state = 'running', fencing_token = j.fencing_token + 1, started_at = coalesce(j.started_at, clock_timestamp())
    WHERE j.job_id = (
        SELECT q.job_id FROM pgml_tune.job AS q WHERE q.state = 'queued' ORDER BY q.job_id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING j.* INTO v_job;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO pgml_tune.job_progress AS p (job_id, fencing_token, worker, lease_until)
    VALUES (v_job.job_id, v_job.fencing_token, _claim_job.worker, clock_timestamp() + _claim_job.lease)
    ON CONFLICT (job_id) DO UPDATE SET
        fencing_token = excluded.fencing_token, worker = excluded.worker, lease_until = excluded.lease_until,
        phase = excluded.phase, step = NULL, steps = NULL, loss = NULL, metric = NULL, metric_value = NULL,
        phase_started_at = excluded.phase_started_at, updated_at = excluded.updated_at
    RETURNING p.lost_count INTO v_lost_count;
    RETURN QUERY SELECT v_job.job_id, v_job.fencing_token, v_job.kind, v_job.parameters, v_job.created_by,
        v_job.artifacts, v_job.evaluations, v_job.result, v_lost_count,
        (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'pgml_tune');
END
$$;
COMMENT ON FUNCTION pgml_tune._claim_job(text, interval, integer) IS
    'Gives a worker the oldest job that waits, until the lease ends; nothing if enough of them run.';

CREATE OR REPLACE FUNCTION pgml_tune._holds_job(job_id bigint, fencing_token integer)
RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM pgml_tune.job AS j
        WHERE j.job_id = _holds_job.job_id AND j.fencing_token = _holds_job.fencing_token AND j.state = 'running'
    )
$$;
COMMENT ON FUNCTION pgml_tune._holds_job(bigint, integer) IS 'Whether a job runs under this claim.';

CREATE OR REPLACE FUNCTION pgml_tune._beat_job(job_id bigint, fencing_token integer, lease interval, memory_bytes bigint)
RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    v_is_cancelled boolean;
BEGIN
    -- First, because it waits for whoever is about to take the job back.
    UPDATE pgml_tune.job_progress AS p SET
        lease_until = clock_timestamp() + _beat_job.lease,
        memory_bytes = greatest(p.memory_bytes, _beat_job.memory_bytes)
    WHERE p.job_id = _beat_job.job_id AND p.fencing_token = _beat_job.fencing_token;
    SELECT j.cancel_requested_at IS NOT NULL INTO v_is_cancelled FROM pgml_tune.job AS j
    WHERE j.job_id = _beat_job.job_id AND j.fencing_token = _beat_job.fencing_token AND j.state = 'running';
    RETURN CASE WHEN v_is_cancelled IS NULL THEN 'lost' WHEN v_is_cancelled THEN 'cancel' ELSE 'ok' END;
END
$$;
COMMENT ON FUNCTION pgml_tune._beat_job(bigint, integer, interval, bigint) IS
    'Renews the lease of a job; says ok, cancel if its end is wanted, or lost if somebody else has it.';

CREATE OR REPLACE FUNCTION pgml_tune._progress_job(job_id bigint, fencing_token integer, progress jsonb)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job_progress AS p SET
        phase = n.phase, step = n.step, steps = n.steps, loss = n.loss, metric = n.metric, metric_value = n.value,
        phase_started_at = CASE WHEN p.phase = n.phase THEN p.phase_started_at ELSE clock_timestamp() END,
        updated_at = clock_timestamp()
    FROM jsonb_to_record(progress) AS n (
        phase text, step bigint, steps bigint, loss double precision, metric text, value double precision
    )
    WHERE p.job_id = _progress_job.job_id AND p.fencing_token = _progress_job.fencing_token
      AND pgml_tune._holds_job(p.job_id, p.fencing_token);
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._progress_job(bigint, integer, jsonb) IS 'Writes down how far a job has come; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._log_job(job_id bigint, fencing_token integer, lines text[])
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    c_most CONSTANT bigint := 10000;
    v_count bigint;
BEGIN
    IF NOT pgml_tune._holds_job(job_id, fencing_token) THEN
        RETURN false;
    END IF;
    SELECT count(*) INTO v_count FROM pgml_tune.job_line AS l WHERE l.job_id = _log_job.job_id;
    INSERT INTO pgml_tune.job_line (job_id, line)
    SELECT _log_job.job_id, CASE WHEN v_count + l.place = c_most THEN 'the log is full' ELSE l.line END
    FROM unnest(lines) WITH ORDINALITY AS l (line, place)
    WHERE v_count + l.place <= c_most
    ORDER BY l.place;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._log_job(bigint, integer, text[]) IS
    'Adds lines to the log of a job, up to 10,000 in all; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._publish_job(
    job_id bigint, fencing_token integer, artifacts jsonb, evaluations jsonb, result jsonb
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        artifacts = _publish_job.artifacts, evaluations = _publish_job.evaluations, result = _publish_job.result
    WHERE j.job_id = _publish_job.job_id AND j.fencing_token = _publish_job.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._publish_job(bigint, integer, jsonb, jsonb, jsonb) IS
    'Writes down what a job has published and measured, and in the end its result; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._fail_job(
    job_id bigint, fencing_token integer, sqlstate text, message text, detail text, hint text
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        state = 'failed', ended_at = clock_timestamp(), sqlstate = _fail_job.sqlstate, message = _fail_job.message,
        detail = _fail_job.detail, hint = _fail_job.hint
    WHERE j.job_id = _fail_job.job_id AND j.fencing_token = _fail_job.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._fail_job(bigint, integer, text, text, text, text) IS
    'Ends a job with an error; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._end_cancelled(job_id bigint, fencing_token integer)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET state = 'cancelled', ended_at = clock_timestamp()
    WHERE j.job_id = _end_cancelled.job_id AND j.fencing_token = _end_cancelled.fencing_token AND j.state = 'running';
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pgml_tune._end_cancelled(bigint, integer) IS 'Ends a job that was cancelled; false if it is held no more.';

CREATE OR REPLACE FUNCTION pgml_tune._give_back_job(job_id bigint, fencing_token integer, is_lost boolean)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    UPDATE pgml_tune.job AS j SET
        state = CASE WHEN j.cancel_requested_at IS NULL THEN 'queued' ELSE 'cancelled' END::pgml_tune.job_state,
        ended_at = CASE WHEN j.cancel_requested_at IS NULL THEN NULL ELSE clock_timestamp() END
    WHERE j.job_id = _give_back_job.job_id AND j.fencing_token = _give_back_job.fencing_token AND j.state = 'running';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE pgml_tune.job_progress AS p SET lost_count = p.lost_count + is_lost::integer, phase = 'waiting'
    WHERE p.job_id = _give_back_job.job_id;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pgml_tune._give_back_job(bigint, integer, boolean) IS
    'Queues a job again that was not done, lost or not; false if it is held no more.';
