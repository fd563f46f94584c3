"""What becomes of a job: decided from what is known, and done elsewhere."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from pgml_tune.errors import DiskFull, JobFailed, LimitExceeded, OutOfMemory, SystemFault, TuneError

_INTERNAL = "38000"
_SHOWN_LINES = 5
_RAISE = "SELECT configure('{}', '...') allows more; an administrator may run it."


class Stop(Enum):
    """Why the worker ends a process that would go on."""

    CANCEL = "its cancel was asked for"
    DRAIN = "the worker ends"
    LOST = "the job is somebody else's by now"


class Fate(Enum):
    """What is written of a job."""

    FINISHED = "it is done and can be registered"
    SUCCEEDED = "it has succeeded"
    FAILED = "it has failed"
    CANCELLED = "it was cancelled"
    GIVEN_BACK = "it waits for another worker"
    KILLED = "it waits for another worker; the system or an operator has killed its process"
    LOST = "another worker has it"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a job may use."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job uses."""

    seconds: float
    memory_bytes: int
    disk_bytes: int


def exceeded(usage: Usage, bounds: Bounds) -> TuneError | None:
    """The error of a job that uses more than it may."""
    if usage.memory_bytes > bounds.memory_bytes:
        return OutOfMemory(
            f"the job held {usage.memory_bytes} bytes of memory, more than the {bounds.memory_bytes} it may have",
            hint="Use a smaller batch_size or max_seq_length. " + _RAISE.format("job_memory_bytes"),
        )
    if usage.disk_bytes > bounds.disk_bytes:
        return DiskFull(
            f"the job took {usage.disk_bytes} bytes of disk, more than the {bounds.disk_bytes} it may have",
            hint=_RAISE.format("job_disk_bytes"),
        )
    if usage.seconds > bounds.seconds:
        return LimitExceeded(
            f"the job ran longer than {bounds.seconds:.0f} seconds",
            hint="Use fewer rows or epochs. " + _RAISE.format("job_seconds"),
        )
    return None


@dataclass(frozen=True, slots=True)
class End:
    """How the process of a job ended."""

    status: int  # as subprocess has it: below 0 the number of a signal
    stopped: Stop | TuneError | None  # why the worker ended it; None: it ended by itself
    error: TuneError | None  # what it has reported
    has_result: bool
    lost_count: int  # how often it, or its worker, was killed before
    last_lines: Sequence[str] = ()


def judge(end: End) -> tuple[Fate, TuneError | None]:
    """What becomes of a job, and with which error."""
    if end.stopped is Stop.LOST:
        return Fate.LOST, None
    if end.stopped is Stop.CANCEL:
        return Fate.CANCELLED, None
    if isinstance(end.stopped, TuneError):
        return Fate.FAILED, end.stopped
    if end.error is not None:
        return Fate.FAILED, end.error
    if end.status == 0 and end.has_result:
        return Fate.FINISHED, None
    if end.stopped is Stop.DRAIN:
        return Fate.GIVEN_BACK, None
    if end.status == -signal.SIGKILL and end.lost_count == 0:
        return Fate.KILLED, None
    return Fate.FAILED, _unreported(end)


def _unreported(end: End) -> TuneError:
    words = "\n".join(line for line in end.last_lines if line)
    if end.status == -signal.SIGKILL:
        return OutOfMemory(
            "the job was killed, perhaps for want of memory",
            detail="It was not the worker that killed it, and the job was lost before.",
            hint="Use a smaller batch_size, or look into the system's log for what has killed it.",
        )
    if end.status < 0:
        return SystemFault(f"the job was ended by signal {-end.status}", detail=words)
    return JobFailed(_INTERNAL, f"the job ended with status {end.status} and without a report", detail=words)


def last_words(lines: Sequence[str]) -> Sequence[str]:
    """The lines that are shown of a job which ended without a report."""
    return lines[-_SHOWN_LINES:]
