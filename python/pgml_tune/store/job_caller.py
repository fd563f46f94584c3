"""Statements of a job that runs SQL with the rights of its caller.

Code of users that this SQL may reach after all runs as the caller, in a session that is the worker's. So that it leaves
nothing there which the worker would run next: each call is a transaction of its own that is rolled back, with its
function made in it, and no statement is prepared under a name, because names of prepared statements outlive a rollback.
"""

from __future__ import annotations

from pgml_tune.db.connection import ConnectionDatabase

_CREATE = """
CREATE FUNCTION pg_temp._as_caller(query pg_catalog.text, path pg_catalog.text, max_rows pg_catalog.int4)
RETURNS pg_catalog.jsonb
LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', path, true);
    RETURN pgml_tune._try_sql(query, max_rows);
END
$$
"""
_OWNER = """
SELECT pg_catalog.format(
    'ALTER FUNCTION pg_temp._as_caller(pg_catalog.text, pg_catalog.text, pg_catalog.int4) OWNER TO %I',
    $1::pg_catalog.text
) AS statement
"""
_RUN = """
SELECT pg_temp._as_caller(
    $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.int4
)::pg_catalog.text AS answer
"""


def make(db: ConnectionDatabase, role: str) -> None:
    """Make the function that runs a statement as a role; it is gone with the transaction."""
    db.fetch(_CREATE)
    db.fetch(str(db.fetch(_OWNER, role)[0]["statement"]))


def run(db: ConnectionDatabase, statement: str, search_path: str, max_rows: int) -> str:
    """What _try_sql() says of a statement; JSON."""
    return str(db.fetch(_RUN, statement, search_path, max_rows)[0]["answer"])
