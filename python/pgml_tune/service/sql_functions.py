"""Which functions SQL of a model may call: those that only compute."""

from __future__ import annotations

import re

from pgml_tune.db import Database
from pgml_tune.store import sql_check as store
from pgml_tune.store.sql_check import Function

_FIRST_OF_USERS = 16384  # the number of what somebody has made after the server's own
# Of those that PostgreSQL says never change anything: SQL in a text, dictionaries, rights, XML, and work without an end
# that no cancel can stop.
_WITHOUT_END = ("jsonb_path_",)  # beginnings of names
_DENIED = frozenset(
    """
    ts_rewrite ts_headline ts_rank ts_rank_cd ts_match_tt normalize is_normalized xpath xpath_exists xmlexists
    xmlvalidate xmlcomment xmlconcat2 xmlagg xml_is_well_formed_content xml_is_well_formed_document
    postgresql_fdw_validator
    satisfies_hash_partition aclinsert aclremove acldefault makeaclitem aclcontains pg_partition_root
    """.split()
)
_DENIED_TYPES = frozenset(("path", "polygon", "xml", "cstring", "internal"))  # of arguments
# Of those whose answer depends on the session, the day, or how types are defined.
_STABLE = frozenset(
    """
    age concat concat_ws date date_part date_trunc enum_first enum_last enum_range extract format generate_series
    in_range interval_pl_timestamptz json_agg json_build_array json_build_object json_object_agg jsonb_agg
    jsonb_build_array jsonb_build_object jsonb_object_agg json_populate_record json_populate_recordset json_to_record
    json_to_recordset jsonb_populate_record jsonb_populate_recordset jsonb_to_record jsonb_to_recordset length
    make_timestamptz money now numeric array_to_json array_to_string row_to_json to_json to_jsonb overlaps
    quote_literal quote_nullable statement_timestamp transaction_timestamp time timetz timestamp timestamptz timezone
    to_char to_date to_number to_timestamp to_tsquery to_tsvector plainto_tsquery phraseto_tsquery
    websearch_to_tsquery ts_match_tq timestamptz_mi_interval timestamptz_pl_interval anytextcat textanycat
    current_database current_schema
    """.split()
)
# Also of those in views and in policies of rows, which their owners have written.
_STABLE_INSIDE = frozenset(
    """
    current_setting current_user session_user pg_has_role row_security_active has_table_privilege
    has_column_privilege has_any_column_privilege has_schema_privilege has_database_privilege
    """.split()
)
_COMPARISONS = frozenset(
    f"{a}_{operator}_{b}"
    for operator in ("eq", "ne", "lt", "le", "gt", "ge", "cmp")
    for a, b in (
        ("date", "timestamptz"), ("timestamptz", "date"), ("timestamp", "timestamptz"), ("timestamptz", "timestamp"),
    )
)  # fmt: skip
_SAMPLING = frozenset(("bernoulli", "system"))  # tablesample methods, which no query can call by themselves
_EXTENSIONS = frozenset(
    "citext cube earthdistance fuzzystrmatch hstore intarray isn ltree pg_trgm seg unaccent vector".split()
)
_NAMED = re.compile(r"[\w.]+\([^)]*\)")


def named_functions(setting: str) -> frozenset[str]:
    """The functions of the setting sql_functions."""
    return frozenset(re.sub(r"\s*([,()])\s*", r"\1", text) for text in _NAMED.findall(setting))


def is_allowed(function: Function, extra: frozenset[str], is_inside: bool = False) -> bool:
    """Whether SQL of a model may call a function, or a view or policy; `extra` are those that a superuser has named."""
    if function.kind == "p":
        return False
    if f"{function.schema_name}.{function.name}({','.join(function.argument_types)})" in extra:
        return True
    if function.name in _SAMPLING and function.is_builtin and function.argument_types == ["internal"]:
        return True
    if function.name.startswith(_WITHOUT_END) or not _DENIED_TYPES.isdisjoint(function.argument_types):
        return False
    if function.is_builtin:
        if function.volatility == "i":
            return function.name not in _DENIED
        names = (_STABLE, _COMPARISONS, _STABLE_INSIDE) if is_inside else (_STABLE, _COMPARISONS)
        return function.volatility == "s" and any(function.name in some for some in names)
    return function.extension in _EXTENSIONS and function.volatility in "is"


class Functions:
    """What functions and operators are; those of the server itself are asked for once in a session."""

    def __init__(self) -> None:
        self._functions: dict[int, Function] = {}
        self._operators: dict[int, Function] = {}

    def read(
        self, db: Database, function_ids: set[int], operator_ids: set[int]
    ) -> tuple[dict[int, Function], dict[int, Function]]:
        """By number, what these functions are and what these operators call."""
        functions = {one: self._functions[one] for one in function_ids if one in self._functions}
        operators = {one: self._operators[one] for one in operator_ids if one in self._operators}
        new_functions, new_operators = function_ids - functions.keys(), operator_ids - operators.keys()
        if new_functions or new_operators:
            for function in store.functions(db, sorted(new_functions), sorted(new_operators)):
                number, found, kept = function.function_id, functions, self._functions
                if function.operator_id is not None:
                    number, found, kept = function.operator_id, operators, self._operators
                found[number] = function
                if function.is_builtin and number < _FIRST_OF_USERS:
                    kept[number] = function
        return functions, operators


functions = Functions()
