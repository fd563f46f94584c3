"""Calls written into the spool as the inference functions do, without a model."""

from typing import Any

import psycopg

# Writes calls with the identifiers `first` .. `first + count - 1`; a call that only begins has no end.
_WRITER = """
CREATE FUNCTION write_calls(first bigint, count integer, has_ended boolean DEFAULT true, text_ text DEFAULT NULL)
RETURNS void LANGUAGE plpython3u STABLE AS $python$
from pgml_tune.backend import database
from pgml_tune.records import Exposure
from pgml_tune.service.call_log import CallLog, CallRecord
from pgml_tune.settings import read_paths

log = GD.get("log") or GD.setdefault("log", CallLog(read_paths().spool_dir))
for call_id in range(first, first + count):
    record = CallRecord(
        call_id=call_id, task="embed", model="minilm", version="v1", texts=1, input_bytes=10, output_count=384,
        exposure=Exposure(1, 1, 2000, call_id, "candidate"), cache="miss", latency_ms=12.5, sample_rate=1.0,
        tokens=3, unknown_tokens=0, input_text=text_,
    )
    if has_ended:
        log.end(database, record)
    else:
        log.begin(database, record)
$python$
"""


def make_writer(db: psycopg.Connection[Any]) -> None:
    """Make function write_calls() in the database of a test."""
    db.execute(_WRITER)
