"""What the process that serves models tells of its times and batches."""

import re
import shutil
import subprocess

import pytest

from pgml_tune.engine.dynamic_batching import Part
from pgml_tune.service import health
from pgml_tune.serving.figures import Figures, Histogram

STATUS = {
    "process": 7, "started_at": 1.5, "listens_at": "", "connections": 1, "refused_connections": 0,
    "waiting_requests": 0, "requests": 3, "errors": 0, "shed": 0, "texts": 3, "batches": 2, "busy_seconds": 0.1,
    "threads": 2, "budget_bytes": 1, "quarantined": [],
    "models": [{"digest": "ab" * 32, "bytes": 1, "is_pinned": True, "calls": 3, "last_used_at": 1.0}],
}  # fmt: skip


def part(**changes):
    values = {
        "number": 1, "digest": "d", "session": 1, "is_bulk": False, "arrived": 10.0, "texts": 1, "tokens": 5,
        "longest": 5, "most_tokens": 100, "most_texts": 32, "is_mixable": True,
    }  # fmt: skip
    return Part(**values | changes)


def test_a_value_is_counted_below_each_bound_that_is_not_smaller():
    histogram = Histogram((1, 2, 4))
    for value in (0.5, 1, 1.5, 2, 3, 4, 5, 100):
        histogram.add(value)
    assert histogram.told() == {"bounds": (1, 2, 4), "counts": [2, 2, 2, 2], "sum": 117.0}


def test_a_batch_tells_its_texts_its_padding_and_how_long_each_part_waited():
    figures = Figures()
    figures.begun([part(texts=2, tokens=9), part(is_bulk=True, arrived=3.0, longest=7, tokens=7)], 10.004)
    assert (figures.tokens, figures.padding_tokens) == (16, 3 * 7 - 16)
    assert (figures.batch_texts.total, sum(figures.batch_texts.counts)) == (3, 1)
    assert [round(figures.wait_seconds[is_bulk].total, 3) for is_bulk in (False, True)] == [0.004, 7.004]
    figures.begun([part(is_mixable=False)], 10.0)
    assert figures.tokens == 16


def test_the_line_tells_quantiles_of_recent_interactive_requests():
    figures = Figures()
    assert " p50 " not in health.one_line(STATUS | figures.told())
    for number in range(2000):
        figures.answered(False, number / 1000)
        figures.answered(True, 60)
    line = health.one_line(STATUS | figures.told())
    assert "p50 1500.0 ms, p95 1950.0 ms of the last 1000" in line
    assert line.count("\n") == 0


def exposition():
    figures = Figures()
    for is_bulk, seconds in ((False, 0.004), (False, 0.3), (True, 100.0)):
        figures.answered(is_bulk, seconds)
    figures.begun([part()], 10.1)
    return health.metrics(STATUS | figures.told())


def test_buckets_are_cumulative_and_end_with_all():
    text = exposition()
    for name, label in (("request_seconds", 'class="interactive",'), ("request_seconds", 'class="bulk",'),
                        ("wait_seconds", 'class="interactive",'), ("batch_texts", "")):  # fmt: skip
        found = re.findall(rf'^pgml_tune_serve_{name}_bucket{{{label}le="(.+)"}} (\d+)$', text, re.MULTILINE)
        bounds, counts = [float(bound) for bound, _ in found], [int(count) for _, count in found]
        assert bounds == sorted(bounds) and bounds[-1] == float("inf")
        assert counts == sorted(counts)
        labels = f"{{{label[:-1]}}}" if label else ""
        assert f"pgml_tune_serve_{name}_count{labels} {counts[-1]}\n" in text
    assert 'pgml_tune_serve_request_seconds_bucket{class="interactive",le="0.005"} 1\n' in text
    assert 'pgml_tune_serve_request_seconds_sum{class="bulk"} 100.0\n' in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_figures_of_the_worker():
    subprocess.run(["promtool", "check", "metrics"], input=exposition(), text=True, check=True)
