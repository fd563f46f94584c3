"""Versions are immutable, pointers move, and every session sees a change with its next statement."""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from conditions import fetch_value, refused
from conftest import Connect

from pgml_tune.engine.artifact import new_artifact, publish


@pytest.fixture
def name() -> str:
    """A model name of its own: what the model root has bound stays bound."""
    return f"model-{uuid.uuid4().hex[:12]}"


Publish = Callable[..., Path]


@pytest.fixture
def published(server_home: Path) -> Publish:
    """Publishes an artifact of its own: a working one with some files and some of its configuration replaced."""
    models = server_home / "models"
    original = models / (models / "names" / "minilm@v1-int8").read_text().strip()

    def publish_changed(files: dict[str, bytes] | None = None, **changes: Any) -> Path:
        with new_artifact(models) as folder:
            for file in ("model.onnx", "model.onnx.data", "tokenizer.json"):
                shutil.copyfile(original / file, folder / file)
            config = orjson.loads((original / "config.json").read_bytes())
            config |= {"source": {"copy": uuid.uuid4().hex}} | changes
            (folder / "config.json").write_bytes(orjson.dumps(config))
            for file, content in (files or {}).items():
                (folder / file).write_bytes(content)
            return publish(models, folder).folder

    return publish_changed


@pytest.fixture
def artifact(published: Publish) -> Path:
    """A working artifact that no other test uses."""
    return published()


def register(session: psycopg.Connection[Any], name: str, artifact: str, version: str | None = None) -> str:
    return str(fetch_value(session, "SELECT register_model(%s, %s, 'embedding', %s::text)", (name, artifact, version)))


def test_registration_is_seen_by_the_next_statement_of_another_session(connect: Connect, name: str) -> None:
    one, other = connect(), connect()
    with refused("42704"):
        other.execute("SELECT embed('a', %s)", (name,))
    assert register(one, name, "minilm@v1") == "v1"
    assert fetch_value(other, "SELECT vector_dims(embed('a', %s))", (name,)) == 384
    one.execute("SELECT drop_model_version(%s, 'v1')", (name,))
    with refused("42704"):
        other.execute("SELECT embed('a', %s)", (name,))


def test_setting_is_seen_by_the_next_statement_of_another_session(connect: Connect) -> None:
    one, other = connect(), connect()
    other.execute("BEGIN")
    assert fetch_value(other, "SELECT vector_dims(embed('a longer text'))") == 384
    one.execute("SELECT configure('max_input_bytes', '3')")
    with refused("54000"):
        other.execute("SELECT embed('a longer text')")
    other.execute("ROLLBACK")
    one.execute("SELECT configure('max_input_bytes', NULL)")
    assert fetch_value(other, "SELECT vector_dims(embed('a longer text'))") == 384


def test_rolled_back_registration_and_setting_have_no_effect(connect: Connect, name: str) -> None:
    one, other = connect(), connect()
    one.execute("BEGIN")
    register(one, name, "minilm@v1")
    one.execute("SELECT configure('max_input_bytes', '3')")
    assert fetch_value(one, "SELECT vector_dims(embed('abc', %s))", (name,)) == 384
    one.execute("ROLLBACK")
    for session in (one, other):
        with refused("42704"):
            session.execute("SELECT embed('abc', %s)", (name,))
        assert fetch_value(session, "SELECT vector_dims(embed('longer than three bytes'))") == 384
    assert fetch_value(other, "SELECT count(*) FROM pgml_tune.models") == 1


def test_first_version_serves_and_later_ones_move_no_pointer(db: psycopg.Connection[Any], name: str) -> None:
    assert register(db, name, "minilm@v1") == "v1"
    assert register(db, name, "minilm@v1-int8") == "v2"
    serving = "SELECT serving_version, is_default, version_count FROM pgml_tune.models WHERE model = %s"
    assert db.execute(serving, (name,)).fetchone() == ("v1", False, 2)
    assert fetch_value(db, "SELECT model FROM pgml_tune.models WHERE is_default") == "minilm"
    history = "SELECT kind, from_target, to_target FROM pgml_tune.rollout_history WHERE pointer = %s"
    assert db.execute(history, (name,)).fetchall() == [("version", None, "v1")]


def test_version_never_means_another_artifact(db: psycopg.Connection[Any], name: str) -> None:
    register(db, name, "minilm@v1", "v1")
    with refused("42710"):
        register(db, name, "minilm@v1-int8", "v1")
    db.execute("SELECT drop_model_version(%s, 'v1')", (name,))
    with refused("42710"):
        register(db, name, "minilm@v1-int8", "v1")
    assert register(db, name, "minilm@v1", "v1") == "v1"


def test_serving_version_and_default_model_cannot_be_dropped(db: psycopg.Connection[Any], name: str) -> None:
    with refused("55000"):
        db.execute("SELECT drop_model_version('minilm', 'v1')")
    assert fetch_value(db, "SELECT vector_dims(embed('a'))") == 384
    with refused("42704"):
        db.execute("SELECT drop_model_version(%s, 'v1')", (name,))


@pytest.mark.parametrize("column", ["dimensions = 3", "artifact_sha256 = repeat('0', 64)", "version = 'v7'"])
def test_ready_version_cannot_be_changed(db: psycopg.Connection[Any], column: str) -> None:
    with refused("55000"):
        db.execute(f"UPDATE pgml_tune.model_version SET {column} WHERE version = 'v1'")
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.model_versions WHERE version = 'v1'") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE pgml_tune.serving_history SET reason = 'another'",
        "DELETE FROM pgml_tune.serving_history",
        "TRUNCATE pgml_tune.serving_history",
    ],
)
def test_history_is_append_only(db: psycopg.Connection[Any], sql: str) -> None:
    before = fetch_value(db, "SELECT count(*) FROM pgml_tune.rollout_history")
    assert before > 0
    with refused("55000"):
        db.execute(sql)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.rollout_history") == before


def test_version_that_is_not_ready_is_refused(db: psycopg.Connection[Any]) -> None:
    db.execute(
        "INSERT INTO pgml_tune.model_version (model_id, version, artifact_sha256, space_id, dimensions, max_tokens,"
        " storage, bytes, is_batch_invariant) SELECT model_id, 'draft', artifact_sha256, space_id, dimensions,"
        " max_tokens, storage, bytes, is_batch_invariant FROM pgml_tune.model_version WHERE version = 'v1'"
    )
    with refused("55000"):
        db.execute("SELECT embed('a', 'minilm@draft')")


def test_damaged_artifact_is_refused_by_new_sessions_and_named_by_doctor(
    connect: Connect, name: str, artifact: Path
) -> None:
    register(connect(), name, artifact.name)
    assert fetch_value(connect(), "SELECT vector_dims(embed('a', %s))", (name,)) == 384
    model = artifact / "model.onnx.data"
    model.chmod(0o644)
    with model.open("r+b") as file:
        file.seek(model.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    with refused("XX001"):
        connect().execute("SELECT embed('a text that no cache has', %s)", (name,))
    with refused("XX001"):
        connect().execute("SELECT embed_pinned('a', %s, 'v1')", (name,))
    check = f"model {name}@v1"
    assert fetch_value(connect(), "SELECT status FROM doctor() WHERE check_name = %s", (check,)) == "fail"
    with refused("XX001"):
        register(connect(), f"{name}-again", artifact.name)


@pytest.mark.parametrize(
    "changes",
    [
        {"dimensions": 383},
        {"max_tokens": 513},
        {"pad_token_id": 30522},
        {"files": {"model.onnx": b"garbage"}},
        {"files": {"model.onnx.data": b""}},
        {"files": {"tokenizer.json": b"{"}},
        {"files": {"config.json": b"\xff"}},
    ],
    ids=str,
)
def test_artifact_that_does_not_work_is_refused(
    db: psycopg.Connection[Any], name: str, published: Publish, changes: dict[str, Any]
) -> None:
    folder = published(**changes)
    with refused("XX001"):
        register(db, name, folder.name)
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.models WHERE model = %s", (name,)) == 0
    assert register(db, name, "minilm@v1-int8") == "v1"
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "changes", [{"dimensions": 0}, {"max_tokens": "256"}, {"space_id": "a\0"}, {"metrics": []}], ids=str
)
def test_configuration_of_wrong_values_is_refused(
    db: psycopg.Connection[Any], name: str, published: Publish, changes: dict[str, Any]
) -> None:
    folder = published(**changes)
    with refused("22023"):
        register(db, name, folder.name)
    shutil.rmtree(folder)


def test_pipe_in_the_place_of_a_name_is_not_waited_for(
    db: psycopg.Connection[Any], name: str, server_home: Path
) -> None:
    pipe = server_home / "models" / "names" / f"{name}@v1"
    os.mkfifo(pipe)
    with refused("XX001"):
        db.execute("SELECT embed_pinned('a', %s, 'v1')", (name,))
    with refused("XX001"):
        register(db, name, f"{name}@v1")
    pipe.unlink()


def test_long_text_has_the_vector_of_its_beginning(db: psycopg.Connection[Any]) -> None:
    cosine = "SELECT semantic_similarity(repeat('many words ', 300), repeat('many words ', 90000))"
    assert fetch_value(db, cosine) == pytest.approx(1)
    assert fetch_value(db, "SELECT token_count(repeat('many words ', 90000))") == 180_002


def test_functions_named_as_those_of_the_extension_are_named_by_doctor(db: psycopg.Connection[Any]) -> None:
    check = "SELECT status, fix FROM doctor() WHERE check_name = 'namesakes'"
    assert db.execute(check).fetchone() == ("ok", "")
    db.execute("CREATE FUNCTION embed(a name) RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$")
    row = db.execute(check).fetchone()
    assert row == ("fail", "DROP ROUTINE public.embed(a name)")
    db.execute("DROP ROUTINE public.embed(a name)")
    assert db.execute(check).fetchone() == ("ok", "")


def test_missing_artifact_is_refused(connect: Connect, name: str, artifact: Path) -> None:
    register(connect(), name, artifact.name)
    shutil.rmtree(artifact)
    with refused("55000"):
        connect().execute("SELECT embed('a', %s)", (name,))
    check = f"model {name}@v1"
    assert fetch_value(connect(), "SELECT status FROM doctor() WHERE check_name = %s", (check,)) == "fail"


def test_doctor_finds_a_sound_installation_and_no_training_library(connect: Connect) -> None:
    session = connect()
    session.execute("SELECT embed('a'), embed_pinned('a', 'minilm', 'v1'), semantic_similarity('a', 'b')")
    checks = session.execute("SELECT check_name, status, fix FROM doctor()").fetchall()
    assert {name: fix for name, status, fix in checks if status == "fail"} == {}
    assert ("backend imports", "ok", "") in checks
