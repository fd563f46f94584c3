"""From the spool to the log of calls: each line counts once, for every statement that looks.

The rows of a file and the note how far it was read are written in one transaction. Who reads the log takes the rows
that his snapshot shows, and from the file what lies beyond the note that his snapshot shows.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pgml_tune.db import Session
from pgml_tune.engine.files import explained
from pgml_tune.ipc import call_line, spool
from pgml_tune.ipc.call_line import Dropped
from pgml_tune.ipc.spool import SpoolFile
from pgml_tune.settings import Limits
from pgml_tune.store import call_log as store
from pgml_tune.store.call_log import LedgerRow, OpenCall

_BATCH_LINES = 4000  # added by one statement
_DAY_SECONDS = 86400
_MOST_DROPPED = 1 << 50  # bytes of one ingest: more is forged


@dataclass(slots=True)
class Found:
    """What a file holds beyond what was ingested of it."""

    file: str
    end: int
    is_complete: bool
    ended: list[str] = field(default_factory=list)  # fields of calls
    open: dict[int, str] = field(default_factory=dict)  # fields by identifier
    dropped: list[Dropped] = field(default_factory=list)
    refused: int = 0


def ingest(db: Session, spool_dir: Path, limits: Limits) -> int:
    """Add what the spool holds to the log and say how many calls; 0 while another session is doing so."""
    if not store.take_turn(db):
        return 0
    place = db.place()
    folder = spool.database_folder(spool_dir, place.database_id)
    ledger = store.ledger(db)
    with explained(folder):
        # After reading the ledger: a file that is missing now will not come back.
        present = spool.files(folder, place.node)
        added = _ingest_files(db, [file for file in present if not _is_done(file, ledger)], ledger)
        _remove_done(db, present, ledger, limits.log_spool_bytes)
        _remove_forgotten(folder, place.node, limits.log_keep_days)
    return added


def pending(db: Session, spool_dir: Path) -> list[str]:
    """The calls that the snapshot of the calling statement does not show, as lines for `_parse_calls()`; no texts."""
    place = db.place()
    folder = spool.database_folder(spool_dir, place.database_id)
    ledger = store.ledger(db)
    known = _by_file(store.open_calls(db))
    with explained(folder):
        files = [file for file in spool.files(folder, place.node) if not _is_done(file, ledger)]
        found = [look(db, file, ledger, known.get(file.name, {})) for file in files]
    return ["\n".join(map(call_line.without_text, item.ended)) for item in found if item is not None and item.ended]


def look(db: Session, file: SpoolFile, ledger: dict[str, LedgerRow], known: dict[int, str]) -> Found | None:
    """What a file holds beyond the ledger, `known` being the calls that had begun there; None if it is gone."""
    row = ledger.get(file.name)
    piece = file.read(row.bytes if row else 0)
    if piece is None:
        return None
    found = Found(file.name, piece.end, piece.is_complete, open=dict(known))
    for line in _storable(db, list(piece.lines())):
        told = call_line.parse(line)
        match told:
            case call_line.Call(has_ended=True):
                found.open.pop(told.call_id, None)
                found.ended.append(told.fields)
            case call_line.Call():
                found.open[told.call_id] = told.fields
            case call_line.Dropped():
                found.dropped.append(told)
            case None:
                found.refused += 1
    if found.is_complete:
        # Their backend is gone, so nothing more will be heard of them.
        found.ended += found.open.values()
        found.open = {}
    return found


def _ingest_files(db: Session, files: list[SpoolFile], ledger: dict[str, LedgerRow]) -> int:
    known = _by_file(store.open_calls(db))
    waiting: list[str] = []
    read: list[tuple[str, int, bool]] = []
    closed: list[OpenCall] = []
    opened: list[OpenCall] = []
    added = dropped_bytes = refused = 0
    for file in files:
        before = known.get(file.name, {})
        found = look(db, file, ledger, before)
        if found is None:
            continue
        waiting += found.ended
        added += len(found.ended)
        refused += found.refused
        dropped_bytes += sum(_not_ingested(dropped, ledger) for dropped in found.dropped)
        closed += _calls(found.file, before, except_for=found.open)
        opened += _calls(found.file, found.open, except_for=before)
        if found.is_complete or found.end != _bytes(file, ledger):
            read.append((found.file, found.end, found.is_complete))
        if len(waiting) >= _BATCH_LINES:
            store.add_calls(db, waiting)
            waiting = []
    if waiting:
        store.add_calls(db, waiting)
    store.change_open_calls(db, closed, opened)
    store.write_ledger(db, read)
    store.note_ingest(db, min(dropped_bytes, _MOST_DROPPED), refused)
    return added


def _remove_done(db: Session, present: list[SpoolFile], ledger: dict[str, LedgerRow], max_bytes: int) -> None:
    """Remove files that were ingested in an earlier transaction, and forget those that are gone."""
    is_half_full = sum(file.size for file in present) > max_bytes // 2
    removable = store.removable_files(db, is_half_full)
    left = {file.name for file in present if not (file.name in removable and file.remove())}
    node = db.place().node
    gone = [name for name in ledger if name not in left and name.startswith(f"{node}-")]
    if gone:
        store.forget_files(db, gone)


def _remove_forgotten(folder: Path, node: str, keep_days: int) -> None:
    """Remove what a node left that is no more, and what was written for databases that are no more."""
    oldest = time.time() - keep_days * _DAY_SECONDS
    for path in folder.parent.iterdir() if folder.parent.is_dir() else ():
        with contextlib.suppress(OSError):  # it is of another server, or no folder at all
            for file in spool.files(path):
                if file.changed_at < oldest and (file.node != node or path != folder):
                    file.remove()
            if path != folder and path.stat().st_mtime < oldest:
                path.rmdir()  # if it is empty


def _storable(db: Session, lines: list[str]) -> Iterable[str]:
    """The lines; one with characters that the database does not have is emptied, and so refused."""

    def is_storable(text: str) -> bool:
        return text.isascii() or ("\0" not in text and db.can_hold(text))

    return lines if is_storable("\n".join(lines)) else (line if is_storable(line) else "" for line in lines)


def _calls(file: str, calls: dict[int, str], except_for: dict[int, str]) -> list[OpenCall]:
    return [OpenCall(file, call_id, line) for call_id, line in calls.items() if call_id not in except_for]


def _by_file(calls: list[OpenCall]) -> dict[str, dict[int, str]]:
    found: dict[str, dict[int, str]] = {}
    for call in calls:
        found.setdefault(call.file, {})[call.call_id] = call.line
    return found


def _is_done(file: SpoolFile, ledger: dict[str, LedgerRow]) -> bool:
    row = ledger.get(file.name)
    return row is not None and row.is_done


def _bytes(file: SpoolFile, ledger: dict[str, LedgerRow]) -> int:
    row = ledger.get(file.name)
    return row.bytes if row else 0


def _not_ingested(dropped: Dropped, ledger: dict[str, LedgerRow]) -> int:
    row = ledger.get(dropped.file)
    return max(0, dropped.bytes - (row.bytes if row else 0))
