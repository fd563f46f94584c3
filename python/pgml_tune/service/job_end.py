"""The end of a job that went well: versions, figures and state in one transaction, so that there is all or nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgml_tune.db import Connection
from pgml_tune.engine.artifact import Artifact, bind_name
from pgml_tune.errors import InvalidArgument
from pgml_tune.records import ModelReference, check_name
from pgml_tune.service.registry import add_version, checked_artifact, next_version
from pgml_tune.store import engine_choice, job_run, registry
from pgml_tune.store.job_run import Claim
from pgml_tune.store.registry import VersionRow


@dataclass(frozen=True, slots=True)
class Target:
    """As what the artifacts of a job are registered."""

    model: str
    task: str
    version: str | None  # None: the next of v1, v2, ...
    base: str | None
    description: str | None

    @classmethod
    def parse(cls, parameters: Mapping[str, Any]) -> Target | None:
        """What the parameters of a job say; None if it makes no versions."""
        values = parameters.get("target")
        if values is None:
            return None
        try:
            target = cls(**({"version": None, "base": None, "description": None} | values))
            check_name(target.model, "model")
            for version in (target.version, target.base):
                if version is not None:
                    check_name(version, "version")
        except TypeError:
            raise InvalidArgument("the job does not say as what its artifacts are registered") from None
        return target


@dataclass(frozen=True, slots=True)
class NewVersion:
    """An artifact with the name that it gets."""

    version: str
    files: Artifact
    base: str | None
    is_registered: bool  # already, under this name


def end_job(db: Connection, model_root: Path, held: Claim) -> str:
    """Register what a job has published, keep what it has measured, and end it; says succeeded, cancelled or lost."""
    target = Target.parse(held.parameters)
    # Hashing takes long, and below locks are held.
    files = [] if target is None else [
        (str(artifact["suffix"]), checked_artifact(model_root, artifact["digest"], target.task))
        for artifact in held.artifacts
    ]  # fmt: skip
    with db.transaction():
        state = job_run.hold(db, held)
        if state == "lost":
            return state
        if state == "cancel":
            job_run.end_cancelled(db, held)
            return "cancelled"
        references = {} if target is None or not files else _register(db, model_root, target, files, held.created_by)
        job_run.add_evaluations(db, held, [row for entry in held.evaluations for row in rows_of(entry, references)])
        if held.kind == "tune_engine":
            _keep_choice(db, held)
        job_run.succeed(db, held, (held.result or {}) | {"versions": [str(name) for name in references.values()]})
        # Last, because no rollback undoes it.
        for digest, reference in references.items():
            bind_name(model_root, reference, digest)
    return "succeeded"


def _keep_choice(db: Connection, held: Claim) -> None:
    """Have the worker run a version as was found best, or again by its own engine."""
    registry.hold_registry(db)  # nobody drops it meanwhile
    model = held.parameters["models"]["model"]
    reference = ModelReference.parse(model["reference"])
    choice = (held.result or {}).get("choice")
    engine_choice.keep(db, reference, model["digest"], choice, held.job_id, held.created_by)


def _register(
    db: Connection, model_root: Path, target: Target, files: Sequence[tuple[str, Artifact]], created_by: str
) -> dict[str, ModelReference]:
    """Add the versions that are not there yet; the name of each artifact."""
    registry.hold_registry(db)
    existing = registry.versions_of(db, target.model)
    stem = target.version or _stem(model_root, target.model, files, existing)
    references = {}
    for new in name_versions(target, stem, files, existing):
        reference = references[new.files.digest] = ModelReference(target.model, check_name(new.version, "version"))
        if not new.is_registered:
            add_version(db, reference, target.task, new.files, target.description, new.base, created_by)
    return references


def _stem(model_root: Path, model: str, files: Sequence[tuple[str, Artifact]], existing: Sequence[VersionRow]) -> str:
    """The version that a job's main artifact has already, or the next that is free."""
    main = next((artifact for suffix, artifact in files if not suffix), files[0][1])
    known = next((row.version for row in existing if row.digest == main.digest), None)
    return known or next_version(model_root, model, main.digest, existing)


def name_versions(
    target: Target, stem: str, files: Sequence[tuple[str, Artifact]], existing: Sequence[VersionRow]
) -> list[NewVersion]:
    """The version of each artifact: the stem and its suffix, unless no name was asked for and it has one."""
    digests = {row.version: row.digest for row in existing}
    has_main = any(not suffix for suffix, _ in files)
    named = []
    for suffix, artifact in files:
        version = f"{stem}{suffix}"
        if target.version is None:
            version = next((row.version for row in existing if row.digest == artifact.digest), version)
        base = stem if suffix and has_main else target.base
        named.append(NewVersion(version, artifact, base, digests.get(version) == artifact.digest))
    return named


def rows_of(entry: Mapping[str, Any], references: Mapping[str, ModelReference]) -> Iterator[dict[str, Any]]:
    """The rows of an evaluation: a figure each. What was measured on something that got no name is left out."""
    digest = entry["digest"]
    reference = references.get(digest) if entry["of"] == "new" else ModelReference.parse(entry["of"])
    if reference is None:
        return
    for metric, value in entry["figures"].items():
        if type(value) in (int, float):
            yield {
                "model": reference.name,
                "version": reference.version,
                "artifact_sha256": digest,
                "metric": metric,
                "metric_value": value,
                **(entry["dataset"] or {}),
            }
