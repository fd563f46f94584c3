"""Finds what killed jobs and imports have left in the file system, and what no model needs any more."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from pgml_tune.engine.artifact import BUILDING, no_removal
from pgml_tune.engine.checkpoint import FOLDER as CHECKPOINTS
from pgml_tune.engine.files import explained, read_plain
from pgml_tune.errors import ArtifactDamaged
from pgml_tune.records import is_digest

JOBS = "jobs"  # below the spool folder: a folder per running job, named by its label
_UNUSED_SECONDS = 3600  # an artifact is registered within minutes of being published
_NAMELESS_SECONDS = 24 * 3600  # of whom nobody can say whether it still works
_LABEL = re.compile(rf"(?:{re.escape(BUILDING)})?((\d+)-\d+-\d+)(?:-.*)?")


@dataclass(frozen=True, slots=True)
class Stored:
    """What there is: each path with the seconds since it was made or last published."""

    artifacts: dict[Path, float] = field(default_factory=dict)
    checkpoints: dict[Path, float] = field(default_factory=dict)
    building: dict[Path, float] = field(default_factory=dict)
    jobs: dict[Path, float] = field(default_factory=dict)
    bound: frozenset[str] = frozenset()  # digests that a file in names/ holds
    sources: frozenset[str] | None = frozenset()  # files_sha256 that artifacts name; None: one cannot be read

    def paths(self) -> set[Path]:
        return {*self.artifacts, *self.checkpoints, *self.building, *self.jobs}


@dataclass(frozen=True, slots=True)
class Users:
    """Who may need it, as one database knows."""

    installation_id: int  # of the extension in its database
    digests: Set[str]  # registered here, or published by a job that has not ended
    labels: Set[str]  # of the jobs that run


def choose(stored: Stored, users: Users) -> list[Path]:
    """What can be removed: needed by nobody, and too old to be still on its way."""
    used = {*stored.bound, *users.digests}
    artifacts = {path: age for path, age in stored.artifacts.items() if path.name not in used}
    sources = stored.sources
    checkpoints = (
        {} if sources is None else {path: age for path, age in stored.checkpoints.items() if path.name not in sources}
    )
    return [
        *(path for path, age in {**artifacts, **checkpoints}.items() if age > _UNUSED_SECONDS),
        *(path for path, age in {**stored.building, **stored.jobs}.items() if _is_abandoned(path.name, age, users)),
    ]


def _is_abandoned(name: str, age: float, users: Users) -> bool:
    label = _LABEL.fullmatch(name)
    if label is None or int(label[2]) != users.installation_id:  # an import's, or a job's of another database
        return age > _NAMELESS_SECONDS
    return label[1] not in users.labels


def survey(model_root: Path, spool_dir: Path, now: float | None = None) -> Stored:
    """What lies below the two folders."""
    now = time.time() if now is None else now
    with explained(model_root):
        artifacts = _ages((path for path in model_root.iterdir() if is_digest(path.name)), now)
        return Stored(
            artifacts=artifacts,
            checkpoints=_ages(_folders(model_root / CHECKPOINTS), now),
            building=_ages(model_root.glob(f"{BUILDING}*"), now),
            jobs=_ages(_folders(spool_dir / JOBS), now),
            bound=frozenset(_bound(model_root / "names")),
            sources=_sources(artifacts),
        )


def left_over(model_root: Path) -> list[Path]:
    """The folders that imports and jobs left behind more than a day ago."""
    with explained(model_root):
        building = _ages(model_root.glob(f"{BUILDING}*"), time.time())
    return [path for path, age in building.items() if age > _NAMELESS_SECONDS]


def remove(model_root: Path, spool_dir: Path, seen: Stored, users: Users) -> list[Path]:
    """Remove what can be removed, and tell what that was.

    `users` has to be asked for after `seen`: a job is known before it makes its folder. Nobody publishes while it is
    decided and renamed; deleting, which takes longer, comes afterwards.
    """
    removed: list[Path] = []
    with (
        explained(model_root),
        tempfile.TemporaryDirectory(dir=model_root, prefix=BUILDING, ignore_cleanup_errors=True) as doomed,
    ):
        with no_removal(model_root, alone=True):
            for path in choose(survey(model_root, spool_dir), users):
                if path in seen.paths() and path.is_relative_to(model_root):
                    with contextlib.suppress(OSError):  # somebody else's, who alone may remove it
                        path.rename(Path(doomed) / str(len(removed)))
                        removed.append(path)
        for path in removed:
            with contextlib.suppress(OSError):
                (model_root / "verified" / path.name).unlink()
    for path in choose(Stored(jobs=seen.jobs), users):
        shutil.rmtree(path, ignore_errors=True)
        removed.append(path)
    return removed


def _ages(paths: Iterable[Path], now: float) -> dict[Path, float]:
    ages = {}
    for path in sorted(paths):
        with contextlib.suppress(FileNotFoundError):  # whoever works there has just ended
            ages[path] = now - path.lstat().st_mtime
    return ages


def _folders(parent: Path) -> list[Path]:
    try:
        return list(parent.iterdir())
    except FileNotFoundError:
        return []


def _bound(names: Path) -> Iterator[str]:
    for path in _folders(names):
        with contextlib.suppress(ArtifactDamaged):
            yield read_plain(path, has_links=True).decode("ascii", "replace").strip()


def _sources(artifacts: Iterable[Path]) -> frozenset[str] | None:
    found = set()
    for path in artifacts:
        try:
            # Also those whose other fields are of a later version.
            found.add(str(json.loads(read_plain(path / "config.json"))["source"].get("files_sha256")))
        except (ArtifactDamaged, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            return None
    return frozenset(found)
