"""What is written down of the calls of a session."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pgml_tune.db import Session
from pgml_tune.engine.gpu_memory import memory_in_use
from pgml_tune.ipc.call_line import BEGIN, END, Value, call_line
from pgml_tune.ipc.spool import SpoolWriter, database_folder
from pgml_tune.records import Exposure
from pgml_tune.settings import SETTINGS

LONGEST_TEXT = 10_000  # characters of a text that are kept; see setting log_text
LONGEST_ANSWER = 200  # bytes of a label
_LOOK_SECONDS = 1.0
_LOST = "58000"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """A call before its model runs: should nothing more be heard of it, it is this that is known."""

    call_id: int
    task: str  # embed | batch | search | passages | similarity | classify
    model: str
    version: str
    texts: int
    input_bytes: int
    exposure: Exposure | None
    collection: str | None = None  # of a search


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRecord(CallStart):
    """A call that has ended."""

    output_count: int  # dimensions, labels or rows
    cache: str  # miss (all texts computed) | session | table | mixed
    latency_ms: float
    sample_rate: float  # more than 0
    tokens: int | None = None  # None, as what follows: nothing was computed
    unknown_tokens: int | None = None
    sketch: str | None = None
    is_cold: bool = False  # a model was loaded
    is_fallback: bool = False  # the candidate failed, the serving version answered
    sqlstate: str | None = None  # None: no error
    answer: str | None = None  # the most probable label; None: no classifier
    input_text: str | None = None  # None: setting log_text is off


class CallLog:
    """Writes calls down so that they stay whatever becomes of their transaction; never fails a call, never waits."""

    def __init__(self, spool_dir: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._spool_dir = spool_dir
        self._clock = clock
        self._writer: SpoolWriter | None = None
        self._begun: set[int] = set()
        self._memory = MemoryWatch()
        self.max_bytes = int(SETTINGS["log_spool_bytes"].default)  # of the spool, as last seen

    def begin(self, db: Session, call: CallStart) -> None:
        """A call begins that belongs to a rollout; should its backend die within it, it counts as lost."""
        self._write(db, BEGIN, _if_lost(call))
        self._begun.add(call.call_id)

    def end(self, db: Session, record: CallRecord) -> None:
        """A call has ended, well or not."""
        self._write(db, END, record)
        self._begun.discard(record.call_id)

    def _write(self, db: Session, kind: str, record: CallRecord) -> None:
        if self._writer is None:
            place = db.place()
            folder = database_folder(self._spool_dir, place.database_id)
            self._writer = SpoolWriter(folder, place.node, place.backend)
        self._memory.look()
        line = call_line(kind, _values(record, self._clock() // 1000, self._memory, db.role()))
        self._writer.write(line, self.max_bytes, is_amid_call=bool(self._begun))


class MemoryWatch:
    """The memory that this process has in use, looked at once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._look_at = 0.0
        self.resident_bytes: int | None = None  # None: the system does not tell
        self.gpu_bytes: int | None = None  # of all processes; None: this one uses no GPU

    def look(self) -> None:
        """Look once more, if a second has passed."""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_SECONDS
        self.gpu_bytes = memory_in_use()
        try:
            with open("/proc/self/statm", "rb") as file:
                self.resident_bytes = int(file.read().split()[1]) * _PAGE_BYTES
        except (OSError, ValueError, IndexError):
            self.resident_bytes = None


def _if_lost(call: CallStart) -> CallRecord:
    return CallRecord(
        call_id=call.call_id,
        task=call.task,
        model=call.model,
        version=call.version,
        texts=call.texts,
        input_bytes=call.input_bytes,
        exposure=call.exposure,
        collection=call.collection,
        output_count=0,
        cache="miss",
        latency_ms=0.0,
        sample_rate=1.0,
        sqlstate=_LOST,
    )


def _values(record: CallRecord, logged_us: int, memory: MemoryWatch, role: int) -> tuple[Value, ...]:
    """The columns of `pgml_tune.call_log`, in their order."""
    exposure, answer, text = record.exposure, record.answer, record.input_text
    return (
        logged_us,
        record.call_id,
        record.task,
        record.model,
        record.version,
        *((None,) * 5 if exposure is None else _columns(exposure)),
        record.collection,
        record.texts,
        record.input_bytes,
        record.tokens,
        record.unknown_tokens,
        record.output_count,
        record.cache,
        float(record.latency_ms),
        record.is_cold,
        record.is_fallback,
        record.sqlstate,
        memory.resident_bytes,
        memory.gpu_bytes,
        float(record.sample_rate),
        role,
        record.sketch,
        None if answer is None or len(answer.encode()) > LONGEST_ANSWER else answer,
        None if text is None else text[:LONGEST_TEXT],
    )


def _columns(exposure: Exposure) -> tuple[Value, ...]:
    return exposure.variant, exposure.rollout_id, exposure.phase, exposure.share, exposure.unit
