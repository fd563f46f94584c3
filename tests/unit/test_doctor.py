"""What `doctor()` says of damage; the server's facts are made up."""

import json
import os
import subprocess
import time

import pytest

from pgml_tune import __version__
from pgml_tune.db import Place
from pgml_tune.engine.artifact import bind_name, new_artifact, publish
from pgml_tune.engine.machine import fingerprint
from pgml_tune.engine.way import Way
from pgml_tune.ipc.spool import database_folder
from pgml_tune.records import ModelReference
from pgml_tune.service import doctor
from pgml_tune.settings import Paths
from pgml_tune.store.call_log import LogFacts
from pgml_tune.store.engine_choice import EngineChoice
from pgml_tune.store.job import JobFacts
from pgml_tune.store.server import ServerFacts

V1 = ModelReference("minilm", "v1")
NO_JOBS = JobFacts(False, 0, 0)
SOUND_LOG = LogFacts(0, 0, False)


class FakeSession:
    def place(self):
        return Place("0123456789ab", 5, "17-abc")


@pytest.fixture
def checks(tmp_path, monkeypatch):
    """Runs all checks on a registry that holds some versions; by name."""

    def run(*versions, namesakes=None, collections=(), jobs=NO_JOBS, settings=None, log=SOUND_LOG, choices=()):
        facts = ServerFacts(170000, "17.0", __version__, "public", "0.8.4", None, "minilm", namesakes)
        monkeypatch.setattr(doctor, "server_facts", lambda db: facts)
        monkeypatch.setattr(doctor.registry, "all_versions", lambda db: versions)
        monkeypatch.setattr(doctor, "collection_faults", lambda db: collections)
        monkeypatch.setattr(doctor.job, "job_facts", lambda db: jobs)
        monkeypatch.setattr(doctor.rollout, "faults", lambda db: [])
        monkeypatch.setattr(doctor.queue, "lags", lambda db: [])
        monkeypatch.setattr(doctor.engine_choice, "choices", lambda db: choices)
        monkeypatch.setattr(doctor.call_log, "log_facts", lambda db: log)
        monkeypatch.setattr(doctor, "read_settings", lambda db: (__version__, settings or {}))
        paths = Paths(tmp_path, tmp_path, (), None)
        return {check.check_name: check for check in doctor.examine(FakeSession(), lambda: paths)}

    return run


def test_a_sound_model_root_needs_no_mending(tmp_path, checks, digest):
    bind_name(tmp_path, V1, digest)
    found = checks((V1, digest))
    assert "left-overs" not in found
    for name in ("model minilm@v1", "namesakes", "model root", "spool"):
        assert found[name].status == "ok" or "GiB free" in found[name].detail


def test_what_killed_imports_left_is_named_with_the_way_to_remove_it(tmp_path, checks):
    folder = tmp_path / ".building-a b"
    folder.mkdir()
    os.utime(folder, (time.time() - 90_000,) * 2)
    check = checks()["left-overs"]
    assert (check.status, check.fix) == ("warn", f"rm -rf '{folder}'")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("x"), lambda path: None])
def test_a_name_that_means_nothing_fails_with_a_fix(tmp_path, checks, digest, make):
    (tmp_path / "names").mkdir()
    make(tmp_path / "names" / str(V1))
    check = checks((V1, digest))["model minilm@v1"]
    assert check.status == "fail"
    subprocess.run(check.fix, shell=True, check=True)
    assert checks((V1, digest))["model minilm@v1"].status == "ok"


def test_functions_named_as_those_of_the_extension_fail(checks):
    check = checks(namesakes="public.embed(character varying)")["namesakes"]
    assert (check.status, check.fix) == ("fail", "DROP ROUTINE public.embed(character varying)")


def test_a_collection_that_needs_mending_is_named_with_the_statement_that_does_it(checks):
    assert checks()["collections"].status == "ok"
    found = checks(collections=[("notes", "not in line with its table: grants", "CALL maintain()")])
    assert (found["collection notes"].status, found["collection notes"].fix) == ("warn", "CALL maintain()")
    assert "collections" not in found


@pytest.mark.parametrize(
    ("jobs", "starts", "status"),
    [
        (JobFacts(False, 0, 0), "on", "ok"),
        (JobFacts(True, 3, 1), "off", "ok"),
        (JobFacts(False, 2, 0), "on", "warn"),
        (JobFacts(False, 0, 0), "off", "warn"),
    ],
)
def test_jobs_that_nobody_runs_are_a_warning_with_a_fix(checks, jobs, starts, status):
    check = checks(jobs=jobs, settings={"auto_start_worker": starts})["worker"]
    assert (check.status, bool(check.fix)) == (status, status == "warn")


@pytest.mark.parametrize(
    ("spooled", "is_late", "status"),
    [(0, False, "ok"), (0, True, "ok"), (1, False, "ok"), (1, True, "warn"), (13, False, "warn")],
)
def test_a_spool_that_nobody_empties_is_a_warning_with_a_fix(tmp_path, checks, spooled, is_late, status):
    folder = database_folder(tmp_path, 5)
    folder.mkdir(parents=True)
    (folder / "0123456789ab-1-a-0.log").write_bytes(b"x" * (spooled << 20))
    check = checks(settings={"log_spool_bytes": str(16 << 20)}, log=LogFacts(0, 0, is_late))["log of calls"]
    assert (check.status, check.fix) == (status, "CALL maintain()" if status == "warn" else "")


def test_a_model_of_a_server_wants_the_server_to_be_set(tmp_path, checks):
    from tests.unit.test_endpoint import CONFIG

    with new_artifact(tmp_path) as folder:
        (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
        digest = publish(tmp_path, folder).digest
    bind_name(tmp_path, V1, digest)
    assert checks((V1, digest))["model minilm@v1"].status == "warn"
    settings = {"sql_endpoint": "http://127.0.0.1:8000/v1/completions"}
    assert checks((V1, digest), settings=settings)["model minilm@v1"].status == "ok"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (None, "ok"),
        ({"models": [{}], "quarantined": []}, "ok"),
        ({"models": [], "quarantined": ["a" * 64]}, "warn"),
    ],
)
def test_a_model_that_the_worker_no_longer_runs_is_a_warning(checks, monkeypatch, told, status):
    monkeypatch.setattr(doctor.loaded, "status", lambda client: told)
    assert checks()["serving"].status == status


def test_a_worker_that_does_not_answer_is_a_warning(checks, monkeypatch):
    monkeypatch.setattr(doctor.loaded, "status", lambda client: None)
    monkeypatch.setattr(doctor, "is_served", lambda address: True)
    assert checks()["serving"].status == "warn"


def test_a_way_that_was_chosen_elsewhere_is_told_with_what_mends_it(checks):
    way = Way.of("openvino", 1, 2, 32).to_json()
    choices = [
        EngineChoice("0" * 64, ModelReference("minilm", version), machine, way, 1.0, 0.0)
        for version, machine in (("v1", fingerprint()), ("v2", "another"))
    ]
    found = checks(choices=choices)
    assert found["engine of minilm@v1"].status == "ok"
    elsewhere = found["engine of minilm@v2"]
    assert elsewhere.status == "warn" and "another" in elsewhere.detail
    assert elsewhere.fix == "CALL tune_engine('minilm', 'v2'); or SELECT reset_engine('minilm', 'v2')"
