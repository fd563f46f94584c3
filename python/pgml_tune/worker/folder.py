"""The folders of jobs: laid out before one runs, removed afterwards, swept where a worker was killed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pgml_tune.db import Database
from pgml_tune.db.connection import ConnectionDatabase
from pgml_tune.engine.artifact import BUILDING
from pgml_tune.engine.files import explained
from pgml_tune.engine.orphans import JOBS, Stored, choose
from pgml_tune.errors import InvalidArgument, NotReady
from pgml_tune.records import ModelReference
from pgml_tune.service.training_rows import SQL_SHAPE
from pgml_tune.settings import Paths
from pgml_tune.store import job_run
from pgml_tune.store.job import file_users
from pgml_tune.store.job_run import Claim, Part
from pgml_tune.store.registry import find_target


def folder_of(paths: Paths, held: Claim) -> Path:
    """Where a job runs."""
    return paths.spool_dir / JOBS / held.label


def lay_out(db: ConnectionDatabase, paths: Paths, held: Claim, threads: int, keep_up: Callable[[], None]) -> list[Part]:
    """Write the rows and the description of a job; what its rows are."""
    folder = folder_of(paths, held)
    parameters = dict(held.parameters)
    parameters.pop("target", None)  # how the versions are called does not concern the process
    models = _checked_models(db, parameters.pop("models", None) or {})
    parts = job_run.parts(db, held.job_id)
    with explained(folder):
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        remove(paths, held)
        folder.mkdir(mode=0o700)
        for part in parts:
            _write_rows(db, held.job_id, part, folder / _file_name(part), keep_up)
        description = {
            "job_id": held.job_id,
            "kind": held.kind,
            "label": held.label,
            "model_root": str(paths.model_root),
            "import_dirs": [str(path) for path in paths.import_dirs],
            "threads": threads,
            "models": models,
            "parameters": parameters,
            "rows": {
                part.part: {
                    "file": _file_name(part),
                    "count": part.row_count,
                    "sha256": part.rows_sha256,
                    "query": part.query,
                    "columns": part.column_names,
                    "shape": part.shape,
                }
                for part in parts
            },
            "database": _access(db, held, parts),
        }
        (folder / "job.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    return parts


def _access(db: ConnectionDatabase, held: Claim, parts: list[Part]) -> dict[str, str] | None:
    """Where a job runs SQL, and with whose rights; None for one whose rows are no SQL."""
    if not any(part.shape == SQL_SHAPE for part in parts):
        return None
    # The folder is closed to others, and the file is gone with it when the job ends.
    return {"dsn": db.dsn, "role": job_run.owner(db, held.job_id)}


def _file_name(part: Part) -> str:
    return f"{part.part}.jsonl"


def _write_rows(db: Database, job_id: int, part: Part, file: Path, keep_up: Callable[[], None]) -> None:
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for lines in job_run.chunks(db, job_id, part.part):
            content = lines.encode() + b"\n"
            stream.write(content)
            digest.update(content)
            keep_up()
    if digest.hexdigest() != part.rows_sha256:
        raise InvalidArgument(f"the {part.part} rows of the job are not those that were checked when it was queued")


def _checked_models(db: Database, models: Any) -> dict[str, dict[str, str]]:
    """The models of a job, if they are what they are called: whoever may call procedures may also add a job himself."""
    checked = {}
    try:
        for role, model in dict(models).items():
            if not all(type(model[name]) is str for name in ("reference", "digest", "task")):
                raise TypeError
            reference = ModelReference.parse(model["reference"])
            found = find_target(db, reference, model["task"])
            if found is None or found.digest != model["digest"]:
                raise NotReady(
                    f'version "{reference}" is not what it was when the job was queued',
                    detail="It was dropped since, or its name means another artifact.",
                    hint="Call the procedure again.",
                )
            checked[str(role)] = {"reference": str(reference), "digest": found.digest, "task": model["task"]}
    except (TypeError, ValueError, KeyError, AttributeError):
        raise InvalidArgument("the parameters of the job are not those of its procedure") from None
    return checked


def building_folders(paths: Paths, held: Claim) -> list[Path]:
    """What the job has begun below the model root."""
    return list(paths.model_root.glob(f"{BUILDING}{held.label}-*"))


def remove(paths: Paths, held: Claim) -> None:
    """Remove what the job has left, wherever it is."""
    for folder in (folder_of(paths, held), *building_folders(paths, held)):
        shutil.rmtree(folder, ignore_errors=True)


def sweep(db: Database, paths: Paths) -> list[Path]:
    """Remove what jobs of this database have left that do not run any more."""
    jobs = paths.spool_dir / JOBS
    # Before asking which run: whatever is here was claimed earlier.
    found = Stored(
        building=dict.fromkeys(paths.model_root.glob(f"{BUILDING}*"), 0.0),
        jobs=dict.fromkeys(jobs.iterdir() if jobs.is_dir() else (), 0.0),
    )
    abandoned = choose(found, file_users(db))
    for folder in abandoned:
        shutil.rmtree(folder, ignore_errors=True)
    return abandoned
