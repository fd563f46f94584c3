import hashlib
import json
import os

import pytest

from pgml_tune.engine.artifact import (
    REQUIRED_FILES,
    Artifact,
    bind_name,
    bound_digest,
    new_artifact,
    publish,
)
from pgml_tune.errors import ArtifactDamaged, NameTaken, NotReady
from pgml_tune.records import ModelReference
from tests.unit.test_records import CONFIG

V1 = ModelReference("minilm", "v1")


@pytest.fixture
def artifact(tmp_path):
    with new_artifact(tmp_path) as folder:
        (folder / "config.json").write_text(json.dumps(CONFIG))
        (folder / "model.onnx").write_bytes(b"onnx" * 100)
        (folder / "tokenizer.json").write_text("{}")
        return publish(tmp_path, folder)


def test_a_published_artifact_lies_under_its_digest_and_can_be_read(tmp_path, artifact):
    again = Artifact(tmp_path, artifact.digest)
    again.verify()
    assert again.config().dimensions == CONFIG["dimensions"]
    assert again.size_bytes == sum(
        (again.folder / name).stat().st_size for name in ("config.json", "model.onnx", "tokenizer.json")
    )
    assert not list(tmp_path.glob(".building-*"))


def test_the_same_content_published_twice_is_one_artifact(tmp_path, artifact):
    with new_artifact(tmp_path) as folder:
        for name in ("config.json", "model.onnx", "tokenizer.json"):
            (folder / name).write_bytes((artifact.folder / name).read_bytes())
        assert publish(tmp_path, folder).digest == artifact.digest
    assert not list(tmp_path.glob(".building-*"))


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "tokenizer.json", "manifest.json"])
def test_a_changed_file_is_found(tmp_path, artifact, name):
    path = artifact.folder / name
    os.chmod(path, 0o644)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactDamaged):
        Artifact(tmp_path, artifact.digest).verify()


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_swapped_for_a_link_is_refused(tmp_path, artifact, name):
    path = artifact.folder / name
    path.rename(tmp_path / "aside")
    path.symlink_to(tmp_path / "aside")
    with pytest.raises(ArtifactDamaged):
        artifact.verify()


def test_a_file_swapped_for_a_pipe_is_refused_without_waiting(tmp_path, artifact):
    path = artifact.folder / "model.onnx"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ArtifactDamaged):
        artifact.verify()


def test_a_hard_linked_file_is_refused(tmp_path, artifact):
    os.link(artifact.folder / "model.onnx", tmp_path / "elsewhere")
    with pytest.raises(ArtifactDamaged):
        artifact.verify()


def with_manifest(model_root, content):
    """The digest of a folder that holds nothing but a manifest, whose checksum is right."""
    digest = hashlib.sha256(content).hexdigest()
    (model_root / digest).mkdir()
    (model_root / digest / "manifest.json").write_bytes(content)
    return digest


NOT_OBJECTS = [b"", b"\xff\xfe", b"{", b"[]", b"null", b"1", b"[" * 100_000, b'{"a":' * 100_000]
ENTRIES = [None, [], "x", {}, {"sha256": "x"}, {"sha256": 1, "size": 1}, {"sha256": "x", "size": "1"},
           {"sha256": "x", "size": True}, {"sha256": "x", "size": -1}]  # fmt: skip


@pytest.mark.parametrize("content", NOT_OBJECTS, ids=lambda content: repr(content[:8]))
def test_a_manifest_that_is_no_json_object_is_damaged(tmp_path, content):
    digest = with_manifest(tmp_path, content)
    with pytest.raises(ArtifactDamaged):
        Artifact(tmp_path, digest)


@pytest.mark.parametrize(
    "files",
    [None, [], "x", {}, {"config.json": {}}, *({name: entry for name in sorted(REQUIRED_FILES)} for entry in ENTRIES)],
    ids=repr,
)
def test_a_manifest_with_entries_of_another_form_is_damaged(tmp_path, files):
    digest = with_manifest(tmp_path, json.dumps({"files": files}).encode())
    with pytest.raises(ArtifactDamaged):
        Artifact(tmp_path, digest)


@pytest.mark.parametrize("content", NOT_OBJECTS, ids=lambda content: repr(content[:8]))
def test_a_configuration_that_is_no_json_object_is_damaged(tmp_path, content):
    with new_artifact(tmp_path) as folder:
        (folder / "config.json").write_bytes(content)
        (folder / "model.onnx").write_bytes(b"")
        (folder / "tokenizer.json").write_text("{}")
        artifact = publish(tmp_path, folder)
    with pytest.raises(ArtifactDamaged):
        artifact.config()


@pytest.mark.parametrize("name", ["config.json", "model.onnx", "tokenizer.json", "manifest.json"])
def test_an_import_replaces_a_damaged_artifact(tmp_path, artifact, name):
    kept = {path.name: path.read_bytes() for path in artifact.folder.iterdir()}
    (artifact.folder / name).unlink()
    (artifact.folder / name).write_bytes(b"damaged")
    with new_artifact(tmp_path) as folder:
        for file in ("config.json", "model.onnx", "tokenizer.json"):
            (folder / file).write_bytes(kept[file])
        assert publish(tmp_path, folder).digest == artifact.digest
    assert {path.name: path.read_bytes() for path in artifact.folder.iterdir()} == kept
    (aside,) = tmp_path.glob(".building-*")
    assert (aside / name).read_bytes() == b"damaged"


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"[]", b"\xff"], ids=lambda content: repr(content[:8]))
def test_a_damaged_note_of_the_last_check_is_of_no_effect(tmp_path, artifact, content):
    (tmp_path / "verified" / artifact.digest).write_bytes(content)
    Artifact(tmp_path, artifact.digest).verify()
    assert json.loads((tmp_path / "verified" / artifact.digest).read_bytes())


def test_unchanged_files_are_hashed_once(tmp_path, artifact, monkeypatch):
    hashed = []
    monkeypatch.setattr("pgml_tune.engine.artifact.hash_file", lambda path: hashed.append(path))
    Artifact(tmp_path, artifact.digest).verify()
    assert hashed == []


def test_a_digest_without_files_is_not_ready(tmp_path):
    with pytest.raises(NotReady):
        Artifact(tmp_path, "0" * 64)


def test_a_foreign_file_cannot_be_published(tmp_path):
    with pytest.raises(ArtifactDamaged), new_artifact(tmp_path) as folder:
        (folder / "model.pkl").write_bytes(b"")
        publish(tmp_path, folder)


def test_a_name_means_one_digest_for_ever(tmp_path):
    assert bound_digest(tmp_path, V1) is None
    bind_name(tmp_path, V1, "a" * 64)
    bind_name(tmp_path, V1, "a" * 64)
    assert bound_digest(tmp_path, V1) == "a" * 64
    with pytest.raises(NameTaken):
        bind_name(tmp_path, V1, "b" * 64)
    assert bound_digest(tmp_path, V1) == "a" * 64


def test_a_folder_that_cannot_be_used_is_named(tmp_path):
    (tmp_path / "names").write_text("not a folder")
    with pytest.raises(NotReady):
        bind_name(tmp_path, V1, "a" * 64)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 63, b"G" * 64, b"a" * 64 + b"b" * 10_000])
def test_a_name_without_a_digest_is_damaged(tmp_path, content):
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "minilm@v1").write_bytes(content)
    with pytest.raises(ArtifactDamaged):
        bound_digest(tmp_path, V1)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_a_name_that_is_no_plain_file_is_damaged_and_not_waited_for(tmp_path, make):
    (tmp_path / "names").mkdir()
    make(tmp_path / "names" / "minilm@v1")
    with pytest.raises(ArtifactDamaged):
        bound_digest(tmp_path, V1)
