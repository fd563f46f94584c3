"""A job as the worker has laid it out: a folder with job.json and the rows, without a database."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import PermissionDenied


def texts_of(rows: Iterable[Sequence[Any]]) -> list[str]:
    """All texts of rows, in order."""
    return [value for row in rows for value in row if isinstance(value, str)]


def available_threads() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class JobModel:
    """A registered model that a job works with."""

    reference: str  # name@version
    digest: str
    task: str


@dataclass(frozen=True, slots=True)
class Rows:
    """A snapshot of the rows of a query."""

    file: Path
    count: int
    sha256: str
    query: str
    columns: tuple[str, ...]
    shape: str

    def read(self) -> Iterator[list[Any]]:
        """The rows in the order of the query, each as its values in the order of the columns."""
        with self.file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                yield [row[column] for column in self.columns]

    def texts(self) -> list[str]:
        """All their texts, in order."""
        return texts_of(self.read())

    def provenance(self) -> dict[str, Any]:
        """What stays with a model that was made from these rows."""
        return {"query": self.query, "count": self.count, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class Access:
    """Where a job reaches the database, and the role whose rights it uses there."""

    dsn: str = field(repr=False)  # may hold a password
    role: str


@dataclass(frozen=True, slots=True)
class Job:
    """What a job is to do, and with what."""

    job_id: int
    kind: str
    label: str  # <oid of the extension>-<job id>-<fencing token>
    model_root: Path
    import_dirs: tuple[Path, ...]
    threads: int  # 0: all
    models: dict[str, JobModel]
    parameters: dict[str, Any]
    rows: dict[str, Rows]
    folder: Path
    database: Access | None = None  # None: the job has nothing to do there

    @property
    def access(self) -> Access:
        """The database, for a job that runs SQL in it."""
        if self.database is None:
            raise PermissionDenied("the job was given no access to the database")
        return self.database

    @property
    def thread_count(self) -> int:
        """The cores that it may use: as its caller says, else as an administrator does, else all."""
        return self.threads or available_threads()

    @classmethod
    def load(cls, folder: Path) -> Job:
        """The job whose folder this is."""
        values = json.loads((folder / "job.json").read_bytes())
        return cls(
            job_id=values["job_id"],
            kind=values["kind"],
            label=values["label"],
            model_root=Path(values["model_root"]),
            import_dirs=tuple(map(Path, values["import_dirs"])),
            threads=values["threads"],
            models={role: JobModel(**model) for role, model in values["models"].items()},
            parameters=values["parameters"],
            rows={
                part: Rows(**{**rows, "file": folder / rows["file"], "columns": tuple(rows["columns"])})
                for part, rows in values["rows"].items()
            },
            folder=folder,
            database=Access(**values["database"]) if values.get("database") else None,
        )

    def artifact(self, role: str) -> Artifact:
        """The checked files of one of its models."""
        artifact = Artifact(self.model_root, self.models[role].digest)
        artifact.verify()
        return artifact

    def scratch(self, name: str) -> Path:
        """A new folder of its own inside the job's, which the worker removes with it."""
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        return folder

    def made_by(self, base: str | None) -> dict[str, Any]:
        """The lineage that the artifact it makes will carry."""
        lineage: dict[str, Any] = {"kind": self.kind, "base": base, "parameters": self.parameters}
        return lineage | {part: rows.provenance() for part, rows in self.rows.items()}
