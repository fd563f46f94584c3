-- Functions are granted to PUBLIC when they are made; nothing of ours is. Roles get their rights by grant_usage() and its kin.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT d.objid::regprocedure
        FROM pg_catalog.pg_depend AS d
        JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pgml_tune'
        WHERE d.classid = 'pg_catalog.pg_proc'::regclass
          AND d.refclassid = 'pg_catalog.pg_extension'::regclass
          AND d.deptype = 'e'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM PUBLIC', v_function);
    END LOOP;
END
$$;
REVOKE ALL ON SCHEMA pgml_tune FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pgml_tune FROM PUBLIC;
