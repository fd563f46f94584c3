"""SQL as text: cleaned of what models write round it, and without the names that somebody may not see."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable
from functools import lru_cache

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pgml_tune.service.schema import Schema
from pgml_tune.service.sql_words import KEYWORDS

LONGEST_SQL = 20_000  # characters that are parsed here
_HIDDEN = "?"
_DIALECTS = ("postgres", "mysql", "sqlite")  # how models quote: as they should, `so` or [so]
_FENCE = re.compile(r"```(?:\w+\n|\s)?(.*?)(?:```|\Z)", re.DOTALL)
_BEGIN = re.compile(r"\b(?:select|with)\b", re.IGNORECASE)
_PIECE = re.compile(
    r"""(?P<text>'(?:[^']|'')*'?) | (?P<quoted>"(?:[^"]|"")*"?) | (?P<dollars>\$\w*\$.*?(?:\$\w*\$|\Z))
    | (?P<word>[^\W\d][\w$]*)""",
    re.VERBOSE | re.DOTALL,
)
_SHORT_ALIAS = re.compile(r"[a-z]\d{0,2}\Z")
_WORD = re.compile(r"\w+")

# What it cannot parse it would write to the log of the server, and with it texts of users.
logging.getLogger("sqlglot").disabled = True


def tidy(output: str) -> str:
    """The statement in what a model has written, in PostgreSQL's dialect if it can be read, without comments."""
    fenced = _FENCE.search(output)
    text = (fenced[1] if fenced else output).strip()
    if not text.startswith("(") and (begin := _BEGIN.search(text)):
        text = text[begin.start() :]
    text = text.rstrip("; \t\r\n")
    for dialect in _DIALECTS:
        statement = parsed(text, dialect)
        if isinstance(statement, exp.Query):
            written = _written(statement)
            # Something that is lost on the way would be another question.
            return text if written is None or "\0" in written else written
    return text


def parsed(text: str, dialect: str = "postgres") -> exp.Expression | None:
    """The one statement that a text is; None where it is something else or cannot be read."""
    if len(text) > LONGEST_SQL:
        return None
    try:
        statements = [statement for statement in sqlglot.parse(text, read=dialect) if statement is not None]
    except (SqlglotError, RecursionError, ValueError):
        return None
    return statements[0] if len(statements) == 1 and isinstance(statements[0], exp.Expression) else None


def mask(sql: str, schema: Schema, said: Collection[str]) -> str:
    """A refused statement as its asker may see it: names that he may not read, and texts he has not said, are `?`.

    `said` is his question and the values it names. A name that the statement makes up is shown only if it cannot be
    that of a table.
    """
    known = _known_words(schema) | {word for text in said for word in _WORD.findall(text.lower())}
    spoken = " ".join(said).lower()

    def shown(piece: re.Match[str]) -> str:
        kind, text = piece.lastgroup, piece[0]
        if kind == "word":
            lower = text.lower()
            return text if lower in known or lower in KEYWORDS or _SHORT_ALIAS.match(lower) else _HIDDEN
        if kind == "quoted":
            name = text.strip('"').lower()
            return text if name in known or known.issuperset(_WORD.findall(name)) else _HIDDEN
        if kind == "text":
            return text if text.strip("'%").lower() in spoken else f"'{_HIDDEN}'"
        return _HIDDEN

    return _PIECE.sub(shown, sql)


def mask_reason(reason: str, schema: Schema, said: Collection[str]) -> str:
    """Why a statement is refused, without what stands in quotes there unless mask() would show it."""
    return re.sub(
        r'"[^"]*"|(?<=function )[\w.]+(?=\()', lambda quoted: mask(quoted[0], schema, said), reason, flags=re.IGNORECASE
    )


def names_unknown(sql: str, schema: Schema) -> bool:
    """Whether a statement names a table or a column that is not in the schema, as far as its text tells."""
    statement = parsed(sql)
    if statement is None:
        return False
    tables = {parts(table.name): {parts(column.name)[-1] for column in table.columns} for table in schema.tables}
    queries = {name_of(query.args["alias"].this) for query in statement.find_all(exp.CTE)}
    made_up = {name_of(alias.args["alias"]) for alias in statement.find_all(exp.Alias)}
    for alias in statement.find_all(exp.TableAlias):
        made_up |= {name_of(name) for name in (alias.this, *alias.columns) if name is not None}
    columns: dict[str, set[str]] = {}  # of the tables that the statement names, by what it calls them
    for table in statement.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier):
            named = tuple(name_of(part) for part in table.parts if isinstance(part, exp.Identifier))
            if named in tables:
                renamed = table.args.get("alias")
                called = named[-1] if renamed is None or renamed.this is None else name_of(renamed.this)
                columns.setdefault(called, set()).update(tables[named])
            elif len(named) > 1 or named[0] not in queries:
                return True
    known = made_up | queries | columns.keys() | set().union(*columns.values())
    for column in statement.find_all(exp.Column):
        owner = column.args.get("table")
        allowed = known if owner is None else columns.get(name_of(owner), known) | made_up
        if isinstance(column.this, exp.Identifier) and name_of(column.this) not in allowed:
            return True
    return any(kind.this == exp.DataType.Type.USERDEFINED for kind in statement.find_all(exp.DataType))


def words(sql: str) -> list[str]:
    """The different words outside of texts and quotes, in lower case: what could name a function of the server."""
    pieces = (piece for piece in _PIECE.finditer(sql[:LONGEST_SQL]) if piece.lastgroup == "word")
    return list(dict.fromkeys(piece[0].lower() for piece in pieces))


@lru_cache(maxsize=1024)
def parts(name: str) -> tuple[str, ...]:
    """The parts of a name as it is written in a statement: `public."My Table"` is public and My Table."""
    return tuple(
        quoted.replace('""', '"') if quoted else plain.lower()
        for quoted, plain in re.findall(r'"((?:[^"]|"")+)"|([^."]+)', name)
    )


def name_of(identifier: exp.Expression) -> str:
    """A name as the server understands it."""
    return identifier.name if identifier.args.get("quoted") else identifier.name.lower()


def _written(statement: exp.Expression) -> str | None:
    try:
        return statement.sql(dialect="postgres", comments=False)
    except (SqlglotError, RecursionError, ValueError):
        return None


def _known_words(schema: Schema) -> set[str]:
    return {part.lower() for name in _names(schema) for part in parts(name)}


def _names(schema: Schema) -> Iterable[str]:
    for table in schema.tables:
        yield table.name
        yield from (column.name for column in table.columns)
