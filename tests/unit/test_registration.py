"""What `register_model()` demands before anything is written."""

import pytest

from pgml_tune.engine.artifact import bound_digest
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, ObjectNotFound
from pgml_tune.records import ModelReference
from pgml_tune.service import registry


@pytest.fixture
def written(monkeypatch):
    """The versions that were added to the registry."""
    references = []
    monkeypatch.setattr(registry.registry, "versions_of", lambda db, name: [])
    monkeypatch.setattr(
        registry.registry, "register_version", lambda db, reference, *rest: references.append(str(reference))
    )
    return references


def register(model_root, artifact, try_out=lambda artifact: None, version=None):
    return registry.register(None, model_root, try_out, "minilm", artifact, "embedding", version, None)


def test_an_artifact_is_tried_out_and_then_registered(tmp_path, written, digest):
    tried = []
    assert register(tmp_path, digest, tried.append) == "v1"
    assert [artifact.digest for artifact in tried] == [digest]
    assert written == ["minilm@v1"]
    assert bound_digest(tmp_path, ModelReference("minilm", "v1")) == digest


def test_an_artifact_that_does_not_work_is_not_registered(tmp_path, written, digest):
    def fail(artifact):
        raise ArtifactDamaged("the model returned 3 dimensions, its configuration says 4")

    with pytest.raises(ArtifactDamaged):
        register(tmp_path, digest, fail)
    assert written == []
    assert bound_digest(tmp_path, ModelReference("minilm", "v1")) is None


@pytest.mark.parametrize("version", ["", "V1", "a/b", "a..b"])
def test_a_version_that_is_not_valid_is_refused_before_the_model_is_loaded(tmp_path, written, digest, version):
    with pytest.raises(InvalidArgument):
        register(tmp_path, digest, lambda artifact: pytest.fail("loaded"), version)


@pytest.mark.parametrize("artifact", ["/etc/passwd", "", "minilm", "minilm@", "@v1", "a@b@c", "G" * 64, "../x@v1"])
def test_what_is_neither_a_digest_nor_a_name_and_version_is_said_to_be(tmp_path, artifact):
    with pytest.raises(InvalidArgument, match="neither a sha256 nor a name@version"):
        register(tmp_path, artifact)


def test_a_name_that_is_not_bound_is_not_found(tmp_path):
    with pytest.raises(ObjectNotFound, match='"minilm@v1" is not bound'):
        register(tmp_path, "minilm@v1")


def test_a_serving_version_is_kept_and_the_way_to_drop_it_said(monkeypatch):
    monkeypatch.setattr(registry.registry, "drop_version", lambda db, name, version: "serving")
    with pytest.raises(registry.NotReady) as caught:
        registry.drop(None, "minilm", "v1")
    assert "Drop the other versions first" in caught.value.hint
