CREATE OR REPLACE FUNCTION @extschema@.classify(input text, model text, top_k integer DEFAULT 1)
RETURNS TABLE (label text, score double precision)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000 ROWS 1  -- not STRICT: a NULL for top_k is an error
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import classification
return classification.classify(input, model, top_k)
$python$;
COMMENT ON FUNCTION @extschema@.classify(text, text, integer) IS
    'The top_k most probable labels of a text under a classification model (name or name@version), with their probabilities, the greatest first; no rows for NULL.';

