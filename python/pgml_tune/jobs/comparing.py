"""What a derived version costs and gains beside the one it is made from: size, speed, quality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import ALLOWED_FILES, Artifact
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs import latency
from pgml_tune.jobs.job import Rows
from pgml_tune.jobs.measuring import measure_rows
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.records import ArtifactConfig

_THREADS = 1  # as a backend runs a model


@dataclass(frozen=True, slots=True)
class Quality:
    """The figures of two versions on the same rows, and the one of them that counts."""

    main: str
    base: Mapping[str, float]
    new: Mapping[str, float]
    count: int

    @property
    def loss(self) -> float:
        return self.base[self.main] - self.new[self.main]

    def __str__(self) -> str:
        return f"{self.main} {self.base[self.main]:.2f} -> {self.new[self.main]:.2f} on {self.count:,} rows"


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was measured of a derived version and its base."""

    base: Mapping[str, float]  # latency_ms, texts_per_second, bytes
    new: Mapping[str, float]
    quality: Quality | None

    def to_json(self) -> dict[str, Any]:
        """As the configuration of the new version keeps it."""
        change = latency.change(self.base, self.new)
        figures: dict[str, Any] = {
            "speed": {"base": dict(self.base), "new": dict(self.new), "change_percent": change, "threads": _THREADS}
        }
        if self.quality:
            quality = self.quality
            figures["eval"] = {"base": dict(quality.base), "new": dict(quality.new), "rows": quality.count}
        return figures

    def report(self, report: Reporter, base: Artifact, reference: str, new: Artifact) -> None:
        """Tell the figures of both versions."""
        for name, artifact, speed in ((reference, base, self.base), ("new", new, self.new)):
            report.evaluation(name, artifact.digest, None, speed)
        if self.quality:
            report.evaluation(reference, base.digest, "eval", self.quality.base)
            report.evaluation("new", new.digest, "eval", self.quality.new)

    def summary(self) -> str:
        """One line for people."""
        change = latency.change(self.base, self.new)
        parts = [
            f"{self.base['bytes'] / 1e6:.1f} -> {self.new['bytes'] / 1e6:.1f} MB ({change['bytes']:+.0f} %)",
            f"{self.base['latency_ms']:.2f} -> {self.new['latency_ms']:.2f} ms a text ({change['latency_ms']:+.0f} %)",
        ]
        return ", ".join(parts + ([str(self.quality)] if self.quality else []))


def compare_speed(
    base: Artifact, folder: Path, config: ArtifactConfig, report: Reporter
) -> tuple[dict[str, float], dict[str, float]]:
    """Size and speed of the base and of the new folder, as one core computes them."""
    report.progress("measuring the speed")
    runners = {
        "base": Runner(base.folder, base.config(), _THREADS),
        "new": Runner(folder, config, _THREADS),
    }
    speed = latency.compare(runners)
    return latency.figures(speed["base"], _bytes(base.folder)), latency.figures(speed["new"], _bytes(folder))


def compare_quality(base: Runner, new: Runner, config: ArtifactConfig, rows: Rows, report: Reporter) -> Quality:
    """The figures of both on the rows."""
    report.progress("evaluating")
    (before, main), (after, _) = (measure_rows(runner, config, rows) for runner in (base, new))
    if not (main in before and main in after):
        raise InvalidArgument(
            f"{main} cannot be told of the rows of eval_query",
            detail="Its values do not differ, or nothing in it is relevant.",
        )
    return Quality(main, before, after, rows.count)


def check_loss(quality: Quality, max_loss: float, name: str) -> None:
    """Refuse a version that loses more than is allowed."""
    if not quality.loss <= max_loss:
        raise NotSupported(
            f"{name} loses {quality.loss:.2f} points of {quality.main}, {max_loss:g} are allowed",
            detail=f"It went {quality}.",
            hint="Take a method that stays closer, int8_block or fp16, or allow more with the option max_loss.",
        )


def _bytes(folder: Path) -> int:
    """Of the network and the tokenizer; what an artifact says of itself does not count."""
    files = (folder / name for name in ALLOWED_FILES - {"config.json"})
    return sum(file.stat().st_size for file in files if file.exists())
