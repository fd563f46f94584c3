"""Statements on the server and the installation."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Database

_FACTS = """
SELECT pg_catalog.current_setting('server_version_num')::int AS server_number,
       pg_catalog.current_setting('server_version') AS server_version,
       e.extversion AS extension_version,
       n.nspname AS extension_schema,
       coalesce((SELECT v.extversion FROM pg_catalog.pg_extension AS v WHERE v.extname = 'vector'), '0')
           AS vector_version,
       (
           SELECT pg_catalog.string_agg(DISTINCT
               CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee))
               END, ', ')
           FROM pg_catalog.aclexplode(n.nspacl) AS a
           WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
       ) AS schema_creators,
       (SELECT s.model FROM pgml_tune.serving AS s WHERE s.default_of = 'embedding') AS default_model
FROM pg_catalog.pg_extension AS e
JOIN pg_catalog.pg_namespace AS n ON n.oid = e.extnamespace
WHERE e.extname = 'pgml_tune'
"""



@dataclass(frozen=True, slots=True)
class ServerFacts:
    """Versions, and who could interfere."""

    server_number: int
    server_version: str
    extension_version: str
    extension_schema: str
    vector_version: str
    schema_creators: str | None
    default_model: str | None


def server_facts(db: Database) -> ServerFacts:
    """What the server says of itself and of the extension."""
    return ServerFacts(*db.fetch(_FACTS)[0].values())
