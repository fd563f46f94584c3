"""What a job process says: a JSON object per line of its standard output, taken for no more than that."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pgml_tune.errors import JobFailed, TuneError
from pgml_tune.records import is_digest
from pgml_tune.store.job_run import Claim, Part

_SQLSTATE = re.compile(r"[0-9A-Z]{5}\Z")
_SUFFIX = re.compile(r"(-[a-z0-9_.-]{1,40})?\Z")
_PROGRESS = {"phase": str, "step": int, "steps": int, "loss": float, "metric": str, "value": float}
_LONGEST_LINE = 4000
_LONGEST_WORD = 200
_LARGEST = 1 << 62


def parse_event(line: str) -> dict[str, Any] | None:
    """The event that a line is; None if it is none."""
    try:
        event = json.loads(line, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None
    if type(event) is not dict or type(event.get("event")) is not str:
        return None
    plain: dict[str, Any] = _plain(event)
    return plain


def _plain(value: Any) -> Any:
    """`value` as PostgreSQL can keep it: no NUL, no half of a surrogate pair."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {plain_text(key): _plain(entry) for key, entry in value.items()}
    return value


def plain_text(text: str) -> str:
    """`text` without what PostgreSQL cannot keep."""
    return text.replace("\0", "").encode(errors="replace").decode()


def plain_line(text: str) -> str:
    """A line for the log of a job: what overwrites itself on a terminal, as a bar does, shows its last state."""
    return plain_text(text).rstrip().rpartition("\r")[2][:_LONGEST_LINE]


@dataclass(slots=True)
class Reports:
    """What a job has said so far."""

    parts: Mapping[str, Part]  # the rows of the job
    progress: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)  # for the log, not written yet
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    error: TuneError | None = None

    def take(self, event: dict[str, Any]) -> None:
        """Add an event; one of a form that is not known becomes a line of the log."""
        kind = event["event"]
        known = (
            (kind == "progress" and self._take_progress(event))
            or (kind == "artifact" and self._take_artifact(event))
            or (kind == "evaluation" and self._take_evaluation(event))
            or (kind == "error" and self._take_error(event))
        )
        if kind == "result":
            self.result = {name: value for name, value in event.items() if name != "event"}
        elif kind == "log" and type(event.get("message")) is str:
            self.lines += map(plain_line, event["message"].splitlines())
        elif not known:
            self.lines.append(plain_line(json.dumps(event, ensure_ascii=False)))

    def on(self, claim: Claim) -> Claim:
        """A claim with what the job has published, measured and said in the end."""
        return replace(claim, artifacts=self.artifacts, evaluations=self.evaluations, result=self.result)

    def _take_progress(self, event: dict[str, Any]) -> bool:
        if type(event.get("phase")) is not str:
            return False
        if event["phase"] != self.progress.get("phase"):
            self.lines.append(plain_line(event["phase"]))
        self.progress = {name: _fitting(event.get(name), wanted) for name, wanted in _PROGRESS.items()}
        return True

    def _take_artifact(self, event: dict[str, Any]) -> bool:
        digest, suffix = event.get("digest"), event.get("suffix")
        if type(digest) is not str or type(suffix) is not str or not (is_digest(digest) and _SUFFIX.match(suffix)):
            return False
        self.artifacts.append(
            {"suffix": suffix, "digest": digest, "storage": event.get("storage"), "existed": event.get("existed")}
        )
        return True

    def _take_evaluation(self, event: dict[str, Any]) -> bool:
        of, digest, figures = event.get("of"), event.get("digest"), event.get("figures")
        if type(of) is not str or type(digest) is not str or not is_digest(digest) or type(figures) is not dict:
            return False
        dataset = None
        if (part := self.parts.get(str(event.get("part")))) is not None:
            # Of a held-out share fewer rows than the part has.
            rows = event["rows"] if type(event.get("rows")) is int else part.row_count
            dataset = {"dataset_query": part.query, "dataset_rows": rows, "dataset_sha256": part.rows_sha256}
        self.evaluations.append({"of": of, "digest": digest, "figures": figures, "dataset": dataset})
        return True

    def _take_error(self, event: dict[str, Any]) -> bool:
        sqlstate, message = event.get("sqlstate"), event.get("message")
        if type(sqlstate) is not str or type(message) is not str or not _SQLSTATE.match(sqlstate):
            return False
        self.error = JobFailed(sqlstate, message, detail=event.get("detail") or "", hint=event.get("hint") or "")
        return True


def _fitting(value: Any, wanted: type) -> Any:
    """A value of progress if the table takes it, else None."""
    if wanted is float and type(value) in (int, float):
        return float(value) if abs(value) < _LARGEST else None
    if wanted is int and type(value) is int:
        return value if abs(value) < _LARGEST else None
    return value[:_LONGEST_WORD] if wanted is str and type(value) is str else None
