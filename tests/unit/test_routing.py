"""Which version answers a call, and who steps in; registry, models and log are stand-ins."""

import pytest

from pgml_tune.errors import ArtifactDamaged, InvalidArgument, QueryCanceled
from pgml_tune.service.assignment import CANDIDATE, SERVING, unit_number, variant_of
from pgml_tune.service.calls import Calls
from pgml_tune.service.counters import Counters
from pgml_tune.service.routing import Router
from pgml_tune.settings import Limits
from pgml_tune.store.registry import Destination, Split, Target

V1, V2 = (Target(number, "m", version, version, 4) for number, version in ((1, "v1"), (2, "v2")))


def in_rollout(share):
    return Destination(V1, Split(9, 3, share, "salt", V2), is_in_rollout=True)


class Session:
    unit = None

    def preference(self, name):
        assert name == b"pgml_tune.unit"
        return self.unit

    def statement(self):
        return 1


class Models:
    load_count = 0

    def bound(self, most_sessions):
        pass


class Table:
    def flush_if_due(self, db):
        pass


class Log:
    max_bytes = 0

    def __init__(self):
        self.begun, self.ended = [], []

    def begin(self, db, start):
        self.begun.append(start)

    def end(self, db, record):
        self.ended.append(record)


class Rules:
    def __init__(self, destination, **settings):
        self.destination, self.limits = destination, Limits.from_rows(settings)

    def follow(self, db, model, task):
        return self.destination, self.limits


class Caller:
    """Embeds texts as service/inference.py does; `compute` says what a version answers, or raises."""

    def __init__(self, destination, compute=lambda target, texts: f"by {target.version}", **settings):
        self.db, self.log, self.counters, self.compute = Session(), Log(), Counters(), compute
        self.calls = Calls(Models(), self.counters, Table(), self.log)
        self.calls._rules = Rules(destination, **settings)
        self.router = Router(self.calls)

    def embed(self, text):
        call = self.calls.begin(self.db, "embed", None, "embedding")
        with self.calls.measuring(self.db, call):
            call.sizes = (len(text),)
            self.router.send(self.db, call, text)
            return self.router.answer(call, lambda: self.compute(call.target, [text]))

    def embed_many(self, texts):
        call = self.calls.begin(self.db, "batch", None, "embedding")
        call.sizes = [len(text) for text in texts]
        answers = {}
        for part, places in self.router.divide(self.db, call, texts):
            with self.calls.measuring(self.db, part):
                own = [texts[place] for place in places]
                answer = self.router.answer(part, lambda: self.compute(part.target, own))  # noqa: B023
            answers |= dict.fromkeys(places, answer)
        return [answers[place] for place in range(len(texts))]


def failing(failure):
    """The candidate fails, the serving version answers."""

    def compute(target, texts):
        if target is V2:
            raise failure
        return "by v1"

    return compute


def rows(caller):
    return [(row.version, row.exposure.variant, row.is_fallback, row.sqlstate) for row in caller.log.ended]


def test_without_a_rollout_nothing_is_begun_and_the_sample_is_logged():
    caller = Caller(Destination(V1), log_sample="1")
    assert caller.embed("a") == "by v1"
    assert caller.log.begun == []
    (row,) = caller.log.ended
    assert (row.exposure, row.version, row.sample_rate, row.texts, row.input_bytes) == (None, "v1", 1.0, 1, 1)
    assert row.call_id == caller.calls.last_id


def test_a_sample_of_none_logs_only_what_fails_or_is_in_a_rollout():
    def broken(target, texts):
        raise InvalidArgument("no")

    quiet = Caller(Destination(V1), log_sample="0")
    quiet.embed("a")
    assert quiet.log.ended == []
    loud = Caller(Destination(V1), broken, log_sample="0")
    with pytest.raises(InvalidArgument):
        loud.embed("a")
    assert [(row.sqlstate, row.sample_rate) for row in loud.log.ended] == [("22023", 1.0)]
    assert loud.calls.last_id == loud.log.ended[0].call_id
    elsewhere = Caller(Destination(V1, None, is_in_rollout=True), log_sample="0")
    elsewhere.embed("a")
    assert [(row.exposure, row.sample_rate) for row in elsewhere.log.ended] == [(None, 1.0)]


def test_a_text_goes_to_the_version_of_its_unit():
    caller = Caller(in_rollout(3000))
    for number in range(200):
        text = f"text {number}"
        unit = unit_number("salt", text)
        assert caller.embed(text) == ("by v2" if variant_of(unit, 3000) == CANDIDATE else "by v1")
        exposure = caller.log.ended[-1].exposure
        assert (exposure.rollout_id, exposure.phase, exposure.share, exposure.unit) == (9, 3, 3000, unit)
        assert caller.log.begun[-1].call_id == caller.log.ended[-1].call_id
    assert {variant for _, variant, *_ in rows(caller)} == {SERVING, CANDIDATE}


def test_a_session_with_a_unit_goes_to_one_version():
    caller = Caller(in_rollout(5000))
    for caller.db.unit in ("u1", "u2", "u3", "u4"):
        unit = unit_number("salt", caller.db.unit)
        answers = {caller.embed(f"text {number}") for number in range(20)}
        answers |= set(caller.embed_many([f"text {number}" for number in range(20)]))
        assert len(answers) == 1
        assert {row.exposure.unit for row in caller.log.ended[-21:]} == {unit}
    assert caller.log.ended[-1].texts == 20


@pytest.mark.parametrize("unit", ["x" * 1001, "é" * 501])
def test_a_unit_of_more_than_1000_bytes_is_refused(unit):
    caller = Caller(in_rollout(5000))
    caller.db.unit = unit
    with pytest.raises(InvalidArgument):
        caller.embed("a")
    with pytest.raises(InvalidArgument):
        caller.embed_many(["a"])


def test_an_array_is_two_calls_whose_texts_are_units():
    texts = [f"text {number % 60}" for number in range(80)]
    caller = Caller(in_rollout(4000))
    answers = caller.embed_many(texts)
    expected = [variant_of(unit_number("salt", text), 4000) for text in texts]
    assert answers == ["by v2" if variant == CANDIDATE else "by v1" for variant in expected]
    assert len(caller.log.begun) == len(caller.log.ended) == len(texts)
    assert {row.call_id for row in caller.log.begun} == {row.call_id for row in caller.log.ended}
    assert sorted(row.exposure.unit for row in caller.log.ended) == sorted(unit_number("salt", text) for text in texts)
    assert {row.texts for row in caller.log.ended} == {1}
    counted = {row["model_version_id"]: (row["calls"], row["texts"]) for row in caller.counters.rows()}
    assert counted == {1: (1, expected.count(SERVING)), 2: (1, expected.count(CANDIDATE))}


def test_an_empty_array_is_one_call():
    caller = Caller(in_rollout(4000))
    assert caller.embed_many([]) == []


@pytest.mark.parametrize(
    ("failure", "sqlstate"), [(ArtifactDamaged("no"), "XX001"), (MemoryError(), "53200"), (OSError(), "38000")]
)
def test_the_serving_version_answers_where_the_candidate_fails(failure, sqlstate):
    caller = Caller(in_rollout(10_000), failing(failure))
    assert caller.embed("a") == "by v1"
    assert rows(caller) == [("v1", CANDIDATE, True, sqlstate)]
    assert caller.log.begun[0].version == "v2"
    assert [(row["model_version_id"], row["calls"], row["errors"]) for row in caller.counters.rows()] == [(1, 1, 0)]


def test_a_candidate_that_keeps_failing_is_not_tried_any_more():
    tried = []

    def compute(target, texts):
        tried.append(target.version)
        return failing(ArtifactDamaged("no"))(target, texts)

    caller = Caller(in_rollout(10_000), compute, candidate_failures="2")
    for _ in range(5):
        caller.embed("a")
    assert tried.count("v2") == 2
    assert rows(caller) == [("v1", CANDIDATE, True, "XX001")] * 5


def test_units_of_the_serving_version_never_reach_the_candidate():
    caller = Caller(in_rollout(0), failing(AssertionError("asked")))
    assert caller.embed("a") == "by v1"
    assert rows(caller) == [("v1", SERVING, False, None)]


def test_an_error_of_both_versions_reaches_the_caller_and_is_not_held_against_the_candidate():
    def broken(target, texts):
        raise InvalidArgument(target.version)

    caller = Caller(in_rollout(10_000), broken, candidate_failures="1")
    for _ in range(3):
        with pytest.raises(InvalidArgument, match="v1"):
            caller.embed("a")
    assert rows(caller) == [("v1", CANDIDATE, False, "22023")] * 3
    caller.compute = failing(ArtifactDamaged("no"))
    caller.embed("a")
    assert caller.log.ended[-1].sqlstate == "XX001"


class Canceled(Exception):
    """As the database raises it."""

    sqlstate = "57014"


@pytest.mark.parametrize("cancel", [Canceled(), QueryCanceled("a cancel"), KeyboardInterrupt()])
def test_a_cancel_passes_and_is_not_held_against_the_candidate(cancel):
    caller = Caller(in_rollout(10_000), failing(cancel), candidate_failures="1")
    for _ in range(2):
        with pytest.raises(type(cancel)):
            caller.embed("a")
    assert {(row.version, row.is_fallback) for row in caller.log.ended} == {("v2", False)}
    caller.compute = lambda target, texts: f"by {target.version}"
    assert caller.embed("a") == "by v2"
