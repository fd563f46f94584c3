"""Rows whose texts crash a model, or make it fail: they are given up, others are embedded, and the model goes on."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conditions import fetch_value, wait_until
from job_workers import Installation, Workers, workers_of
from queue_parts import wait_until_fed

# Read by every process of the worker when it starts: lets the one that serves models crash or fail on certain texts.
HOOK = """
import os, signal, sys
if "pgml_tune.serving" in sys.orig_argv:
    from pgml_tune.engine.encoder import Encoder
    read, run, crashing, failing = Encoder.read, Encoder.run, set(), set()
    def read_and_mark(self, texts, kind):
        found = read(self, texts, kind)
        for text, tokens in zip(texts, found):
            if "poison" in text:
                crashing.add(tuple(tokens.ids))
            if "riddle" in text:
                failing.add(tuple(tokens.ids))
        return found
    def run_or_crash(self, token_ids):
        if any(tuple(ids) in crashing for ids in token_ids):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any(tuple(ids) in failing for ids in token_ids):
            raise RuntimeError("non-zero status code returned while running a node")
        return run(self, token_ids)
    Encoder.read, Encoder.run = read_and_mark, run_or_crash
"""


@dataclass(frozen=True)
class Hooked(Installation):
    """Processes that find the hook before all else."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        own = super().environment
        return own | {"PYTHONPATH": f"{self.folder}:{own['PYTHONPATH']}"}


@pytest.fixture
def workers(server_home: Path, db: psycopg.Connection[Any]) -> Iterator[Workers]:
    folder = server_home / "hook"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(HOOK)
    try:
        with workers_of(Hooked(server_home, folder), db) as started:
            yield started
    finally:
        shutil.rmtree(folder)


def test_a_text_that_the_model_fails_on_keeps_no_other_waiting(
    db: psycopg.Connection[Any], workers: Workers
) -> None:
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 60) AS g")
    db.execute("UPDATE doc SET body = 'a riddle' WHERE id = 17")
    db.execute("CALL auto_embed('doc', 'body', mode => 'queue')")
    workers.start("--database", workers.database, "--serve")
    wait_until(lambda: fetch_value(db, "SELECT embedded FROM pgml_tune.embedding_collections") == 59, 60)

    def is_given_up() -> bool:
        db.execute("UPDATE pgml_tune.queue SET due_at = NULL")  # as if the time had come
        failed = "SELECT EXISTS (SELECT FROM pgml_tune.queue_failures WHERE sqlstate = '58000' AND tries = 5)"
        return bool(fetch_value(db, failed))

    wait_until(is_given_up, 60)


def test_a_text_that_crashes_the_model_is_given_up_and_the_model_goes_on(
    db: psycopg.Connection[Any], workers: Workers
) -> None:
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, body text)")
    db.execute("INSERT INTO doc SELECT g, 'text number ' || g FROM generate_series(1, 60) AS g")
    db.execute("UPDATE doc SET body = 'poison of kind ' || id WHERE id IN (17, 44)")
    db.execute("CALL auto_embed('doc', 'body', mode => 'queue', options => '{\"batch_size\": 30}')")
    workers.start("--database", workers.database, "--serve")
    wait_until(lambda: fetch_value(db, "SELECT count(*) FROM pgml_tune.queue_failures") == 2, 120)
    failures = "SELECT key ->> 'id', sqlstate FROM pgml_tune.queue_failures ORDER BY 1"
    assert db.execute(failures).fetchall() == [("17", "58000"), ("44", "58000")]
    wait_until_fed(db)
    assert fetch_value(db, "SELECT embedded FROM pgml_tune.embedding_collections") == 58
    assert fetch_value(db, "SELECT count(*) FROM pgml_tune.loaded_models WHERE is_quarantined") == 0
    db.execute("SET pgml_tune.runtime = 'worker'; SET pgml_tune.cache = 'off'")
    assert fetch_value(db, "SELECT embed('another text') IS NOT NULL")
    db.execute("UPDATE doc SET body = 'mended' WHERE id = 17")
    wait_until(lambda: fetch_value(db, "SELECT count(*) FROM pgml_tune.queue_failures") == 1, 30)
