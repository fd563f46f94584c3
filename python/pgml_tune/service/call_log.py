"""What is written down of the calls of a session."""

from __future__ import annotations

from dataclasses import dataclass

from pgml_tune.db import Session
from pgml_tune.records import Exposure


@dataclass(frozen=True, slots=True, kw_only=True)
class CallStart:
    """A call before its model runs: should nothing more be heard of it, it is this that is known."""

    call_id: int
    task: str  # embed | search | passages | similarity | classify
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
    sample_rate: float
    tokens: int | None = None  # None, as what follows: nothing was computed
    unknown_tokens: int | None = None
    sketch: str | None = None
    is_cold: bool = False  # a model was loaded
    is_fallback: bool = False  # the candidate failed, the serving version answered
    sqlstate: str | None = None  # None: no error
    input_text: str | None = None  # None: setting log_text is off


class CallLog:
    """Writes calls down so that they stay whatever becomes of their transaction; never fails a call, never waits."""

    def begin(self, db: Session, call: CallStart) -> None:
        """A call begins that belongs to a rollout; should its backend die within it, it counts as lost."""

    def end(self, db: Session, record: CallRecord) -> None:
        """A call has ended, well or not."""
