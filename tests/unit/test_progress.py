"""What a client is told while a long run goes on; the clock is the test's."""

import pytest

from pgml_tune.service.progress import Progress, final_line, progress_line


class Listener:
    def __init__(self):
        self.lines = []

    def notice(self, message):
        self.lines.append(message)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def run():
    """A run over 1,000 rows: its progress, what the client hears, and its clock."""
    listener, clock = Listener(), Clock()
    return Progress(listener, "docs.body", 1000, clock), listener.lines, clock


@pytest.mark.parametrize(
    ("done", "total", "seconds", "line"),
    [
        (500, 1000, 1.0, "500 of 1,000 rows, 500 rows/s, 1.0 s left"),
        (1000, 1000, 2.0, "1,000 of 1,000 rows, 500 rows/s"),
        (5, 1000, 10.0, "5 of 1,000 rows, 0.5 rows/s, 33 min 10 s left"),
        (1_000, 12_345_678, 2.0, "1,000 of 12,345,678 rows, 500 rows/s, 6 h 51 min left"),
        (1200, 1000, 1.0, "1,200 of 1,200 rows, 1,200 rows/s"),  # rows came in meanwhile
        (0, 1000, 5.0, "0 of 1,000 rows, 0 rows/s"),
        (10, 20, 0.0, "10 of 20 rows, 10,000 rows/s, 0.0 s left"),
    ],
)
def test_a_line_tells_rows_rate_and_time_left(done, total, seconds, line):
    assert progress_line(done, total, seconds) == line


@pytest.mark.parametrize(
    ("done", "seconds", "line"),
    [
        (0, 0.0, "0 rows in 0.0 s"),
        (1000, 2.0, "1,000 rows in 2.0 s, 500 rows/s"),
        (1000, 59.6, "1,000 rows in 1 min 0 s, 17 rows/s"),
        (7, 7200.0, "7 rows in 2 h 0 min, 0.0 rows/s"),
    ],
)
def test_the_last_line_tells_rows_time_and_rate(done, seconds, line):
    assert final_line(done, seconds) == line


def test_the_client_hears_at_most_one_line_a_second(run):
    progress, lines, clock = run
    for _ in range(50):
        clock.now += 0.125
        progress.add(10)
    assert len(lines) == 6
    assert lines[0] == "docs.body: 80 of 1,000 rows, 80 rows/s, 12 s left"


def test_a_run_that_ends_at_once_tells_only_its_end(run):
    progress, lines, clock = run
    progress.add(1000)
    clock.now += 0.5
    progress.finish()
    assert lines == ["docs.body: 1,000 rows in 0.5 s, 2,000 rows/s"]
