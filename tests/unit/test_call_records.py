import pytest

from pgml_tune.db import Place
from pgml_tune.engine import gpu_memory
from pgml_tune.ipc import spool
from pgml_tune.ipc.call_line import COLUMNS, parse
from pgml_tune.ipc.spool import database_folder, files
from pgml_tune.records import Exposure
from pgml_tune.service.call_log import LONGEST_TEXT, CallLog, CallRecord, CallStart, MemoryWatch

START = {
    "call_id": 7, "task": "search", "model": "minilm", "version": "v1", "texts": 1, "input_bytes": 11,
    "exposure": Exposure(rollout_id=3, phase=2, share=500, unit=12, variant="candidate"), "collection": "a\tb",
}  # fmt: skip
RECORD = START | {"output_count": 10, "cache": "miss", "latency_ms": 1.5, "sample_rate": 0.1}


class FakeSession:
    def place(self):
        return Place("0123456789ab", 5, "17-abc")

    def role(self):
        return 10


@pytest.fixture
def log(tmp_path):
    return CallLog(tmp_path, clock=lambda: 1_700_000_000_000_000_000)


@pytest.fixture
def told(tmp_path):
    def read():
        [file] = files(database_folder(tmp_path, 5))
        calls = [parse(line) for line in file.read(0).lines()]
        return [(call.has_ended, dict(zip(COLUMNS, call.fields.split("\t"), strict=True))) for call in calls]

    return read


def test_a_call_is_written_with_its_rollout_role_time_and_memory(log, told):
    log.end(FakeSession(), CallRecord(**RECORD, tokens=5, answer="lost card", is_cold=True))
    [(has_ended, call)] = told()
    assert has_ended
    assert int(call.pop("memory_bytes")) > 1 << 20
    assert call == {
        "logged_at": "1700000000000000", "call_id": "7", "task": "search", "model": "minilm", "version": "v1",
        "variant": "candidate", "rollout_id": "3", "phase": "2", "share": "500", "unit": "12", "collection": "a%09b",
        "texts": "1", "input_bytes": "11", "tokens": "5", "unknown_tokens": "%", "output_count": "10",
        "cache": "miss", "latency_ms": "1.5000", "is_cold": "t", "is_fallback": "f", "sqlstate": "%",
        "gpu_memory_bytes": "%", "sample_rate": "0.1000", "role_id": "10", "sketch": "%", "answer": "lost card",
        "input_text": "%",
    }  # fmt: skip


def test_a_call_that_begins_is_written_as_what_it_is_if_it_never_ends(log, told):
    log.begin(FakeSession(), CallStart(**START))
    [(has_ended, call)] = told()
    assert not has_ended
    facts = [call[name] for name in ("sqlstate", "latency_ms", "variant", "cache")]
    assert facts == ["58000", "0.0000", "candidate", "miss"]


def test_a_call_outside_of_a_rollout_has_no_exposure(log, told):
    log.end(FakeSession(), CallRecord(**RECORD | {"exposure": None, "latency_ms": 2}))
    [(_, call)] = told()
    assert {call[name] for name in ("variant", "rollout_id", "phase", "share", "unit")} == {"%"}


def test_long_texts_are_cut_and_long_answers_left_out(log, told):
    log.end(FakeSession(), CallRecord(**RECORD, input_text="é" * 20_000, answer="é" * 101))
    [(_, call)] = told()
    assert (call["input_text"], call["answer"]) == ("é" * LONGEST_TEXT, "%")


def test_a_text_that_is_no_unicode_fails_no_call(log, told):
    log.end(FakeSession(), CallRecord(**RECORD, input_text="a\ud800b"))
    assert told()[0][1]["input_text"] == "a?b"


def test_memory_is_looked_at_once_a_second():
    now = [0.0]
    watch = MemoryWatch(lambda: now[0])
    watch.look()
    first, watch.resident_bytes = watch.resident_bytes, -1
    watch.look()
    assert watch.resident_bytes == -1
    now[0] = 1.0
    watch.look()
    assert watch.resident_bytes > first // 2
    assert watch.gpu_bytes is None


def test_a_call_ends_in_the_file_in_which_it_began(log, tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "FILE_BYTES", 1)
    db = FakeSession()
    log.begin(db, CallStart(**START))
    log.begin(db, CallStart(**START | {"call_id": 8}))
    for call_id in (7, 9, 8, 10):
        log.end(db, CallRecord(**RECORD | {"call_id": call_id}))
    first, second = sorted(files(database_folder(tmp_path, 5)), key=lambda file: file.name)
    ids = [[parse(line).call_id for line in file.read(0).lines()] for file in (first, second)]
    assert ids == [[7, 8, 7, 9, 8], [10]]


class FakeDriver:
    """Loaded, with 3 of 8 GB free; without a context it refuses to tell."""

    status = 0

    def cuMemGetInfo_v2(self, free, total):  # noqa: N802
        free._obj.value, total._obj.value = 3 << 30, 8 << 30
        return self.status


def test_the_memory_of_a_gpu_that_the_process_uses_is_told(monkeypatch):
    driver = FakeDriver()
    monkeypatch.setattr(gpu_memory.ctypes, "CDLL", lambda name, mode: driver)
    assert gpu_memory.memory_in_use() == 5 << 30
    driver.status = 201
    assert gpu_memory.memory_in_use() is None
