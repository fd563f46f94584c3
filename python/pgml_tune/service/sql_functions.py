"""Which functions SQL of a model may call: those that only compute."""

from __future__ import annotations

from pgml_tune.store.sql_check import Function

# Of those that PostgreSQL says never change anything: SQL in a text, files of dictionaries, and work without an end
# that no cancel can stop.
_DENIED = frozenset(
    """
    ts_rewrite ts_headline ts_rank_cd normalize is_normalized xpath xpath_exists xmlexists xmlvalidate xmlcomment
    xmlconcat2 xmlagg xml_is_well_formed_content xml_is_well_formed_document postgresql_fdw_validator
    satisfies_hash_partition aclinsert aclremove acldefault makeaclitem pg_partition_root
    """.split()
)
# Of those whose answer depends on the session or the day.
_STABLE = frozenset(
    """
    age concat concat_ws current_date date date_part date_trunc extract enum_first enum_last enum_range format
    generate_series in_range interval_pl_timestamptz json_agg json_build_array json_build_object json_object_agg
    jsonb_agg jsonb_build_array jsonb_build_object jsonb_object_agg length make_timestamptz money now numeric
    array_to_json array_to_string row_to_json to_json to_jsonb overlaps quote_literal quote_nullable
    statement_timestamp transaction_timestamp time timetz timestamp timestamptz timezone to_char to_date to_number
    to_timestamp to_tsquery to_tsvector plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_match_tq ts_match_tt
    timestamptz_mi_interval timestamptz_pl_interval anytextcat textanycat pg_typeof
    """.split()
)
_COMPARISONS = tuple(
    f"{a}_{operator}_{b}"
    for operator in ("eq", "ne", "lt", "le", "gt", "ge", "cmp")
    for a, b in (
        ("date", "timestamptz"), ("timestamptz", "date"), ("timestamp", "timestamptz"), ("timestamptz", "timestamp"),
    )
)  # fmt: skip
_SAMPLING = frozenset(("bernoulli", "system"))
_EXTENSIONS = frozenset(
    "citext cube earthdistance fuzzystrmatch hstore intarray isn ltree pg_trgm seg unaccent vector".split()
)


def is_allowed(function: Function, extra: frozenset[str]) -> bool:
    """Whether SQL of a model may call a function; `extra`: those that an administrator has named."""
    if function.kind == "p":
        return False
    if f"{function.schema_name}.{function.name}({','.join(function.argument_types)})" in extra:
        return True
    if function.is_builtin:
        if function.volatility == "i":
            return function.name not in _DENIED
        return function.volatility == "s" and (function.name in _STABLE or function.name in _COMPARISONS)
    return function.extension in _EXTENSIONS and function.volatility == "i"
