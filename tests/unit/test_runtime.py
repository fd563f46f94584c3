"""Where a call runs."""

import pytest

from pgml_tune.errors import InvalidArgument, QuotaExceeded, SystemFault
from pgml_tune.ipc.client import WorkerLost, WorkerSilent
from pgml_tune.service import models as models_module
from pgml_tune.service import runtime
from pgml_tune.service.runtime import Runtimes
from pgml_tune.service.slots import Slots


class Models:
    load_count, most_sessions = 0, 0

    def __init__(self):
        self.times_let_go = 0

    def let_go(self):
        self.times_let_go += 1


class Place:
    """Answers with its name, or fails."""

    load_count = 0

    def __init__(self, name, error=None):
        self.name, self.error, self.asked = name, error, 0

    def answer(self):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.name


def chosen(preference, worker):
    return Runtimes(lambda: Place("session"), worker, lambda: preference, Models())


def ask(runtimes):
    return runtimes.run(lambda place: place.answer())


@pytest.mark.parametrize("preference", [None, "", "auto", "worker"])
def test_a_worker_that_answers_is_asked(preference):
    assert ask(chosen(preference, Place("worker"))) == "worker"


def test_a_session_that_does_not_want_the_worker_does_not_ask_it():
    worker = Place("worker")
    assert ask(chosen("in_process", worker)) == "session"
    assert worker.asked == 0


def test_a_worker_that_is_lost_is_replaced_by_the_session_or_is_an_error():
    worker = Place("worker", WorkerLost("gone"))
    assert ask(chosen("auto", worker)) == "session"
    with pytest.raises(SystemFault):
        ask(chosen("worker", worker))


def test_an_error_of_the_worker_is_that_of_the_call():
    with pytest.raises(InvalidArgument):
        ask(chosen("auto", Place("worker", InvalidArgument("no"))))


def test_a_worker_that_stands_still_is_waited_for_once_and_asked_again_later(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    worker = Place("worker", WorkerSilent("silent"))
    runtimes = chosen("auto", worker)
    assert [ask(runtimes) for _ in range(3)] == ["session"] * 3
    assert worker.asked == 1
    now[0] += runtime._SHUN_SECONDS
    worker.error = None
    assert ask(runtimes) == "worker"


def test_a_worker_that_is_gone_is_looked_for_with_every_call():
    worker = Place("worker", WorkerLost("gone"))
    runtimes = chosen("auto", worker)
    ask(runtimes)
    worker.error = None
    assert ask(runtimes) == "worker"


def test_a_preference_that_is_none_is_refused():
    with pytest.raises(InvalidArgument):
        ask(chosen("elsewhere", Place("worker")))


def test_models_of_a_session_go_when_the_worker_has_answered_again_for_a_while(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runtime.time, "monotonic", lambda: now[0])
    models, worker = Models(), Place("worker", WorkerLost("gone"))
    runtimes = Runtimes(lambda: Place("session"), worker, lambda: "auto", models)
    ask(runtimes)
    worker.error = None
    for seconds, times in ((1, 0), (runtime._KEEP_SECONDS, 1), (1, 1), (runtime._KEEP_SECONDS, 1)):
        now[0] += seconds
        assert ask(runtimes) == "worker"
        assert models.times_let_go == times


def test_a_session_that_lets_go_of_its_models_gives_back_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(models_module, "Artifact", lambda root, digest: digest)
    first, second = (models_module.Models(tmp_path, Slots(tmp_path)) for _ in range(2))
    for models in (first, second):
        models.most_sessions = 1
    opened = first.get(lambda artifact, threads: [artifact], "0", 1)
    assert first.get(lambda artifact, threads: ["of a server"], "1", 1, takes_memory=False) == ["of a server"]
    with pytest.raises(QuotaExceeded):
        second.get(lambda artifact, threads: [artifact], "0", 1)
    assert second.get(lambda artifact, threads: [artifact], "1", 1, takes_memory=False) == ["1"]
    first.let_go()
    assert first.digests == ["1"]
    assert second.get(lambda artifact, threads: [artifact], "0", 1) == opened
    with pytest.raises(QuotaExceeded):
        first.get(lambda artifact, threads: [artifact], "0", 1)
