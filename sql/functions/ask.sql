CREATE OR REPLACE FUNCTION pgml_tune._ask_hindrance()
RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN session_user <> current_user THEN 'The session belongs to another role, which the query could become again.'
        WHEN r.rolsuper THEN 'It is a superuser.'
        WHEN r.rolbypassrls THEN 'It bypasses row security.'
        WHEN EXISTS (
            SELECT FROM pg_roles AS m WHERE (m.rolsuper OR m.rolbypassrls) AND pg_has_role(r.oid, m.oid, 'MEMBER')
        ) THEN 'It may become a superuser, or a role that bypasses row security.'
        WHEN pg_has_role(r.oid, 'pg_read_server_files', 'MEMBER') OR pg_has_role(r.oid, 'pg_write_server_files', 'MEMBER')
            OR pg_has_role(r.oid, 'pg_execute_server_program', 'MEMBER')
            THEN 'It may read or write files of the server, or run programs there.'
    END
    FROM pg_roles AS r WHERE r.rolname = current_user
$$;
COMMENT ON FUNCTION pgml_tune._ask_hindrance() IS 'Why ask() does not run for the caller unless it is allowed; NULL if it does.';

-- It runs SQL whose names are found as the caller finds them, and with his rights; all of ours is qualified.
CREATE OR REPLACE FUNCTION @extschema@.ask(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL, max_rows integer DEFAULT 100
)
RETURNS SETOF jsonb
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 100  -- not STRICT: all but the question may be NULL
AS $python$
from pgml_tune.backend import ask
return ask.ask(question, model, tables, max_rows)
$python$;
COMMENT ON FUNCTION @extschema@.ask(text, text, regclass[], integer) IS
    'The rows that answer a question, each an object by column: what text_to_sql() writes, run as the caller where nothing can be written, within limits; no rows for NULL.';
