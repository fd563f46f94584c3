CREATE OR REPLACE FUNCTION pgml_tune._grant(role regrole, level text)
RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    v_role text := role::text;
    v_statement text;
BEGIN
    IF role IS NULL OR role = 0::regrole OR NOT EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = role::oid) THEN
        RAISE EXCEPTION 'there is no such role' USING ERRCODE = '42704', HINT = 'SELECT rolname FROM pg_roles';
    END IF;
    IF NOT EXISTS (
        SELECT FROM pg_extension AS e
        WHERE e.extname = 'pgml_tune' AND pg_has_role(current_user, e.extowner, 'USAGE')
    ) THEN
        RAISE EXCEPTION 'only the owner of extension "pgml_tune" may grant its use'
            USING ERRCODE = '42501', HINT = format('SET ROLE %s', (
                SELECT quote_ident(pg_get_userbyid(e.extowner)) FROM pg_extension AS e WHERE e.extname = 'pgml_tune'
            ));
    END IF;
    FOR v_statement IN
        SELECT format('GRANT %s ON %s TO %s', p.privilege, p.object, v_role)
        FROM pgml_tune._privilege AS p
        WHERE array_position('{usage,operate,admin}', p.level) <= array_position('{usage,operate,admin}', _grant.level)
           OR _grant.level = 'ask' AND p.level IN ('usage', 'ask')
    LOOP
        EXECUTE v_statement;
    END LOOP;
    -- Made since: with them embed() asks what a model serves.
    FOR v_statement IN
        SELECT format('GRANT EXECUTE ON FUNCTION %s TO %s', f.oid::regprocedure, v_role)
        FROM pg_proc AS f WHERE f.pronamespace = 'pgml_tune'::regnamespace AND f.proname ~ '^_serving_[0-9]+$'
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pgml_tune._grant(regrole, text) IS 'Grants a role all that a level, and the levels below it, needs.';

CREATE OR REPLACE FUNCTION @extschema@.grant_usage(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'usage') $$;
COMMENT ON FUNCTION @extschema@.grant_usage(regrole) IS
    'Lets a role embed, classify and search texts and read the registry, and nothing else; call it as owner of the extension.';

CREATE OR REPLACE FUNCTION @extschema@.grant_operate(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'operate') $$;
COMMENT ON FUNCTION @extschema@.grant_operate(regrole) IS
    'Lets a role do what grant_usage() gives, keep its tables embedded, train and measure models, read the statistics and run maintain().';

CREATE OR REPLACE FUNCTION @extschema@.grant_admin(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'admin') $$;
COMMENT ON FUNCTION @extschema@.grant_admin(regrole) IS
    'Lets a role do what grant_operate() gives, import, register and drop models, see and cancel all jobs, change settings, purge the cache and run doctor().';

CREATE OR REPLACE FUNCTION @extschema@.grant_ask(role regrole)
RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgml_tune._grant(role, 'ask') $$;
COMMENT ON FUNCTION @extschema@.grant_ask(regrole) IS
    'Lets a role do what grant_usage() gives, and ask(), which runs SQL that a model has written; no other level includes it.';
