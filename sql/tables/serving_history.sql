CREATE TABLE pgml_tune.serving_history (
    serving_history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    pointer            text NOT NULL,  -- the model name, the task whose default moved, or the collection
    kind               text NOT NULL,
    from_target        text,  -- NULL: the pointer did not exist
    to_target          text,  -- NULL: the pointer was removed
    reason             text,  -- NULL: none was given
    rollout_id         bigint,  -- NULL: no rollout did it
    undoes             bigint,  -- the move that this one takes back; NULL: none
    part_of            bigint,  -- the move of the model that took this collection along; NULL: none
    changed_by         text NOT NULL DEFAULT session_user,
    changed_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT serving_history_kind_check CHECK (kind IN ('version', 'default', 'share', 'collection', 'catalog', 'vectors'))
);
-- version: which version answers; share: of which part of the units a candidate answers, in percent; collection: which version its searches go to; catalog: plain embed(), views
-- and query functions have followed; vectors: the vectors of a collection in a space were dropped.
COMMENT ON TABLE pgml_tune.serving_history IS 'Every move of a pointer of the registry: what it meant before and after, who and when.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving_history', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.serving_history_serving_history_id_seq', '');

CREATE FUNCTION pgml_tune._refuse_change()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'table "%" is append-only', TG_TABLE_NAME USING ERRCODE = '55000';
END
$$;
CREATE TRIGGER serving_history_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON pgml_tune.serving_history
    FOR EACH STATEMENT EXECUTE FUNCTION pgml_tune._refuse_change();

