"""Queries for what a job must know of the tables that its SQL reads: a snapshot, made with the rights of the caller.

They run under the search path of the caller, so all of ours is qualified.
"""

from __future__ import annotations

from collections.abc import Sequence

SCHEMA, VALUES = "schema", "values"  # parts of a job
SHAPE = "snapshot"
_MOST_VALUES = 200_000

_OWN_PATH = "SELECT pg_catalog.current_setting('search_path') AS path"
_PATHS = "SELECT DISTINCT q.place::pg_catalog.text AS path FROM (\n{}\n) AS q ({}) WHERE q.place IS NOT NULL"
_SCHEMA = """
SELECT p.path, s.name, s.comment, s.columns::pg_catalog.text AS columns, s.foreign_keys::pg_catalog.text AS foreign_keys
FROM (
{}
) AS p
CROSS JOIN LATERAL pgml_tune._schema_along(pgml_tune._schemas_of_path(p.path), NULL, NULL, true) AS s
"""
_VALUES = """
SELECT p.path, v.table_name, v.column_name, v.value
FROM (
{}
) AS p
CROSS JOIN LATERAL pgml_tune._values_along(pgml_tune._schemas_of_path(p.path), NULL, NULL, 10000, 'Infinity') AS v
LIMIT {}
"""


def snapshots(queries: Sequence[tuple[str, str | None]]) -> dict[str, str]:
    """The query of each part; `queries` are those of the caller, with the name of the column of search paths."""
    selects = [
        _OWN_PATH if column is None else _PATHS.format(query, "question, sql, place") for query, column in queries
    ]
    paths = "\nUNION\n".join(dict.fromkeys(selects))
    return {SCHEMA: _SCHEMA.format(paths), VALUES: _VALUES.format(paths, _MOST_VALUES)}
