"""What the inference calls of a session have in common, whatever their task: limits, counts, numbers and the log."""

from __future__ import annotations

import copy
import random
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from pgml_tune.db import Session
from pgml_tune.engine.work import Work
from pgml_tune.errors import OutOfMemory, QueryCanceled
from pgml_tune.records import Exposure
from pgml_tune.service.call_log import CallLog, CallRecord, CallStart
from pgml_tune.service.counters import Counters
from pgml_tune.service.resolution import Rules
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import Limits
from pgml_tune.store.registry import Destination, Target

_CALL_ID_BITS = 24
_ALWAYS_LOGGED = frozenset({"text_to_sql"})  # takes its time, and who corrects it shall find it
_UNEXPECTED = "38000"  # what PostgreSQL makes of an exception without a SQLSTATE


@dataclass
class Call:
    """A call on its way: where it goes, under which rules, and what it has taken so far."""

    task: str  # as in pgml_tune.call_log
    destination: Destination
    limits: Limits
    target: Target  # the version that answers
    load_count: int  # of models by the session before it
    started: float  # by time.perf_counter()
    # Told as the call goes on. No slots: what is never told costs nothing.
    sizes: Sequence[int] = field(default=(), init=False)  # bytes of each text
    text: str | None = field(default=None, init=False)  # None: there is not just one
    collection: str | None = field(default=None, init=False)  # None: no search
    exposures: Sequence[tuple[int, Exposure]] = field(default=(), init=False)  # with the identifier of each
    session_hits: int = field(default=0, init=False)
    table_hits: int = field(default=0, init=False)
    work: Work | None = field(default=None, init=False)  # None: nothing was computed
    sketch: str | None = field(default=None, init=False)
    output_count: int = field(default=0, init=False)
    answer: str | None = field(default=None, init=False)  # the most probable label; None: no classifier
    failure: str | None = field(default=None, init=False)  # SQLSTATE of the candidate: the serving version answers

    @property
    def cache(self) -> str:
        """Where the answer came from: miss, session, table or mixed."""
        hits = self.session_hits + self.table_hits
        if not hits:
            return "miss"
        if hits < len(self.sizes) or (self.session_hits and self.table_hits):
            return "mixed"
        return "session" if self.session_hits else "table"

    @property
    def truncated(self) -> int:
        """Texts that were longer than the model reads."""
        return 0 if self.work is None else self.work.truncated

    def begin_anew(self, target: Target) -> None:
        """Let this version answer, as if nothing had been done yet."""
        self.target = target
        self.session_hits = self.table_hits = 0
        self.work = self.sketch = None


class Loads(Protocol):
    """What loads models."""

    @property
    def load_count(self) -> int:
        """How many the session has waited for."""
        ...

    def bound(self, most_sessions: int) -> None:
        """Let only so many sessions hold models of their own."""
        ...


class Calls:
    """Begins, counts, numbers and logs the calls of a session."""

    def __init__(self, loads: Loads, counters: Counters, table: TableCache, log: CallLog) -> None:
        self._rules = Rules()
        self._loads = loads
        self._counters = counters
        self._table = table  # writes the counters together with its entries
        self._log = log
        self._next_id = secrets.randbits(63 - _CALL_ID_BITS) << _CALL_ID_BITS
        self._open: Call | None = None
        self._opened_in = 0  # which statement
        self.last_id: int | None = None

    def begin(self, db: Session, task: str, model: str | None, model_task: str) -> Call:
        """A call of the version that `model` means, None meaning the default of the model's task."""
        started = time.perf_counter()
        if self._open is not None and db.statement() != self._opened_in:
            self.close(db)
        destination, limits = self._rules.follow(db, model, model_task)
        self._loads.bound(limits.in_process_max_sessions)
        return Call(task, destination, limits, destination.target, self._loads.load_count, started)

    def begin_part(self, call: Call, sizes: Sequence[int]) -> Call:
        """A call of its own for texts of another one, that begins now."""
        part = copy.copy(call)
        part.sizes, part.load_count, part.started = sizes, self._loads.load_count, time.perf_counter()
        return part

    def measuring(self, db: Session, call: Call) -> Measured:
        """A block that is the call: when it is left the call has ended, well or not."""
        return Measured(self, db, call, ends_well=True)

    def checking(self, db: Session, call: Call) -> Measured:
        """A block that begins the call: only an error ends it."""
        return Measured(self, db, call, ends_well=False)

    def expose(self, db: Session, call: Call, exposures: Iterable[Exposure]) -> None:
        """Write down that a call takes part in a rollout, before the model runs: it may take the backend with it."""
        call.exposures = [(self._take_id(), exposure) for exposure in exposures]
        for call_id, exposure, sizes in _exposed(call):
            start = CallStart(
                call_id=call_id,
                task=call.task,
                model=call.target.model,
                version=call.target.version,
                texts=len(sizes),
                input_bytes=sum(sizes),
                exposure=exposure,
                collection=call.collection,
            )
            self._log.begin(db, start)

    def end(self, db: Session, call: Call) -> None:
        """Count, number and log a call that has succeeded."""
        latency_ms = (time.perf_counter() - call.started) * 1000
        count = self._counters.of(call.target.model_version_id)
        count.add_call(len(call.sizes), latency_ms)
        count.session_hits += call.session_hits
        count.table_hits += call.table_hits
        if call.work is not None:
            count.tokens += call.work.tokens
            count.truncated += call.work.truncated
            count.compute_ms += call.work.seconds * 1000
        self.last_id = self._write(db, call, latency_ms, call.failure, is_fallback=call.failure is not None)
        self._table.flush_if_due(db)

    def fail(self, db: Session, call: Call, sqlstate: str) -> None:
        """Count and log a call that has ended in an error."""
        self._counters.of(call.target.model_version_id).errors += 1
        latency_ms = (time.perf_counter() - call.started) * 1000
        self.last_id = self._write(db, call, latency_ms, sqlstate, is_fallback=False)

    def leave_open(self, db: Session, call: Call) -> None:
        """Let a call go on after the function has returned that began it."""
        self._open, self._opened_in = call, db.statement()

    def reopen(self) -> Call | None:
        """The call that was left open."""
        call, self._open = self._open, None
        return call

    def close(self, db: Session) -> None:
        """Log a call that was left open and will not be ended: an error, most often a cancel, has come between."""
        call = self.reopen()
        if call is not None:
            self.fail(db, call, QueryCanceled.sqlstate)

    def number(self) -> None:
        """Give the next identifier to a call that is not logged."""
        self.last_id = self._take_id()

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id += 1
        return taken

    def _write(self, db: Session, call: Call, latency_ms: float, sqlstate: str | None, *, is_fallback: bool) -> int:
        """Log a call, unless it is not in the sample, and say what its identifier is."""
        rate = 1.0
        is_sampled = sqlstate is None and call.task not in _ALWAYS_LOGGED
        if is_sampled and not call.exposures and not call.destination.is_in_rollout:
            rate = call.limits.log_sample
            if random.random() >= rate:
                return self._take_id()
        self._log.max_bytes = call.limits.log_spool_bytes
        rows = list(_exposed(call)) or [(self._take_id(), None, call.sizes)]
        work = call.work
        for call_id, exposure, sizes in rows:
            record = CallRecord(
                call_id=call_id,
                task=call.task,
                model=call.target.model,
                version=call.target.version,
                texts=len(sizes),
                input_bytes=sum(sizes),
                exposure=exposure,
                collection=call.collection,
                output_count=call.output_count,
                cache=call.cache,
                latency_ms=latency_ms / len(rows),
                sample_rate=rate,
                tokens=None if work is None else work.tokens // len(rows),
                unknown_tokens=None if work is None else work.unknown // len(rows),
                sketch=call.sketch,
                is_cold=self._loads.load_count != call.load_count,
                is_fallback=is_fallback,
                sqlstate=sqlstate,
                answer=call.answer,
                input_text=call.text if call.limits.log_text == "on" else None,
            )
            self._log.end(db, record)
        return rows[-1][0]


class Measured:
    """A block whose end is the end of a call."""

    __slots__ = ("_call", "_calls", "_db", "_ends_well")

    def __init__(self, calls: Calls, db: Session, call: Call, *, ends_well: bool) -> None:
        self._calls = calls
        self._db = db
        self._call = call
        self._ends_well = ends_well

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._calls.fail(self._db, self._call, sqlstate_of(error))
        elif self._ends_well:
            self._calls.end(self._db, self._call)


def sqlstate_of(error: BaseException) -> str:
    """The SQLSTATE under which an exception reaches the client."""
    if isinstance(error, MemoryError):
        return OutOfMemory.sqlstate
    return getattr(error, "sqlstate", None) or _UNEXPECTED


def _exposed(call: Call) -> Iterator[tuple[int, Exposure | None, Sequence[int]]]:
    """What a call of a rollout is logged as: one row, or one for each text where these are units of their own."""
    if len(call.exposures) == 1:
        yield *call.exposures[0], call.sizes
    else:
        for (call_id, exposure), size in zip(call.exposures, call.sizes if call.exposures else (), strict=True):
            yield call_id, exposure, [size]
