CREATE TABLE pgml_tune.tracked_column (
    tracked_column_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source            regclass NOT NULL,
    target_column     text NOT NULL,  -- as it was called then: after a rename, record it again under its new name
    model_version_id  bigint NOT NULL,
    filled_by         text NOT NULL,
    source_column     text,  -- NULL: filled by the user, from what only he knows
    is_mixed          boolean NOT NULL DEFAULT false,  -- embed_table() has yet to clear vectors of an earlier model
    shadow_of         text,  -- the column whose name it takes over when its version is promoted; NULL: it is what searches use
    is_filled         boolean NOT NULL DEFAULT true,  -- a shadow: every row with a text had its vector at the end of prepare_rollout()
    left_at           timestamptz,  -- a shadow: when its vectors stopped being what searches use; NULL: they never were
    created_by        text NOT NULL DEFAULT session_user,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT tracked_column_source_target_column_key UNIQUE (source, target_column),
    CONSTRAINT tracked_column_filled_by_check CHECK (filled_by IN ('embed_table', 'user')),
    CONSTRAINT tracked_column_shadow_of_check CHECK (shadow_of <> target_column)
);
COMMENT ON TABLE pgml_tune.tracked_column IS
    'Vector columns of users'' own tables, and the version, and so the embedding space, that their vectors are of.';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.tracked_column', '');
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.tracked_column_tracked_column_id_seq', '');

-- Not a row policy: pg_dump writes the policies of an extension's table out, and the restore then fails on the second one.
CREATE FUNCTION pgml_tune._check_tracked_column()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- A superuser also restores rows of tables that are gone.
    IF EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolsuper) THEN
        RETURN NEW;
    END IF;
    IF NOT coalesce(has_column_privilege(NEW.source, NEW.target_column, 'UPDATE'), false) THEN
        RAISE EXCEPTION 'permission denied for column "%" of table %', NEW.target_column, NEW.source
            USING ERRCODE = '42501',
                  DETAIL = 'Who records which vectors a column holds must be allowed to update it.';
    END IF;
    -- Its vectors tell of the text, and prepare_rollout() makes them of it with the rights of the owner.
    IF NEW.source_column IS NOT NULL AND NOT coalesce(has_column_privilege(NEW.source, NEW.source_column, 'SELECT'), false) THEN
        RAISE EXCEPTION 'permission denied for column "%" of table %', NEW.source_column, NEW.source USING ERRCODE = '42501';
    END IF;
    -- It is renamed and dropped in the name of the owner.
    IF NEW.shadow_of IS NOT NULL AND NOT coalesce(
        (SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class AS c WHERE c.oid = NEW.source), false
    ) THEN
        RAISE EXCEPTION 'must be owner of table %', NEW.source USING ERRCODE = '42501';
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION pgml_tune._check_tracked_column() IS 'Lets only those record a column who may update it, and only the owner of its table what takes over its name.';
CREATE TRIGGER tracked_column_privilege BEFORE INSERT OR UPDATE ON pgml_tune.tracked_column
    FOR EACH ROW EXECUTE FUNCTION pgml_tune._check_tracked_column();

