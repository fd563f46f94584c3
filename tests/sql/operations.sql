-- Settings, doctor and maintenance.
SELECT name, value, default_value, valid FROM pgml_tune.settings ORDER BY name;
SELECT configure('threads', '2');
SELECT value FROM pgml_tune.settings WHERE name = 'threads';
SELECT embed('on two cores') IS NOT NULL AS embedded;
SELECT configure('threads', NULL);
SELECT value FROM pgml_tune.settings WHERE name = 'threads';

\set VERBOSITY sqlstate
SELECT configure('threads', '0');
SELECT configure('threads', 'many');
SELECT configure('cache_scope', 'everybody');
SELECT configure('model_root', '/tmp');
SELECT configure(NULL, '1');
\set VERBOSITY default

SELECT check_name, status FROM doctor() WHERE status = 'fail';
SELECT check_name, status FROM doctor() WHERE check_name LIKE 'model %' ORDER BY check_name;
SELECT count(*) > 10 AS checks, bool_and(fix <> '' OR status = 'ok') AS each_problem_has_a_fix FROM doctor();

-- Every public object says what it gives.
SELECT d.objid::regprocedure AS without_comment
FROM pg_depend AS d
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgml_tune')
  AND d.classid = 'pg_proc'::regclass AND obj_description(d.objid, 'pg_proc') IS NULL
  AND d.objid::regproc::text !~ '^pgml_tune\._(freeze|refuse)';
SELECT d.objid::regclass AS without_comment
FROM pg_depend AS d JOIN pg_class AS c ON c.oid = d.objid AND c.relkind IN ('r', 'v')
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgml_tune')
  AND d.classid = 'pg_class'::regclass AND obj_description(d.objid, 'pg_class') IS NULL;
