CREATE OR REPLACE FUNCTION @extschema@.embed(input text, model text DEFAULT NULL, kind text DEFAULT 'passage')
RETURNS vector
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed(input, model, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed(text, text, text) IS
    'Embedding of a text under a model (name or name@version; NULL: the default) as a vector of its dimensions; kind is passage or query.';

CREATE OR REPLACE FUNCTION @extschema@.embed(inputs text[], model text DEFAULT NULL, kind text DEFAULT 'passage')
RETURNS vector[]
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_many(inputs, model, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed(text[], text, text) IS
    'Embeddings of many texts, computed in batches: same order and length as the input, NULL for NULL.';

CREATE OR REPLACE FUNCTION pgml_tune._embed_passages(
    texts text[], model text, chunk_tokens integer, chunk_overlap integer
)
RETURNS TABLE (text_no integer, chunk_no integer, embedding vector)
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000 ROWS 1000  -- not STRICT: no chunk_tokens, one chunk per text
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_passages(texts, model, chunk_tokens, chunk_overlap)
$python$;
COMMENT ON FUNCTION pgml_tune._embed_passages(text[], text, integer, integer) IS
    'Embeddings of texts in chunks of at most so many tokens, numbered from 1 in each text; NULL for chunk_tokens is one chunk per text.';

CREATE OR REPLACE FUNCTION @extschema@.embed_pinned(input text, model text, version text, kind text DEFAULT 'passage')
RETURNS vector
LANGUAGE plpython3u IMMUTABLE STRICT PARALLEL SAFE COST 10000
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_pinned(input, model, version, kind)
$python$;
COMMENT ON FUNCTION @extschema@.embed_pinned(text, text, text, text) IS
    'Embedding of a text under one immutable version; reads no table, so it may stand in generated columns and index expressions.';

CREATE OR REPLACE FUNCTION pgml_tune._embed_question(query text, model text, version text, route jsonb)
RETURNS vector
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 10000  -- not STRICT: a route that is missing is an error
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.embed_question(query, model, version, route)
$python$;
COMMENT ON FUNCTION pgml_tune._embed_question(text, text, text, jsonb) IS
    'Begins a search: the vector of its question, of kind query, under one version; NULL where the candidate of a rollout failed, and the serving version is to be asked with is_fallback in the route.';

CREATE OR REPLACE FUNCTION pgml_tune._end_search(result_count integer)
RETURNS void
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 100
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.end_search(result_count)
$python$;
COMMENT ON FUNCTION pgml_tune._end_search(integer) IS 'Ends the search that _embed_question() has begun, which found so many rows.';

CREATE OR REPLACE FUNCTION @extschema@.semantic_similarity(a text, b text, model text DEFAULT NULL)
RETURNS double precision
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 20000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.semantic_similarity(a, b, model)
$python$;
COMMENT ON FUNCTION @extschema@.semantic_similarity(text, text, text) IS
    'Cosine of the embeddings of two texts, from -1 to 1; higher means closer in meaning.';

CREATE OR REPLACE FUNCTION @extschema@.token_count(input text, model text DEFAULT NULL)
RETURNS integer
LANGUAGE plpython3u STABLE PARALLEL UNSAFE COST 1000  -- not STRICT: model may be NULL
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.token_count(input, model)
$python$;
COMMENT ON FUNCTION @extschema@.token_count(text, text) IS
    'Tokens of a text for a model, its special tokens included and nothing cut; beyond max_tokens of the version embed() cuts.';

CREATE OR REPLACE FUNCTION @extschema@.last_call_id()
RETURNS bigint
LANGUAGE plpython3u VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $python$
from pgml_tune.backend import embedding
return embedding.last_call_id()
$python$;
COMMENT ON FUNCTION @extschema@.last_call_id() IS
    'Identifier of the last inference call of this session; NULL before the first.';

