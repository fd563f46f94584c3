import resource
import signal
import time

import pytest

from pgml_tune.db.bounds import Bounds, bounded

LARGE = 1 << 40


@pytest.fixture
def signals():
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(time.monotonic()))
    yield seen
    signal.signal(signal.SIGINT, before)


def test_what_takes_too_long_gets_the_signal_of_a_cancel(signals):
    begun = time.monotonic()
    with bounded(Bounds(0.1, LARGE)) as watch:
        while not signals and time.monotonic() < begun + 5:
            pass
    assert watch.has_fired
    assert 0.1 <= signals[0] - begun < 2


def test_what_ends_in_time_gets_none(signals):
    with bounded(Bounds(60, LARGE)) as watch:
        pass
    assert not watch.has_fired
    assert signals == []


def test_memory_beyond_the_limit_is_refused_and_there_again_afterwards(signals):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with bounded(Bounds(60, 32 << 20)):
        with pytest.raises(MemoryError):
            bytearray(256 << 20)
        assert len(bytearray(1 << 20)) == 1 << 20
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(64 << 20)) == 64 << 20


def test_limits_are_taken_back_after_an_error(signals):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ValueError, match="x"), bounded(Bounds(60, LARGE)):
        raise ValueError("x")
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
