CREATE TYPE pgml_tune.job_state AS ENUM (
    'queued',     -- waits for a worker
    'running',    -- a worker holds its lease
    'succeeded',
    'failed',     -- sqlstate and message say why
    'cancelled'
);
COMMENT ON TYPE pgml_tune.job_state IS 'Where a job stands: queued, running, or ended in one of three ways.';

-- What runs in one database is of no use in another: none of the tables of jobs is dumped.
CREATE TABLE pgml_tune.job (
    job_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL,
    parameters     jsonb NOT NULL,
    request_sha256 text NOT NULL,
    role_id        oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,  -- whose job it is; nobody may name another
    created_by     text NOT NULL DEFAULT session_user,
    created_at     timestamptz NOT NULL DEFAULT now(),
    state          pgml_tune.job_state NOT NULL DEFAULT 'queued',
    fencing_token  integer NOT NULL DEFAULT 0,  -- grows with each claim: what an earlier holder writes is refused
    cancel_requested_at timestamptz,            -- NULL: nobody wants it cancelled
    started_at     timestamptz,                 -- NULL: no worker has claimed it yet
    ended_at       timestamptz,                 -- NULL: it has not ended
    artifacts      jsonb NOT NULL DEFAULT '[]', -- what it has published below the model root; registered when it ends
    evaluations    jsonb NOT NULL DEFAULT '[]', -- what it has measured; becomes rows of evaluation when it ends
    result         jsonb,                       -- NULL: its process has not ended well; else it is not run again
    sqlstate       text,                        -- NULL, as the next three: it has not failed
    message        text,
    detail         text,
    hint           text,
    CONSTRAINT job_parameters_check CHECK (jsonb_typeof(parameters) = 'object'),
    CONSTRAINT job_request_sha256_check CHECK (request_sha256 ~ '^[0-9a-f]{64}$'),
    CONSTRAINT job_ended_at_check CHECK ((ended_at IS NULL) = (state IN ('queued', 'running')))
);
COMMENT ON TABLE pgml_tune.job IS 'What was asked of the worker, by whom, and how it ended; see pgml_tune.jobs.';
-- The same call of a role twice is one job, as long as the first has not ended.
CREATE UNIQUE INDEX job_role_id_request_sha256_key ON pgml_tune.job (role_id, request_sha256) WHERE state IN ('queued', 'running');
-- The worker asks for the oldest of the few that wait or run.
CREATE INDEX job_state_idx ON pgml_tune.job (job_id) WHERE state IN ('queued', 'running');

-- Beside the job because it changes every few seconds.
CREATE TABLE pgml_tune.job_progress (
    job_id        bigint PRIMARY KEY,
    fencing_token integer NOT NULL,
    worker        text NOT NULL,          -- host:pid
    lease_until   timestamptz NOT NULL,   -- by the clock of the server
    phase         text NOT NULL DEFAULT 'starting',
    step          bigint,                 -- NULL, as the next: the phase has no steps
    steps         bigint,
    loss          double precision,       -- NULL: the phase has none
    metric        text,                   -- NULL, as the next: nothing measured yet
    metric_value  double precision,
    lost_count    integer NOT NULL DEFAULT 0,  -- how often its worker was lost or its process killed from outside
    memory_bytes  bigint,                 -- most memory that its processes have held; NULL: not measured yet
    phase_started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 20, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE pgml_tune.job_progress IS 'Who runs a job until when, and how far it has come; a row for each job that was ever claimed.';

-- The rows that a job works on, as its caller could read them; deleted when it ends.
CREATE TABLE pgml_tune.job_rows (
    job_id   bigint NOT NULL,
    part     text NOT NULL,
    chunk_no integer NOT NULL,
    row_count integer NOT NULL,
    lines    text NOT NULL,  -- a JSON object per line
    role_id  oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    CONSTRAINT job_rows_pkey PRIMARY KEY (job_id, part, chunk_no),
    CONSTRAINT job_rows_part_check CHECK (part IN ('train', 'eval', 'calibration', 'schema', 'values'))
);
COMMENT ON TABLE pgml_tune.job_rows IS 'Snapshots of the rows that jobs which have not ended work on.';

-- What those rows were: stays as long as the job, and goes into the version that is made of them.
CREATE TABLE pgml_tune.job_part (
    job_id      bigint NOT NULL,
    part        text NOT NULL,
    query       text NOT NULL,
    row_count   bigint NOT NULL,
    rows_sha256 text NOT NULL,
    column_names text[] NOT NULL,
    shape       text NOT NULL,
    role_id     oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid,
    CONSTRAINT job_part_pkey PRIMARY KEY (job_id, part),
    CONSTRAINT job_part_part_check CHECK (part IN ('train', 'eval', 'calibration', 'schema', 'values'))  -- files are named by it
);
COMMENT ON TABLE pgml_tune.job_part IS 'The queries of a job: their text, and number, hash, columns and shape of the rows.';

CREATE TABLE pgml_tune.job_line (
    job_line_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id      bigint NOT NULL,
    logged_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    line        text NOT NULL
);
COMMENT ON TABLE pgml_tune.job_line IS 'What jobs have told while they ran; see job_log().';
-- job_log() reads the lines of one job.
CREATE INDEX job_line_job_id_idx ON pgml_tune.job_line (job_id, job_line_id);

-- Stays empty: to add a row is to ask for the cancel of a job, and its trigger knows by the row who asks.
CREATE TABLE pgml_tune.job_cancel (
    job_id  bigint NOT NULL,
    role_id oid NOT NULL DEFAULT quote_ident(current_user)::regrole::oid
);
COMMENT ON TABLE pgml_tune.job_cancel IS 'Takes the requests of cancel_job().';

CREATE TABLE pgml_tune.worker (
    name          text PRIMARY KEY,      -- host:pid
    backend_pid   integer NOT NULL,      -- of its session: whoever has lost that is gone
    is_one_shot   boolean NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE pgml_tune.worker IS 'The workers of this database; one that was not seen for half a minute, or has lost its session, is gone.';
