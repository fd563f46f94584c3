-- Both name the tables of the caller as he does, so they run under his search_path; nothing of ours is found through it.

CREATE OR REPLACE FUNCTION @extschema@.text_to_sql(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL
)
RETURNS text
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000  -- not STRICT: model and tables may be NULL
AS $python$
from pgml_tune.backend import text_to_sql
return text_to_sql.text_to_sql(question, model, tables)
$python$;
COMMENT ON FUNCTION @extschema@.text_to_sql(text, text, regclass[]) IS
    'An SQL query that answers a question about the tables the caller may read, checked by the server but not run; NULL for NULL.';

CREATE OR REPLACE FUNCTION @extschema@.text_to_sql_candidates(
    question text, model text DEFAULT NULL, tables regclass[] DEFAULT NULL, k integer DEFAULT 4
)
RETURNS TABLE (rank integer, sql text, score double precision, valid boolean, error text, cost double precision)
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE COST 1000000 ROWS 4  -- not STRICT: model and tables may be NULL
AS $python$
from pgml_tune.backend import text_to_sql
return text_to_sql.candidates(question, model, tables, k)
$python$;
COMMENT ON FUNCTION @extschema@.text_to_sql_candidates(text, text, regclass[], integer) IS
    'All candidates for text_to_sql(), in the order in which it tries them: with the score of the model, whether the server takes them, why not, and the cost that its planner expects; no rows for NULL.';
