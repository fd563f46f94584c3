"""Words of SQL that tell nothing of a database."""

KEYWORDS = frozenset(
    # Reserved: no table has such a name unless it is quoted.
    "all analyse analyze and any array as asc asymmetric both case cast check collate column constraint create"
    " current_catalog current_date current_role current_time current_timestamp current_user default deferrable"
    " desc distinct do else end except false fetch for foreign from grant group having in initially intersect"
    " into lateral leading limit localtime localtimestamp not null offset on only or order placing primary"
    " references returning select session_user some symmetric system_user table then to trailing true union"
    " unique user using variadic when where window with authorization binary collation concurrently cross"
    " current_schema freeze full ilike inner is isnull join left like natural notnull outer overlaps right"
    " similar tablesample verbose"
    # Of statements that a model might write, and of clauses of a SELECT.
    " alter begin commit copy delete drop execute explain grant insert merge revoke rollback set truncate"
    " update values between by cube current escape exists extract filter first following grouping groups"
    " interval last materialized next no nulls of ordinality others over partition preceding range recursive"
    " respect rollup row rows sets ties unbounded within without zone at time"
    # Types.
    " bigint bit boolean bool bytea char character date decimal double float float4 float8 int int2 int4 int8"
    " integer json jsonb numeric precision real smallint text timestamp timestamptz varchar varying"
    # Functions.
    " abs avg bool_and bool_or cardinality ceil ceiling char_length coalesce concat concat_ws corr count"
    " date_part date_trunc dense_rank exp first_value floor greatest initcap lag last_value lead least length"
    " ln log lower lpad ltrim max min mod nullif percent_rank percentile_cont percentile_disc position power"
    " rank regexp_replace repeat replace reverse round row_number rpad rtrim sign split_part sqrt stddev"
    " string_agg array_agg strpos substr substring sum to_char to_date to_number to_timestamp translate trim"
    " trunc upper variance century day decade dow doy epoch hour isodow isoyear millennium minute month quarter"
    " second week year".split()
)
