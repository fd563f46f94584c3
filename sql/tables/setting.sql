CREATE TABLE pgml_tune.setting (
    name       text PRIMARY KEY,
    value      text NOT NULL,
    changed_by text NOT NULL DEFAULT session_user,
    changed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE pgml_tune.setting IS 'Settings that differ from their default; written by configure().';
SELECT pg_catalog.pg_extension_config_dump('pgml_tune.setting', '');

