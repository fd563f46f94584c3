"""Checkpoints below the model root."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pgml_tune.engine import checkpoint
from pgml_tune.engine.artifact import new_artifact
from pgml_tune.errors import NotReady
from pgml_tune.records import ArtifactConfig
from tests.unit.test_records import CONFIG

SHA = "c" * 64


def config(files_sha256: object) -> ArtifactConfig:
    return replace(ArtifactConfig.from_json(CONFIG), source={"files_sha256": files_sha256})


def keep(root: Path) -> Path:
    with new_artifact(root) as folder:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        checkpoint.keep(root, folder, SHA)
    return root / "checkpoints" / SHA


def test_a_checkpoint_is_kept_whole_and_cannot_be_written(tmp_path):
    kept = keep(tmp_path)
    assert {path.name for path in kept.rglob("*")} == {"1_Pooling", "config.json", "model.safetensors"}
    assert stat.S_IMODE((kept / "model.safetensors").stat().st_mode) == 0o444
    assert stat.S_IMODE(kept.stat().st_mode) == 0o755
    assert not list(tmp_path.glob(".building-*"))


def test_the_same_checkpoint_twice_is_one_and_young_again(tmp_path):
    kept = keep(tmp_path)
    os.utime(kept, (0, 0))
    assert keep(tmp_path) == kept
    assert time.time() - kept.stat().st_mtime < 60
    assert not list(tmp_path.glob(".building-*"))


def test_a_checkpoint_is_found_by_what_the_artifact_says(tmp_path):
    kept = keep(tmp_path)
    assert checkpoint.locate(tmp_path, config(SHA), "m@v1") == (kept, SHA)


@pytest.mark.parametrize("files_sha256", [None, 1, "../../etc", "d" * 64])
def test_a_checkpoint_that_is_not_there_is_not_ready(tmp_path, files_sha256):
    keep(tmp_path)
    with pytest.raises(NotReady):
        checkpoint.locate(tmp_path, config(files_sha256), "m@v1")
