-- One row for each logged call, by day. Partitions are made and retired by maintain(); what fits none goes to the default one.
CREATE TABLE pgml_tune.call_log (
    logged_at        timestamptz NOT NULL,
    call_id          bigint NOT NULL,
    task             text NOT NULL,  -- embed, batch, search, passages, similarity, classify, text_to_sql
    model            text NOT NULL,  -- no number: the row outlives the version
    version          text NOT NULL,  -- which answered
    variant          text,  -- serving or candidate: whose call it was by its unit, whoever answered; NULL: no rollout ran
    rollout_id       bigint,  -- NULL, as what follows: no rollout ran
    phase            integer,
    share            integer,  -- units of 10,000 that were to go to the candidate
    unit             bigint,  -- first 60 bits of sha256(salt:unit); its remainder by 10,000 is the bucket
    collection       text,  -- NULL: no search
    texts            integer NOT NULL,
    input_bytes      bigint NOT NULL,
    tokens           integer,  -- NULL: nothing was computed
    unknown_tokens   integer,  -- NULL: nothing was computed
    output_count     integer NOT NULL,  -- dimensions, labels or rows
    cache            text NOT NULL,  -- miss (all texts computed), session, table, mixed
    latency_ms       double precision NOT NULL,
    is_cold          boolean NOT NULL,  -- a model was loaded
    is_fallback      boolean NOT NULL,  -- the candidate failed, the serving version answered
    sqlstate         text,  -- NULL: no error; 58000 with outcome lost: the backend ended within the call
    memory_bytes     bigint,  -- resident memory of the backend, looked at once a second; NULL: not known
    gpu_memory_bytes bigint,  -- in use on the device, by all processes; NULL: the backend uses no GPU
    sample_rate      real NOT NULL,  -- share of such calls that are logged; 1/sample_rate is the weight of the row
    role_id          oid NOT NULL,
    sketch           text,  -- of the mean vector: 32 numbers, base64; NULL: setting log_sketch is off, or nothing was computed
    answer           text,  -- the most probable label; NULL: no classifier, or it is longer than 200 bytes
    input_text       text  -- NULL: setting log_text is off
) PARTITION BY RANGE (logged_at);
CREATE TABLE pgml_tune.call_log_default PARTITION OF pgml_tune.call_log DEFAULT;
-- Each partition has indexes of its own, made like these. One of the whole table would make them when a restored partition
-- is attached, and the restore could then not make them again.
-- ab_report() and what judges a rollout read one rollout.
CREATE INDEX call_log_default_rollout_idx ON pgml_tune.call_log_default (rollout_id, phase) WHERE rollout_id IS NOT NULL;
-- record_feedback() finds the call.
CREATE INDEX call_log_default_call_id_idx ON pgml_tune.call_log_default (call_id);
CREATE INDEX call_log_default_logged_at_idx ON pgml_tune.call_log_default USING brin (logged_at);
COMMENT ON TABLE pgml_tune.call_log IS 'Logged inference calls, ingested from the spool; no text of users unless setting log_text is on.';
COMMENT ON TABLE pgml_tune.call_log_default IS 'Calls of days that have no partition yet.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.call_log_default', '');

-- How far each spool file has been ingested: written in the transaction that adds the rows, so each line counts once.
CREATE TABLE pgml_tune.log_file (
    file     text PRIMARY KEY,
    bytes    bigint NOT NULL,
    done_xid xid8,  -- its writer is gone and all is ingested; it is removed when no transaction can be older. NULL: it may grow
    done_at  timestamptz
);
COMMENT ON TABLE pgml_tune.log_file IS 'Spool files and how many of their bytes have been ingested.';

-- Calls whose beginning was ingested and whose end was not yet.
CREATE TABLE pgml_tune.open_call (
    file       text NOT NULL,
    call_id    bigint NOT NULL,
    line       text NOT NULL,
    CONSTRAINT open_call_pkey PRIMARY KEY (file, call_id)
);
COMMENT ON TABLE pgml_tune.open_call IS 'Calls that have begun and not ended, by the spool; when the writer of a file is gone they count as lost.';

CREATE TABLE pgml_tune.log_info (
    is_only_row     boolean PRIMARY KEY DEFAULT true,
    dropped_bytes   bigint NOT NULL DEFAULT 0,  -- of the spool, beyond its cap
    refused_lines   bigint NOT NULL DEFAULT 0,  -- that could not be understood
    ingested_at     timestamptz,  -- NULL: never
    stats_reset_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT log_info_check CHECK (is_only_row)
);
INSERT INTO pgml_tune.log_info DEFAULT VALUES;
COMMENT ON TABLE pgml_tune.log_info IS 'What was lost of the logs, when they were last ingested, and since when statistics count.';

-- It outlives the log of its call: what the reports need of that is copied when the feedback comes.
CREATE TABLE pgml_tune.feedback (
    feedback_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    call_id     bigint NOT NULL,
    model       text,  -- NULL, as what follows: the call was not logged
    version     text,  -- which answered
    task        text,
    answer      text,  -- the most probable label, of a classifier; NULL: of another model
    rollout_id  bigint,  -- NULL, as what follows: no rollout ran
    phase       integer,
    variant     text,
    unit        bigint,
    score       double precision,  -- 0 to 1, as a click or a star; NULL: not given
    label       text,  -- what the caller holds for right, of a classifier; NULL: not given
    expected    text,  -- the right answer, or a better text; NULL: not given
    input_text  text,  -- as the caller gives it, else as setting log_text has kept it; NULL: the call cannot become a training row
    given_by    text NOT NULL DEFAULT current_user,  -- by name: numbers of roles do not survive a dump
    created_by  text NOT NULL DEFAULT session_user,
    created_at  timestamptz NOT NULL DEFAULT now(),
    search_path text,  -- of whoever gave it, by which SQL that he expects finds its tables; NULL: not known
    CONSTRAINT feedback_score_check CHECK (score BETWEEN 0 AND 1),
    -- Who inserts past record_feedback() meets these instead of the settings.
    CONSTRAINT feedback_length_check CHECK (
        length(label) <= 1000 AND octet_length(expected) <= 4194304 AND octet_length(input_text) <= 4194304
        AND octet_length(search_path) <= 1048576
    ),
    CONSTRAINT feedback_given_check CHECK (num_nonnulls(score, label, expected) > 0)
);
CREATE INDEX feedback_rollout_id_idx ON pgml_tune.feedback (rollout_id) WHERE rollout_id IS NOT NULL;  -- ab_report()
CREATE INDEX feedback_call_id_idx ON pgml_tune.feedback (call_id);  -- calls that are ingested after it
CREATE INDEX feedback_created_at_idx ON pgml_tune.feedback (created_at);  -- quality_report()
COMMENT ON TABLE pgml_tune.feedback IS 'What users thought of answers, by the identifier of the call.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.feedback', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.feedback_feedback_id_seq', '');
