-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pgml_tune" to load this file. \quit

-- Whoever may create objects in the target schema could put his own embed() in front of ours, and so could its owner.
DO $guard$
DECLARE
    v_owner oid;
    v_acl aclitem[];
    v_others text;
BEGIN
    SELECT n.nspowner, n.nspacl INTO STRICT v_owner, v_acl
    FROM pg_catalog.pg_namespace AS n
    WHERE pg_catalog.quote_ident(n.nspname) OPERATOR(pg_catalog.=) '@extschema@';

    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_roles AS r
        WHERE r.oid OPERATOR(pg_catalog.=) v_owner
          AND (
              r.rolsuper
              OR r.rolname OPERATOR(pg_catalog.=) current_user
              OR r.rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
              OR r.oid OPERATOR(pg_catalog.=) (
                  SELECT d.datdba FROM pg_catalog.pg_database AS d
                  WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
              )
          )
    ) THEN
        RAISE EXCEPTION 'schema % is owned by a role that could replace functions of pgml_tune', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = pg_catalog.format('Its owner is %s.', pg_catalog.pg_get_userbyid(v_owner)),
                  HINT = pg_catalog.format('ALTER SCHEMA %s OWNER TO %I', '@extschema@', current_user);
    END IF;

    SELECT pg_catalog.string_agg(
        DISTINCT CASE
            WHEN a.grantee OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN 'PUBLIC'
            ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
        END, ', '
    ) INTO v_others
    FROM pg_catalog.aclexplode(v_acl) AS a
    WHERE a.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
      AND a.grantee OPERATOR(pg_catalog.<>) v_owner
      AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_roles AS r
          WHERE r.oid OPERATOR(pg_catalog.=) a.grantee AND (r.rolsuper OR r.rolname OPERATOR(pg_catalog.=) current_user)
      );
    IF v_others IS NOT NULL THEN
        RAISE EXCEPTION 'others may create objects in schema %', '@extschema@'
            USING ERRCODE = '42501',
                  DETAIL = 'They could put functions of their own in front of those of pgml_tune.',
                  HINT = pg_catalog.format('REVOKE CREATE ON SCHEMA %s FROM %s', '@extschema@', v_others);
    END IF;
END
$guard$;

