"""What a job tells the process that started it: one JSON object per line of standard output."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from pgml_tune.errors import TuneError


class Reporter:
    """Writes progress, results and the error of a job as JSON lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, message: str) -> None:
        self._write(event="progress", message=message)

    def artifact(self, digest: str, quantize: str | None, config: dict[str, Any], *, existed: bool) -> None:
        """An artifact is in place; `existed` says that an earlier import made it."""
        self._write(event="artifact", digest=digest, quantize=quantize, existed=existed, config=config)

    def error(self, error: TuneError) -> None:
        self._write(event="error", sqlstate=error.sqlstate, message=error.message, detail=error.detail, hint=error.hint)

    def _write(self, **event: Any) -> None:
        self._stream.write(json.dumps(event, ensure_ascii=False) + "\n")
        self._stream.flush()


def claim_stdout() -> TextIO:
    """Standard output for the reports alone: whatever libraries print goes to standard error from now on."""
    sys.stdout.flush()
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return stream
