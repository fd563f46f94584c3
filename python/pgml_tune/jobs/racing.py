"""Measures ways of running a version, each in turns with the present one: what else the machine does slows both."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.batching import SERVED_SECONDS, batch_size, token_budget
from pgml_tune.engine.choice import Measured
from pgml_tune.engine.classifier import softmax
from pgml_tune.engine.contract import Runtime, TokenArray, VectorArray
from pgml_tune.engine.encoder import open_runtime
from pgml_tune.engine.padding import pad
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.engine.way import CPU, Way
from pgml_tune.jobs.parity import cosines
from pgml_tune.jobs.texts import PARITY_TEXTS, retrieval_texts

_ALONE, _TIMES = 20, 3  # short texts, and how often each
_LEGS, _MOST_ROUNDS = 3, 50
_BATCH, _PROBED = 32, 8
_TEXTS_OF_LANE = 16  # and turn, at least
Padded = tuple[TokenArray, TokenArray]


@dataclass(frozen=True, slots=True)
class Served:
    """What the worker is asked: so many different texts, and how many tokens a batch may have."""

    texts: int
    batch_tokens: int


class Race:
    """One version, the texts that it is measured on, and what a session computes of them."""

    def __init__(self, artifact: Artifact, present: Way, served: Served, seconds: float) -> None:
        self._folder, self._config = artifact.folder, artifact.config()
        self._present_way, self._seconds, self._most_tokens = present, seconds, served.batch_tokens
        tokenizer = TextTokenizer(artifact.path("tokenizer.json"), self._config.max_tokens)
        questions, documents = retrieval_texts()
        step = max(1, len(documents) // served.texts)
        prompt = self._config.prompt("passage")

        def read(texts: Sequence[str]) -> list[list[int]]:
            found = (tokens.ids for tokens in tokenizer.encode([prompt + text for text in texts]))
            return sorted((ids for ids in found if ids), key=len, reverse=True)

        self._texts, self._odd = read(documents[::step][: served.texts]), read(PARITY_TEXTS)
        # Enough that no lane waits for the last batches of others.
        least = _LEGS * present.lanes * _TEXTS_OF_LANE
        self._timed = self._texts * max(1, -(-least // len(self._texts)))
        self._short = [self._padded([ids]) for ids in read(sorted(questions, key=len)[:_ALONE])]
        # What a session computes, which never takes another way: on the CPU, with one thread.
        own = open_runtime(self._config, self._folder, 1, Way.of("onnxruntime", 1, 1, _BATCH))
        self._expected = self._rows(own, self._texts, _BATCH)
        self._expected_odd = self._rows(own, self._odd, 1)
        self._own = own if present.provider == CPU else open_runtime(self._config, self._folder, 1)

    @property
    def text_count(self) -> int:
        return len(self._texts) + len(self._odd)

    def run(self, ways: Sequence[Way]) -> list[Measured]:
        """The figures of ways that differ in the size of batches alone."""
        runtime = self._own if ways[0] == self._present_way else self._open(ways[0])
        agreement, invariance = self._compare(runtime, max(way.batch_size for way in ways))
        latency = self._latency(runtime)
        return [self._measured(way, runtime, agreement, invariance, latency) for way in ways]

    def _open(self, way: Way) -> Runtime:
        return open_runtime(self._config, self._folder, way.threads, way)

    def _padded(self, batch: Sequence[list[int]]) -> Padded:
        return pad(batch, self._config.pad_token_id)

    def _batches(self, token_ids: Sequence[list[int]], size: int) -> list[Padded]:
        return [self._padded(token_ids[start : start + size]) for start in range(0, len(token_ids), size)]

    def _rows(self, runtime: Runtime, token_ids: Sequence[list[int]], size: int) -> VectorArray:
        return np.concatenate([runtime.run(*batch) for batch in self._batches(token_ids, size)])

    def _compare(self, runtime: Runtime, size: int) -> tuple[float, float]:
        """How well the rows agree with those of a session, and those of texts alone with those among others."""
        alone = self._rows(runtime, self._odd, 1)
        agreements = [self._agreement(self._expected_odd, alone)]
        if self._config.is_batch_invariant:
            agreements.append(self._agreement(self._expected, self._rows(runtime, self._texts, size)))
        return min(agreements), self._agreement(alone, self._rows(runtime, self._odd, size))

    def _agreement(self, left: VectorArray, right: VectorArray) -> float:
        if not self._config.labels:
            return float(cosines(left, right).min())
        difference = np.abs(softmax(left) - softmax(right)).max()
        return -1.0 if np.isnan(difference) else 1.0 - float(difference)

    def _latency(self, runtime: Runtime) -> float:
        """The median over short texts of the best of a few times, in milliseconds."""
        return 1000 * median(min(_seconds(runtime, text) for _ in range(_TIMES)) for text in self._short)

    def _measured(
        self, way: Way, runtime: Runtime, agreement: float, invariance: float, latency: float
    ) -> Measured:
        best, beside = self._take_turns(way, runtime)
        is_present = way == self._present_way
        return Measured(
            way=way,
            texts_per_second=len(self._timed) / (min(best, beside) if is_present else best),
            gain=1.0 if is_present else beside / best,
            latency_ms=latency,
            agreement=agreement,
            invariance=invariance,
        )

    def _take_turns(self, way: Way, runtime: Runtime) -> tuple[float, float]:
        """The least seconds for all texts that a way takes, and those that the present way takes beside it."""
        own, ours = self._legs(self._present_way, self._own), self._legs(way, runtime)
        with ThreadPoolExecutor(self._present_way.lanes) as own_lanes, ThreadPoolExecutor(way.lanes) as lanes:
            for leg in ours:  # the first run of each shape allocates
                _all(runtime, leg, lanes)
            best, beside = [float("inf")] * _LEGS, [float("inf")] * _LEGS
            ends = time.perf_counter() + self._seconds
            for turn in range(_MOST_ROUNDS * _LEGS):
                place = turn % _LEGS
                beside[place] = min(beside[place], _all(self._own, own[place], own_lanes))
                best[place] = min(best[place], _all(runtime, ours[place], lanes))
                if turn >= _LEGS - 1 and time.perf_counter() > ends:
                    break
        return sum(best), sum(beside)

    def _legs(self, way: Way, runtime: Runtime) -> list[list[Padded]]:
        """The texts in parts of like lengths: short turns meet the same of what else the machine does."""
        budget = self._budget(runtime)
        ordered = sorted(self._timed, key=len, reverse=True)
        return [self._served(ordered[leg::_LEGS], budget, way.batch_size) for leg in range(_LEGS)]

    def _budget(self, runtime: Runtime) -> int:
        """The padded tokens of a batch: as many as the worker gives it."""
        batch = self._padded(self._texts[len(self._texts) // 2 :][:_PROBED])
        seconds = min(_seconds(runtime, batch) for _ in range(_TIMES))
        return min(token_budget(batch[0].size / max(seconds, 1e-6), SERVED_SECONDS), self._most_tokens)

    def _served(self, ordered: Sequence[list[int]], budget: int, most: int) -> list[Padded]:
        """Batches as the worker forms them of texts that many sessions wait for."""
        batches, start = [], 0
        while start < len(ordered):
            size = min(batch_size(len(ordered[start]), budget), most)
            batches.append(self._padded(ordered[start : start + size]))
            start += size
        return batches


def _all(runtime: Runtime, batches: Sequence[Padded], lanes: ThreadPoolExecutor) -> float:
    """The seconds for all batches, as many at once as there are lanes."""
    started = time.perf_counter()
    list(lanes.map(lambda batch: runtime.run(*batch), batches))
    return time.perf_counter() - started


def _seconds(runtime: Runtime, batch: Padded) -> float:
    started = time.perf_counter()
    runtime.run(*batch)
    return time.perf_counter() - started
