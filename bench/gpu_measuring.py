"""Measures a way of running a network in a process of its own, on batches as the worker forms them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import numpy as np
from gpu_models import Subject
from gpu_ways import Contestant
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Padded = tuple[NDArray[np.int64], NDArray[np.int64]]
_ALONE, _TIMES = 20, 5  # texts that are computed alone, and how often each
_PROBED, _PROBES = 8, 3
_SECONDS = {False: 10.0, True: 1.0}  # for the rounds of one size of batches, by whether the run is quick
_MOST_ROUNDS = 20
_COMPARED = {False: 160, True: 16}  # different texts at most, which the CPU computes too
_TIMED = {False: 4096, True: 256}  # texts of a round on a GPU; the CPU takes those that are compared, once


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there are no figures; a lack is of the machine, anything else is a fault."""

    reason: str
    is_lack: bool = False


@dataclass(frozen=True, slots=True)
class Texts:
    """Short texts, and their tokens, the longest first."""

    contents: list[str]
    ids: list[list[int]]
    per_second: float  # that the tokenizer reads

    @property
    def mean_tokens(self) -> float:
        return sum(map(len, self.ids)) / len(self.ids)


@dataclass(frozen=True, slots=True)
class Measured:
    """What a way is worth."""

    rates: dict[int, list[float]]  # texts per second of each round, by how many texts a batch has at most
    lanes: int
    latency_ms: float  # from a text to its vector, nothing else being computed: the median
    cosine: float  # the least, of a text in batches or alone, to what the CPU computes
    vectors: Vectors

    @property
    def best(self) -> tuple[int, list[float]]:
        """The size of batches that is fastest, and its rounds."""
        return max(self.rates.items(), key=lambda entry: median(entry[1]))

    @property
    def texts_per_second(self) -> float:
        return median(self.best[1])


def apart(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a new process, or the problem that it met: libraries of GPUs may end a process."""
    context = multiprocessing.get_context("spawn")
    pipe, far_end = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(far_end, function, args))
    process.start()
    far_end.close()
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        return Problem(f"its process ended with exit code {process.exitcode}")
    finally:
        process.join()


def _answer(pipe: Connection, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    from pgml_tune.errors import NotSupported, TuneError

    try:
        answer = function(*args)
    except (NotSupported, ImportError) as error:
        answer = Problem(_told(error), is_lack=True)
    except TuneError as error:
        answer = Problem(_told(error))
    except Exception as error:  # a library's own: one way less, the others go on
        answer = Problem(f"{type(error).__name__}: {error}".partition("\n")[0])
    pipe.send(answer)


def _told(error: BaseException) -> str:
    detail = getattr(error, "detail", "")
    text = f"{getattr(error, 'message', error)}" + (f": {detail}" if detail else "")
    return text.partition("\n")[0]


def read_texts(subject: Subject, is_quick: bool) -> Texts:
    """Texts that come with Python, read by the tokenizer of a model."""
    from pgml_tune.engine.artifact import Artifact
    from pgml_tune.engine.tokenizer import TextTokenizer
    from pgml_tune.jobs.texts import retrieval_texts

    questions, _ = retrieval_texts()
    step = max(1, len(questions) // _COMPARED[is_quick])
    chosen = questions[::step][: _COMPARED[is_quick]]
    artifact = Artifact(subject.model_root, subject.digest)
    tokenizer = TextTokenizer(artifact.path("tokenizer.json"), artifact.config().max_tokens)
    tokenizer.encode(chosen)
    started = time.perf_counter()
    ids = [tokens.ids for tokens in tokenizer.encode(chosen)]
    seconds = time.perf_counter() - started
    order = sorted(range(len(chosen)), key=lambda place: len(ids[place]), reverse=True)
    return Texts([chosen[place] for place in order], [ids[place] for place in order], len(chosen) / seconds)


def measure(subject: Subject, way: Contestant, texts: Texts, expected: Vectors | None, is_quick: bool) -> Measured:
    """The figures of a way; without expected vectors its own are those that others are compared with."""
    opened = way.open(subject, way.precision)
    race = _Race(subject, opened.runtime, texts)
    found = race.vectors(way.batches[-1])
    alone, places = race.alone()
    reference = found if expected is None else expected
    cosine = min(_least_cosine(found, reference), _least_cosine(alone, reference[places]))
    most = _TIMED[is_quick] if way.is_gpu else len(texts.ids)
    rates = {size: race.rates(size, opened.lanes, most, _SECONDS[is_quick]) for size in way.batches}
    return Measured(rates, opened.lanes, race.latency_ms(), cosine, found)


def _least_cosine(left: Vectors, right: Vectors) -> float:
    from pgml_tune.jobs.parity import cosines

    return float(cosines(left, right).min())


class _Race:
    """A loaded network and the texts."""

    def __init__(self, subject: Subject, runtime: Any, texts: Texts) -> None:
        from pgml_tune.engine.artifact import Artifact
        from pgml_tune.engine.tokenizer import TextTokenizer

        artifact = Artifact(subject.model_root, subject.digest)
        config = artifact.config()
        self._tokenizer = TextTokenizer(artifact.path("tokenizer.json"), config.max_tokens)
        self._pad_token_id = config.pad_token_id
        self._runtime, self._texts = runtime, texts

    def vectors(self, size: int) -> Vectors:
        """One row for each text, computed in batches."""
        return np.concatenate([self._runtime.run(*batch) for batch in self._batches(self._texts.ids, size)])

    def alone(self) -> tuple[Vectors, list[int]]:
        """The rows of some texts, each computed alone, and which they are."""
        places = self._places()
        return np.concatenate([self._runtime.run(*self._padded([self._texts.ids[place]])) for place in places]), places

    def latency_ms(self) -> float:
        """The time of a text alone, tokenizer and network."""
        contents = [self._texts.contents[place] for place in self._places()]
        return 1000 * median(self._seconds_alone(content) for _ in range(_TIMES) for content in contents)

    def rates(self, size: int, lanes: int, most: int, seconds: float) -> list[float]:
        """Texts per second of each round."""
        ids = sorted((self._texts.ids * -(-most // len(self._texts.ids)))[:most], key=len, reverse=True)
        batches = self._batches(ids, size)
        found: list[float] = []
        with ThreadPoolExecutor(lanes) as pool:
            self._all(batches, pool)  # the first run of each shape allocates, and TensorRT builds for it
            ends = time.perf_counter() + seconds
            while not found or (len(found) < _MOST_ROUNDS and time.perf_counter() < ends):
                found.append(len(ids) / self._all(batches, pool))
        return found

    def _all(self, batches: Sequence[Padded], pool: ThreadPoolExecutor) -> float:
        """The seconds for all batches, as many at once as the pool has threads."""
        started = time.perf_counter()
        list(pool.map(lambda batch: self._runtime.run(*batch), batches))
        return time.perf_counter() - started

    def _batches(self, ordered: Sequence[list[int]], size: int) -> list[Padded]:
        """As the worker puts together the texts of many sessions: so many at most, and 50 ms of work."""
        budget, batches, start = self._budget(size), [], 0
        while start < len(ordered):
            count = max(1, min(size, budget // len(ordered[start])))
            batches.append(self._padded(ordered[start : start + count]))
            start += count
        return batches

    def _budget(self, size: int) -> int:
        """The padded tokens of a batch, by the speed of the batch before, as the worker has it."""
        from pgml_tune.engine.batching import SERVED_SECONDS, token_budget

        ordered, count, budget = self._texts.ids, _PROBED, 0
        for _ in range(_PROBES):
            batch = self._padded(ordered[len(ordered) // 2 :][:count])
            seconds = min(self._seconds(batch) for _ in range(_PROBES))
            budget = token_budget(batch[0].size / max(seconds, 1e-6), SERVED_SECONDS)
            count = max(1, min(size, budget // batch[0].shape[1]))
        return budget

    def _places(self) -> list[int]:
        step = max(1, len(self._texts.ids) // _ALONE)
        return list(range(0, len(self._texts.ids), step))[:_ALONE]

    def _padded(self, ids: Sequence[list[int]]) -> Padded:
        from pgml_tune.engine.padding import pad

        return pad(ids, self._pad_token_id)

    def _seconds(self, batch: Padded) -> float:
        started = time.perf_counter()
        self._runtime.run(*batch)
        return time.perf_counter() - started

    def _seconds_alone(self, content: str) -> float:
        started = time.perf_counter()
        self._runtime.run(*self._padded([tokens.ids for tokens in self._tokenizer.encode([content])]))
        return time.perf_counter() - started
