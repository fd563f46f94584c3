"""Copies checkpoints out of the model root and new ones into it, checked on either way."""

from __future__ import annotations

from pathlib import Path

from pgml_tune.engine import checkpoint
from pgml_tune.engine.artifact import Artifact, new_artifact
from pgml_tune.errors import ArtifactDamaged
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.publishing import Site, existing, export_model
from pgml_tune.jobs.source import Source, stage


def take(job: Job, role: str, target: Path) -> Source:
    """A private copy in `target`, an empty folder, of what one of the job's models was exported from."""
    model = job.models[role]
    folder, files_sha256 = checkpoint.locate(job.model_root, job.artifact(role).config(), model.reference)
    staged = stage(str(folder), target)
    if staged.files_sha256 != files_sha256:
        raise ArtifactDamaged(
            f'the checkpoint of model "{model.reference}" does not match its checksum',
            detail=f'It lies in "{folder}".',
            hint="Restore the folder from a copy, or remove it and import the model again.",
        )
    return staged


def publish_trained(saved: Path, task: str, name: str, base: str | None, job: Job, site: Site) -> Artifact:
    """Stage a folder that training has saved, export it, keep it as checkpoint, publish it and report it."""
    with new_artifact(site.model_root, site.label) as folder:
        staged = stage(str(saved), folder, name=name)
        made_by = job.made_by(base)
        artifact = existing(site.model_root, staged.files_sha256, task, "fp32", made_by)
        existed = artifact is not None
        artifact = artifact or export_model(staged, task, site, made_by)
        checkpoint.keep(site.model_root, folder, staged.files_sha256)
    site.report.artifact(artifact.digest, "", artifact.config().to_json(), existed=existed)
    return artifact
