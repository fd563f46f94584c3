"""Statements of a job that runs SQL with the rights of its caller."""

from __future__ import annotations

from pgml_tune.db import Database

# It lasts as long as the session. The search path that it sets ends with the transaction, which is one call.
_CREATE = """
CREATE FUNCTION pg_temp._as_caller(query text, search_path text, max_rows integer) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER
AS $$
BEGIN
    PERFORM pg_catalog.set_config('search_path', search_path, true);
    RETURN pgml_tune._try_sql(query, max_rows);
END
$$
"""
_OWNER = """
SELECT pg_catalog.format('ALTER FUNCTION pg_temp._as_caller(text, text, integer) OWNER TO %I', $1::text) AS statement
"""
_RUN = "SELECT pg_temp._as_caller($1::text, $2::text, $3::integer)::text AS answer"


def prepare(db: Database, role: str) -> None:
    """Make the function of a session that runs statements as a role."""
    db.fetch(_CREATE)
    db.fetch(db.fetch(_OWNER, role)[0]["statement"])


def run(db: Database, statement: str, search_path: str, max_rows: int) -> str:
    """What _try_sql() says of a statement, as the role; JSON."""
    return str(db.fetch(_RUN, statement, search_path, max_rows)[0]["answer"])
