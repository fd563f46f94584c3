"""Checkpoints: the model folders that artifacts were exported from, kept because training starts from them.

<model_root>/checkpoints/<files_sha256>/   the files of a staged model folder: safetensors, json, vocabularies
"""

from __future__ import annotations

import errno
from pathlib import Path

from pgml_tune.engine.artifact import no_removal, touch
from pgml_tune.engine.files import explained, sync
from pgml_tune.errors import NotReady
from pgml_tune.records import ArtifactConfig, is_digest

FOLDER = "checkpoints"


def keep(model_root: Path, staged: Path, files_sha256: str) -> None:
    """Make a staged folder, which lies below the model root, the checkpoint of its files."""
    target = model_root / FOLDER / files_sha256
    with explained(model_root):
        target.parent.mkdir(mode=0o755, exist_ok=True)
        for path in sorted(staged.rglob("*"), reverse=True):  # what a folder holds before the folder
            path.chmod(0o755 if path.is_dir() else 0o444)
            sync(path)
        staged.chmod(0o755)
        sync(staged)
        with no_removal(model_root):
            try:
                staged.rename(target)
            except OSError as error:
                # A folder that is there and not empty holds the same files, kept before.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            touch(target)
        sync(target.parent)


def locate(model_root: Path, config: ArtifactConfig, reference: str) -> tuple[Path, str]:
    """The checkpoint of an artifact, and the digest that its files must have."""
    files_sha256 = config.source.get("files_sha256")
    if not isinstance(files_sha256, str) or not is_digest(files_sha256):
        raise NotReady(
            f'model "{reference}" does not say which files it was made from',
            detail="Training starts from the files of the model that was imported.",
            hint="Import the model again.",
        )
    folder = model_root / FOLDER / files_sha256
    with explained(model_root):
        if not folder.is_dir():
            raise NotReady(
                f'the checkpoint of model "{reference}" is not on this machine',
                detail=f'Training starts from it, and there is no folder "{folder}".',
                hint="Import the model again, from the files it was made from: pgml-tune import keeps them.",
            )
        with no_removal(model_root):
            touch(folder)
    return folder, files_sha256
