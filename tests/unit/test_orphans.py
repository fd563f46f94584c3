"""What maintain() may remove from the file system, and what it must not."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from pgml_tune.engine import orphans
from pgml_tune.engine.artifact import bind_name, new_artifact, no_removal, publish
from pgml_tune.engine.orphans import Stored, Users, choose, left_over, remove, survey
from pgml_tune.records import ModelReference

HOUR = 3600.0
A, B = Path("/m") / ("a" * 64), Path("/m") / ("b" * 64)
NOBODY = Users(16384, frozenset(), frozenset())


def test_an_artifact_that_nobody_names_goes_after_an_hour():
    stored = Stored(artifacts={A: 2 * HOUR, B: 0.5 * HOUR})
    assert choose(stored, NOBODY) == [A]


def test_an_artifact_that_is_bound_or_registered_or_published_by_a_live_job_stays():
    stored = Stored(artifacts={A: 2 * HOUR, B: 2 * HOUR}, bound=frozenset({A.name}))
    assert choose(stored, Users(16384, {B.name}, frozenset())) == []


def test_a_checkpoint_that_no_artifact_was_made_from_goes_after_an_hour():
    stored = Stored(checkpoints={A: 2 * HOUR, B: 0.5 * HOUR})
    assert choose(stored, NOBODY) == [A]
    assert choose(Stored(checkpoints={A: 2 * HOUR}, sources=frozenset({A.name})), NOBODY) == []


def test_no_checkpoint_goes_while_an_artifact_cannot_be_read():
    assert choose(Stored(checkpoints={A: 2 * HOUR}, sources=None), NOBODY) == []


@pytest.mark.parametrize(
    ("name", "age", "goes"),
    [
        (".building-16384-42-1-abc_d12x", 0, True),
        (".building-16384-42-1-abc_d12x-damaged", 0, True),
        (".building-16384-43-1-abc_d12x", 30 * HOUR, False),
        (".building-16384-43-2-abc_d12x", 0, True),
        (".building-5-42-1-abc_d12x", 0, False),
        (".building-5-42-1-abc_d12x", 25 * HOUR, True),
        (".building-abc_d12x", 23 * HOUR, False),
        (".building-abc_d12x", 25 * HOUR, True),
        ("16384-42-1", 0, True),
        ("16384-43-1", 30 * HOUR, False),
        ("5-42-1", HOUR, False),
    ],
)
def test_folders_go_with_the_job_that_made_them(name, age, goes):
    path = Path("/m") / name
    users = Users(16384, frozenset(), {"16384-43-1"})
    for stored in (Stored(building={path: age}), Stored(jobs={path: age})):
        assert choose(stored, users) == ([path] if goes else [])


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 2 * HOUR,) * 2)


def make_artifact(root: Path, files_sha256: str) -> Path:
    from tests.unit.test_records import CONFIG

    with new_artifact(root) as folder:
        config = CONFIG | {"source": {"files_sha256": files_sha256}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.onnx").write_bytes(b"")
        (folder / "tokenizer.json").write_text("{}")
        return publish(root, folder).folder


def test_what_is_left_is_removed_and_the_rest_stays(tmp_path):
    root, spool = tmp_path / "models", tmp_path / "spool"
    kept, lost = make_artifact(root, "c" * 64), make_artifact(root, "d" * 64)
    bind_name(root, ModelReference("minilm", "v1"), kept.name)
    needed, orphaned = root / "checkpoints" / ("c" * 64), root / "checkpoints" / ("e" * 64)
    building, live = root / ".building-16384-1-1-abcd", spool / "jobs" / "16384-2-1"
    dead = spool / "jobs" / "16384-1-1"
    for folder in (needed, orphaned, building, live, dead):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"")
    make_old(kept, lost, needed, orphaned)
    users = Users(16384, frozenset(), {"16384-2-1"})
    removed = remove(root, spool, survey(root, spool), users)
    assert sorted(removed) == sorted([lost, orphaned, building, dead])
    assert not any(path.exists() for path in removed)
    assert not (root / "verified" / lost.name).exists()
    assert kept.exists() and needed.exists() and live.exists()
    # The checkpoint of what went goes with the next run, and then there is nothing left to do.
    assert remove(root, spool, survey(root, spool), users) == []
    assert not list(root.glob(".building-*"))


def test_what_was_published_again_meanwhile_stays(tmp_path):
    artifact = make_artifact(tmp_path, "c" * 64)
    make_old(artifact)
    seen = survey(tmp_path, tmp_path)
    assert choose(seen, NOBODY) == [artifact]
    assert make_artifact(tmp_path, "c" * 64) == artifact
    assert remove(tmp_path, tmp_path, seen, NOBODY) == []
    assert artifact.exists()


def test_what_came_after_the_users_were_asked_for_stays(tmp_path):
    seen = survey(tmp_path, tmp_path)
    late = tmp_path / ".building-16384-9-1-abcd"
    late.mkdir()
    assert remove(tmp_path, tmp_path, seen, NOBODY) == []
    assert late.exists()


def test_nobody_removes_while_somebody_publishes(tmp_path):
    artifact = make_artifact(tmp_path, "c" * 64)
    make_old(artifact)
    seen, removed = survey(tmp_path, tmp_path), []
    thread = threading.Thread(target=lambda: removed.extend(remove(tmp_path, tmp_path, seen, NOBODY)))
    with no_removal(tmp_path):
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        bind_name(tmp_path, ModelReference("minilm", "v1"), artifact.name)
    thread.join(10)
    assert (removed, artifact.exists()) == ([], True)


def test_an_artifact_of_a_later_version_still_names_its_checkpoint(tmp_path):
    artifact = make_artifact(tmp_path, "c" * 64)
    (artifact / "config.json").chmod(0o644)
    (artifact / "config.json").write_text(json.dumps({"new field": 1, "source": {"files_sha256": "f" * 64}}))
    assert survey(tmp_path, tmp_path).sources == {"f" * 64}
    (artifact / "config.json").write_text("{")
    assert survey(tmp_path, tmp_path).sources is None


def test_folders_that_were_left_are_found_after_a_day(tmp_path):
    for name, hours in (("old", 25), ("new", 1)):
        (tmp_path / f".building-{name}").mkdir()
        os.utime(tmp_path / f".building-{name}", (time.time() - hours * HOUR,) * 2)
    assert left_over(tmp_path) == [tmp_path / ".building-old"]
    assert orphans.survey(tmp_path, tmp_path / "none").jobs == {}
