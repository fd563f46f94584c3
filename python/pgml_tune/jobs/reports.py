"""What a job tells the process that started it: one JSON object per line of standard output."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from pgml_tune.errors import TuneError

_SECONDS_BETWEEN = 0.5  # between two reports of the same phase; each is a write of the worker's


class Reporter:
    """Writes progress, results and the error of a job as JSON lines."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._phase = ""
        self._value: float | None = None
        self._reported_at = -math.inf

    def progress(
        self,
        phase: str,
        *,
        step: int | None = None,
        steps: int | None = None,
        loss: float | None = None,
        metric: str | None = None,
        value: float | None = None,
    ) -> None:
        """Where the job stands; of many steps in a short time some are told, the last one and new figures always."""
        now = self._clock()
        is_soon = now - self._reported_at < _SECONDS_BETWEEN
        if phase == self._phase and value == self._value and is_soon and (step is None or step != steps):
            return
        self._phase, self._value, self._reported_at = phase, value, now
        self._write(
            event="progress",
            phase=phase,
            step=step,
            steps=steps,
            loss=_finite(loss),
            metric=metric,
            value=_finite(value),
        )

    def log(self, message: str) -> None:
        """A line for whoever reads what the job did."""
        self._write(event="log", message=message)

    def artifact(self, digest: str, suffix: str, config: Mapping[str, Any], *, existed: bool) -> None:
        """An artifact is in place; `suffix` goes behind the version's name, `existed` says that it was there before."""
        self._write(
            event="artifact", suffix=suffix, digest=digest, config=config, existed=existed, storage=config["storage"]
        )

    def evaluation(
        self, of: str, digest: str, part: str | None, figures: Mapping[str, float], rows: int | None = None
    ) -> None:
        """Figures of a model: `of` is "new" or a reference, `part` the rows, None for the texts of the package.

        `rows` is how many of the part, None for all.
        """
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        self._write(event="evaluation", of=of, digest=digest, part=part, figures=finite, rows=rows)

    def result(self, values: Mapping[str, Any]) -> None:
        """What came of the job; the last line of one that succeeds."""
        self._write(event="result", **values)

    def error(self, error: TuneError) -> None:
        """Why the job ends without a result."""
        self._write(event="error", sqlstate=error.sqlstate, message=error.message, detail=error.detail, hint=error.hint)

    def _write(self, **event: Any) -> None:
        self._stream.write(json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n")
        self._stream.flush()


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def claim_stdout() -> TextIO:
    """Standard output for the reports alone: whatever libraries print goes to standard error from now on."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream
