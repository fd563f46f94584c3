-- Functions are granted to PUBLIC when they are made, and default privileges may grant more; nothing of ours is granted to
-- anybody but its owner. Roles get their rights by grant_usage() and its kin.
DO $$
DECLARE
    v_statement text;
BEGIN
    FOR v_statement IN
        WITH member AS (
            SELECT d.classid, d.objid
            FROM pg_catalog.pg_depend AS d
            JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pgml_tune'
            WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.deptype = 'e'
        ), granted AS (
            SELECT 'ROUTINE ' || p.oid::regprocedure AS object, p.proowner AS owner,
                   coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
            FROM pg_catalog.pg_proc AS p
            JOIN member AS m ON m.objid = p.oid AND m.classid = 'pg_catalog.pg_proc'::regclass
            UNION ALL
            SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || c.oid::regclass, c.relowner, c.relacl
            FROM pg_catalog.pg_class AS c
            JOIN member AS m ON m.objid = c.oid AND m.classid = 'pg_catalog.pg_class'::regclass
            UNION ALL
            SELECT 'SCHEMA ' || n.nspname, n.nspowner, n.nspacl
            FROM pg_catalog.pg_namespace AS n WHERE n.nspname IN ('pgml_tune', 'pgml_tune_scratch')
        )
        SELECT DISTINCT pg_catalog.format('REVOKE ALL ON %s FROM %s', g.object,
            CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
        FROM granted AS g, LATERAL pg_catalog.aclexplode(g.acl) AS a
        WHERE a.grantee <> g.owner
    LOOP
        EXECUTE v_statement;
    END LOOP;
END
$$;
