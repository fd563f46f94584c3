"""Registering and dropping versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pgml_tune.db import Database
from pgml_tune.engine.artifact import Artifact, bind_name, bound_digest
from pgml_tune.errors import InvalidArgument, NameTaken, NotReady, NotSupported, ObjectNotFound
from pgml_tune.records import TASKS, ModelReference, check_name, is_digest, is_valid_name
from pgml_tune.service.options import parse_options
from pgml_tune.store import registry
from pgml_tune.store.registry import VersionRow

_SHOW_VERSIONS = "SELECT model, version, state FROM pgml_tune.model_versions"
_IMPORT = "Run: pgml-tune import SOURCE --name NAME"
_MAX_DESCRIPTION = 10_000


@dataclass(frozen=True, slots=True)
class RegisterOptions:
    """The options of `register_model()`."""

    description: str | None = None
    base: str | None = None  # the version it was derived from

    @classmethod
    def parse(cls, text: str | None) -> RegisterOptions:
        values = parse_options(text, cls.__slots__, "'description', 'text'")
        for name, value in values.items():
            if value is not None and (type(value) is not str or len(value) > _MAX_DESCRIPTION):
                raise InvalidArgument(f'option "{name}" is not a text of at most {_MAX_DESCRIPTION} characters')
        return cls(**values)


def register(
    db: Database,
    model_root: Path,
    try_out: Callable[[Artifact], None],
    name: str | None,
    artifact: str | None,
    task: str | None,
    version: str | None,
    options: str | None,
) -> str:
    """Check an artifact and try it out, add the version and bind `name@version` to it; returns the version."""
    if name is None or artifact is None:
        raise InvalidArgument("name and artifact must not be NULL")
    check_name(name, "model")
    if task not in TASKS:
        raise InvalidArgument("there is no such task", detail=f"Tasks are: {', '.join(TASKS)}.")
    if version is not None:
        check_name(version, "version")
    chosen = RegisterOptions.parse(options)
    files = checked_artifact(model_root, _digest_of(model_root, artifact), task)
    # Before the versions are read: it takes long, and others may register meanwhile.
    try_out(files)
    existing = registry.versions_of(db, name)
    if version is None:
        version = next_version(model_root, name, files.digest, existing)
    reference = ModelReference(name, version)
    if any(row.version == version for row in existing):
        raise _taken(reference)
    add_version(db, reference, task, files, chosen.description, chosen.base)
    # Last, because no rollback undoes it.
    bind_name(model_root, reference, files.digest)
    return version


def checked_artifact(model_root: Path, digest: str, task: str) -> Artifact:
    """An artifact whose files are what its manifest says, and that does this task."""
    files = Artifact(model_root, digest)
    files.verify(force=True)
    does = files.config().task
    if does != task:
        raise NotSupported(f'the artifact does "{does}", not "{task}"')
    return files


def add_version(
    db: Database,
    reference: ModelReference,
    task: str,
    files: Artifact,
    description: str | None,
    base: str | None,
    created_by: str | None = None,
) -> None:
    """Add a version to the registry, as the session's user or in somebody's name."""
    outcome = registry.register_version(
        db, reference, task, files.digest, files.size_bytes, files.config().to_json(), description, base, created_by
    )
    if outcome == "taken":
        raise _taken(reference)
    if outcome == "no base":
        raise ObjectNotFound(
            f'model "{reference.name}" has no version of the name given as base', hint=_SHOW_VERSIONS
        )
    if outcome == "other task":
        raise NameTaken(
            f'model "{reference.name}" exists and has another task', hint="SELECT model, task FROM pgml_tune.models"
        )


def drop(db: Database, name: str | None, version: str | None) -> None:
    """Remove a version that does not serve."""
    if name is None or version is None:
        raise InvalidArgument("name and version must not be NULL")
    reference = ModelReference(check_name(name, "model"), check_name(version, "version"))
    outcome = registry.drop_version(db, name, version)
    if outcome == "missing":
        raise ObjectNotFound(f'version "{reference}" does not exist', hint=_SHOW_VERSIONS)
    if outcome == "used":
        raise NotReady(
            f'vectors of version "{reference}" are in use, it cannot be dropped',
            hint="SELECT collection FROM pgml_tune.embedding_collections"
            f" WHERE model = '{name}' AND version = '{version}'",
        )
    if outcome == "serving":
        raise NotReady(
            f'version "{reference}" serves and cannot be dropped',
            detail="Calls that name the model without a version go to it.",
            hint="Drop the other versions first: the last version of a model may be dropped.",
        )
    if outcome == "way back":
        raise NotReady(
            f'version "{reference}" is what rollback_model() goes back to and cannot be dropped yet',
            hint="SELECT configure('rollback_window_hours', '0')",
        )
    if outcome == "default":
        raise NotReady(
            f'"{reference}" is the last version of the default model of its task and cannot be dropped',
            hint="SELECT * FROM pgml_tune.models",
        )


def _digest_of(model_root: Path, artifact: str) -> str:
    if is_digest(artifact):
        return artifact
    name, _, version = artifact.partition("@")
    if not (is_valid_name(name) and is_valid_name(version)):
        raise InvalidArgument("artifact is neither a sha256 nor a name@version", hint=_IMPORT)
    digest = bound_digest(model_root, ModelReference(name, version))
    if digest is None:
        raise ObjectNotFound(
            f'"{artifact}" is not bound to an artifact on this machine',
            detail="A registration binds name@version to an artifact, on the machine it runs on.",
            hint=_IMPORT,
        )
    return digest


def next_version(model_root: Path, name: str, digest: str, existing: Sequence[VersionRow]) -> str:
    """The first of v1, v2, ... that is free here and does not mean another artifact on this machine."""
    for row in existing:
        if row.digest == digest:
            raise NameTaken(f'the artifact is registered already, as "{name}@{row.version}"')
    taken = {row.version for row in existing}
    number = 1
    while f"v{number}" in taken or bound_digest(model_root, ModelReference(name, f"v{number}")) not in (None, digest):
        number += 1
    return f"v{number}"


def _taken(reference: ModelReference) -> NameTaken:
    return NameTaken(f'version "{reference}" exists already', hint=_SHOW_VERSIONS)
