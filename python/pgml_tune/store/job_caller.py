"""Statements of a job that runs SQL with the rights of its caller."""

from __future__ import annotations

from pgml_tune.db import Database

# Whatever the SQL has left behind in the session, every name in this is found where it belongs.
_RUN = """
SELECT pgml_tune._try_sql_as(
    $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.int4
) AS answer
"""
_MAY_ACT = """
SELECT (SELECT r.rolsuper FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) current_user) AS may_act,
       EXISTS (
           SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name
       ) AS exists
"""


def may_act(db: Database, role: str) -> tuple[bool, bool]:
    """Whether this session may act as others, and whether the role exists."""
    row = db.fetch(_MAY_ACT, role)[0]
    return row["may_act"], row["exists"]


def run(db: Database, role: str, statement: str, search_path: str, max_rows: int) -> str:
    """What _try_sql() says of a statement, as the role; JSON."""
    return str(db.fetch(_RUN, role, search_path, statement, max_rows)[0]["answer"])
