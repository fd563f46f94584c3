"""Statements on the log of calls and on how far the spool has been ingested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgml_tune.db import Database

# Not an advisory lock, which anybody could hold.
_TAKE_TURN = "SELECT 1 FROM pgml_tune.log_info FOR UPDATE SKIP LOCKED"
_LEDGER = "SELECT l.file, l.bytes, l.done_xid IS NOT NULL AS is_done FROM pgml_tune.log_file AS l"
# Done in a transaction that every snapshot shows; and an hour ago, unless the spool is short of room.
_REMOVABLE = """
SELECT l.file
FROM pgml_tune.log_file AS l
WHERE l.done_xid IS NOT NULL
    AND pg_catalog.age(l.done_xid::xid) > (
        SELECT coalesce(pg_catalog.max(pg_catalog.age(a.backend_xmin)), 0) FROM pg_catalog.pg_stat_activity AS a
    )
    AND ($1::boolean OR l.done_at < pg_catalog.now() - interval '1 hour')
"""
_OPEN_CALLS = "SELECT o.file, o.call_id, o.line FROM pgml_tune.open_call AS o"
# With what was thought of them before they came, by roles that may judge them.
_ADD_CALLS = """
WITH added AS (
    INSERT INTO pgml_tune.call_log SELECT c.* FROM pgml_tune._parse_calls($1::text) AS c RETURNING *
)
UPDATE pgml_tune.feedback AS f SET
    model = c.model,
    version = c.version,
    task = c.task,
    answer = c.answer,
    rollout_id = c.rollout_id,
    phase = c.phase,
    variant = c.variant,
    unit = c.unit,
    input_text = coalesce(
        f.input_text,
        CASE WHEN f.expected IS NOT NULL AND pgml_tune._may_see_job(g.role, c.role_id) THEN c.input_text END
    )
FROM added AS c
JOIN pgml_tune.feedback AS o ON o.call_id = c.call_id
CROSS JOIN LATERAL (SELECT pg_catalog.to_regrole(pg_catalog.quote_ident(o.given_by))::oid AS role) AS g
WHERE f.feedback_id = o.feedback_id AND pgml_tune._may_judge(g.role, c.role_id)
    AND (f.model IS NULL OR f.input_text IS NULL AND f.expected IS NOT NULL AND c.input_text IS NOT NULL)
"""
_WRITE_LEDGER = """
INSERT INTO pgml_tune.log_file AS l (file, bytes, done_xid, done_at)
SELECT f.file,
       f.bytes,
       CASE WHEN f.is_done THEN pg_catalog.pg_current_xact_id() END,
       CASE WHEN f.is_done THEN pg_catalog.now() END
FROM ROWS FROM (
    pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::boolean[])
) AS f (file, bytes, is_done)
ON CONFLICT (file) DO UPDATE SET bytes = excluded.bytes, done_xid = excluded.done_xid, done_at = excluded.done_at
"""
_FORGET_FILES = """
WITH calls AS (DELETE FROM pgml_tune.open_call WHERE file = ANY ($1::text[]))
DELETE FROM pgml_tune.log_file WHERE file = ANY ($1::text[])
"""
_CLOSE_CALLS = """
DELETE FROM pgml_tune.open_call AS o
USING ROWS FROM (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[])) AS c (file, call_id)
WHERE o.file = c.file AND o.call_id = c.call_id
"""
_OPEN = """
INSERT INTO pgml_tune.open_call (file, call_id, line)
SELECT c.file, c.call_id, c.line
FROM ROWS FROM (
    pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::text[])
) AS c (file, call_id, line)
"""
_NOTE = """
UPDATE pgml_tune.log_info
SET dropped_bytes = least(dropped_bytes, 1::bigint << 61) + $1::bigint,
    refused_lines = refused_lines + $2::bigint,
    ingested_at = pg_catalog.now()
"""
_FACTS = """
SELECT i.dropped_bytes,
       i.refused_lines,
       coalesce(i.ingested_at, i.stats_reset_at) < pg_catalog.now() - interval '1 day' AS is_late
FROM pgml_tune.stat_log AS i
"""


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What was lost of the log."""

    dropped_bytes: int
    refused_lines: int
    is_late: bool  # nothing was ingested for a day


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """How far a file has been ingested."""

    file: str
    bytes: int
    is_done: bool  # its writer is gone and all is ingested


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A call that has begun in a file and not ended."""

    file: str
    call_id: int
    line: str  # its fields, should it never end


def take_turn(db: Database) -> bool:
    """Whether nobody else ingests, and so nobody will until the transaction ends."""
    return bool(db.fetch(_TAKE_TURN))


def ledger(db: Database) -> dict[str, LedgerRow]:
    """Every file of which something has been ingested, by its name."""
    return {row["file"]: LedgerRow(**row) for row in db.fetch(_LEDGER)}


def removable_files(db: Database, is_short_of_room: bool) -> set[str]:
    """The files that are done and that no statement can still need."""
    return {row["file"] for row in db.fetch(_REMOVABLE, is_short_of_room)}


def open_calls(db: Database) -> list[OpenCall]:
    """The calls whose beginning has been ingested and whose end has not."""
    return [OpenCall(**row) for row in db.fetch(_OPEN_CALLS)]


def add_calls(db: Database, lines: Sequence[str]) -> None:
    """Add calls that have ended."""
    db.fetch(_ADD_CALLS, "\n".join(lines))


def write_ledger(db: Database, read: Sequence[tuple[str, int, bool]]) -> None:
    """Note of files how many bytes are ingested and whether that is all there will be."""
    db.fetch(_WRITE_LEDGER, [row[0] for row in read], [row[1] for row in read], [row[2] for row in read])


def forget_files(db: Database, files: list[str]) -> None:
    """Delete the notes on files that are gone."""
    db.fetch(_FORGET_FILES, files)


def change_open_calls(db: Database, closed: Sequence[OpenCall], opened: Sequence[OpenCall]) -> None:
    """Calls have ended or are lost, others have begun."""
    if closed:
        db.fetch(_CLOSE_CALLS, [call.file for call in closed], [call.call_id for call in closed])
    if opened:
        db.fetch(
            _OPEN, [call.file for call in opened], [call.call_id for call in opened], [call.line for call in opened]
        )


def note_ingest(db: Database, dropped_bytes: int, refused_lines: int) -> None:
    """Count what was lost, and that the spool was ingested now."""
    db.fetch(_NOTE, dropped_bytes, refused_lines)


def log_facts(db: Database) -> LogFacts:
    """What was lost of the log, and whether anybody ingests."""
    return LogFacts(**db.fetch(_FACTS)[0])
