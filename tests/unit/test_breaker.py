"""When a candidate is not tried any more."""

from dataclasses import replace

from pgml_tune.records import Exposure
from pgml_tune.service.breaker import Breaker

CALL = Exposure(rollout_id=7, phase=1, share=2000, unit=1, variant="candidate")


def test_it_opens_after_so_many_failures_in_a_row_and_keeps_the_last_reason():
    breaker = Breaker()
    for number, sqlstate in enumerate(["XX001", "XX001", "22023"], 1):
        assert breaker.refuses(CALL, 3) is None
        breaker.failed(replace(CALL, unit=number), sqlstate)
    assert breaker.refuses(CALL, 3) == "22023"
    assert breaker.refuses(CALL, 4) is None


def test_a_success_in_between_begins_a_new_row():
    breaker = Breaker()
    for _ in range(5):
        breaker.failed(CALL, "XX001")
        breaker.failed(CALL, "XX001")
        assert breaker.refuses(CALL, 3) is None
        breaker.succeeded(CALL)


def test_a_new_phase_and_another_rollout_are_tried_anew():
    breaker = Breaker()
    breaker.failed(CALL, "XX001")
    assert breaker.refuses(CALL, 1) == "XX001"
    assert breaker.refuses(replace(CALL, phase=2), 1) is None
    assert breaker.refuses(replace(CALL, rollout_id=8), 1) is None
    breaker.failed(replace(CALL, phase=2), "55000")
    assert breaker.refuses(replace(CALL, phase=2), 2) is None
