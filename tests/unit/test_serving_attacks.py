"""Peers that send anything, and peers that stop halfway, beside sessions that ask for vectors; all in processes."""

import multiprocessing
import os
import time

import pytest

from tests.unit.serving_attackers import COMPUTING_SECONDS, HALF_OPEN, HONEST, attack, serve, stay_half_open, use
from tests.unit.serving_parts import free_port, publish_model

FRAMES = int(os.environ.get("PGML_TUNE_RANDOM_FRAMES", "2000"))
IS_SOAK = "PGML_TUNE_RANDOM_FRAMES" in os.environ
CALM_SECONDS = 20
MOST_SLOWER = 2.0
PROCESSES = multiprocessing.get_context("spawn")


@pytest.fixture
def processes():
    """Starts processes, and ends those that are left."""
    started = []

    def start(target, *arguments):
        started.append(PROCESSES.Process(target=target, args=arguments, daemon=True))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


def test_random_frames_and_half_open_peers_crash_nothing_and_slow_nobody_much(tmp_path, processes):
    root, address, port = tmp_path / "models", str(tmp_path / "serve" / "worker.sock"), free_port()
    root.mkdir()
    digest = publish_model(root)
    ready, used, ended, left, done = (PROCESSES.Event() for _ in range(5))
    answers, count = PROCESSES.Queue(), PROCESSES.Value("i", 0)
    server = processes(serve, str(root), address, port, ready, ended)
    assert ready.wait(60)
    processes(use, address, port, digest, used, done, answers)
    assert used.wait(60)
    stay_calm(done)
    halfway = processes(stay_half_open, address, port, left, count)
    deadline = time.monotonic() + 60
    while count.value < HALF_OPEN:
        assert time.monotonic() < deadline
        done.wait(0.05)
    begun = time.monotonic()
    attacker = processes(attack, address, port, digest, FRAMES, 1)
    attacker.join()
    over = time.monotonic()
    left.set()
    halfway.join()
    stay_calm(done)
    end = time.monotonic()
    done.set()
    outcomes = [answers.get(timeout=60) for _ in range(HONEST)]
    assert (attacker.exitcode, halfway.exitcode, server.exitcode) == (0, 0, None)
    ended.set()
    server.join(30)
    assert server.exitcode == 0  # and nothing was raised in it that nobody has caught
    assert all(is_right for _, is_right in outcomes)
    if IS_SOAK:
        compare(outcomes, begun, over, end, count.value)


def stay_calm(done):
    """Let sessions be measured without attackers, for as long again after a time in which they come to rest."""
    if IS_SOAK:
        done.wait(2 * CALM_SECONDS)


def compare(outcomes, begun, over, end, half_open):
    asked = [time_and_wait for times, _ in outcomes for time_and_wait in times]
    calm = [wait for at, wait in asked if begun - CALM_SECONDS < at < begun or over + CALM_SECONDS < at < end]
    attacked = [wait for at, wait in asked if begun < at < over]
    print(
        f"\n{FRAMES} frames in {over - begun:.0f} s ({FRAMES / (over - begun):.0f}/s), {half_open} half-open peers,"
        f" {HONEST} sessions, {COMPUTING_SECONDS * 1000:g} ms a batch:"
        f" p50 {at_share(attacked, 0.5):.1f} ms, p99 {at_share(attacked, 0.99):.1f} ms of {len(attacked)} calls;"
        f" without attackers p50 {at_share(calm, 0.5):.1f} ms, p99 {at_share(calm, 0.99):.1f} ms of {len(calm)}"
    )
    assert at_share(attacked, 0.99) <= MOST_SLOWER * at_share(calm, 0.99)


def at_share(waits, share):
    return 1000 * sorted(waits)[int(share * len(waits))]
