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
       (SELECT s.model FROM pgml_tune.serving AS s WHERE s.default_of = 'embedding') AS default_model,
       (
           -- A call with arguments that fit these better would run them.
           SELECT pg_catalog.string_agg(
               pg_catalog.format(
                   '%I.%I(%s)', o.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)
               ),
               ', ' ORDER BY p.oid
           )
           FROM pg_catalog.pg_proc AS p
           JOIN pg_catalog.pg_namespace AS o ON o.oid = p.pronamespace
           WHERE NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend AS d
               WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.deptype = 'e'
           ) AND EXISTS (
               SELECT FROM pg_catalog.pg_proc AS f
               JOIN pg_catalog.pg_depend AS d
                   ON d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = f.oid AND d.deptype = 'e'
               WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = e.oid
                   AND f.pronamespace = p.pronamespace AND f.proname = p.proname
           )
       ) AS namesakes
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
    namesakes: str | None


def server_facts(db: Database) -> ServerFacts:
    """What the server says of itself and of the extension."""
    return ServerFacts(*db.fetch(_FACTS)[0].values())
