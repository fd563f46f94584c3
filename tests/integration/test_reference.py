"""docs/reference.md and the catalog hold the same objects."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
REFERENCE = (CHECKOUT / "docs" / "reference.md").read_text()
HEADINGS = re.findall(r"^### `([^`]+)`$", REFERENCE, re.MULTILINE)
ROUTINES = """
SELECT p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
FROM pg_depend AS d
JOIN pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'pgml_tune' AND d.refclassid = 'pg_extension'::regclass
JOIN pg_proc AS p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
WHERE p.pronamespace = e.extnamespace
"""
VIEWS = """
SELECT c.relname, array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
WHERE c.relnamespace = 'pgml_tune'::regnamespace AND c.relkind = 'v' AND c.relname NOT LIKE '\\_%'
GROUP BY c.relname
"""


def as_heading(name, arguments, result):
    types = r"jsonb|regclass\[\]|regrole|interval|double precision|(text|integer|bigint)(\[\])?"
    plain = re.sub(rf"::({types})|\b(IN|OUT) ", "", arguments)
    plain = plain.replace(" DEFAULT ", " = ")
    return f"{name}({plain})" + (f" -> {result}" if result else "")


def test_the_reference_has_exactly_the_public_routines_with_their_signatures(db):
    catalog = {as_heading(*row) for row in db.execute(ROUTINES).fetchall()}
    documented = {heading for heading in HEADINGS if not heading.startswith("pgml_tune.")}
    assert documented == {re.sub(r"^doctor\(.*?\) ->", "doctor() ->", heading) for heading in catalog}


def test_the_reference_has_exactly_the_views_with_all_their_columns(db):
    views = {f"pgml_tune.{name}": columns for name, columns in db.execute(VIEWS).fetchall()}
    assert {heading for heading in HEADINGS if heading.startswith("pgml_tune.")} == set(views)
    for name, columns in views.items():
        section = REFERENCE.split(f"### `{name}`\n")[1].split("\n#")[0]
        assert [column for column in columns if f"`{column}`" not in section] == [], name


def test_the_guard_of_the_installation_knows_every_public_name(db):
    listed = (CHECKOUT / "sql" / "guard.sql").read_text().split("ARRAY[")[1].split("]")[0]
    assert set(re.findall(r"'(\w+)'", listed)) == {name for name, _, _ in db.execute(ROUTINES).fetchall()}
