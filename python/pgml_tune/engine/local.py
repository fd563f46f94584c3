"""A model that writes in this process: what its engines have in common."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import LEXICON
from pgml_tune.engine.ct2 import library, running, wait
from pgml_tune.engine.generator import Generated, Generator, different, positive, read_lexicon
from pgml_tune.engine.leaving import leave_at_once
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.engine.tokenizer import TextTokenizer, Tokens
from pgml_tune.engine.work import Work
from pgml_tune.records import ArtifactConfig

_NARROWEST_BEAM = 4  # fewer find worse texts
_BATCH = 32
_TRIED_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Sampling:
    """That texts are drawn by chance instead of the most probable ones taken."""

    temperature: float
    seed: int

    def to_options(self, k: int) -> dict[str, Any]:
        """How CTranslate2 is told."""
        return {
            "beam_size": 1,
            "num_hypotheses": k,
            "sampling_topk": 0,  # of all tokens
            "sampling_temperature": self.temperature,
        }


class LocalGenerator(Generator):
    """The tokenizer and the network of one artifact."""

    def __init__(self, folder: Path, config: ArtifactConfig) -> None:
        self.config = config
        self._longest = positive(config, "max_output_tokens")
        self._tokenizer = TextTokenizer(folder / "tokenizer.json", config.max_tokens)
        self.lexicon = read_lexicon(folder / LEXICON)

    def try_out(self) -> None:
        self._write_a_little(2, _TRIED_TOKENS)

    def _warm_up(self) -> None:
        """Let the library start all that it will use, while no signal can reach it."""
        with blocked_signals():
            self._write_a_little(1, 1)
        leave_at_once()

    def _write_a_little(self, k: int, tokens: int) -> None:
        longest, self._longest = self._longest, min(self._longest, tokens)
        self.generate_all(["a"], k, Work())
        self._longest = longest

    def generate(
        self, prompt: str, k: int, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> list[Generated]:
        return self.generate_all([prompt], k, work, checkpoint)[0]

    def generate_all(
        self,
        prompts: Sequence[str],
        k: int,
        work: Work,
        checkpoint: Callable[[], None] = lambda: None,
        sampling: Sampling | None = None,
    ) -> list[list[Generated]]:
        """At most `k` different texts for each prompt: the most probable first, or as they were drawn."""
        started = time.perf_counter()
        encoded = self._read_all(prompts)
        for tokens in encoded:
            work.tokens += len(tokens.ids)
            work.unknown += tokens.unknown
            work.truncated += tokens.is_truncated
        sources = [self._tokenizer.pieces(tokens.ids) for tokens in encoded]
        if sampling is None:
            options = {"beam_size": max(k, _NARROWEST_BEAM), "num_hypotheses": k}
        else:
            options = sampling.to_options(k)
            library().set_random_seed(sampling.seed)
        found: list[list[Generated]] = []
        for start in range(0, len(sources), _BATCH):
            with running():
                results = self._start(sources[start : start + _BATCH], options)
            found += [different(self._texts(result)) for result in wait(results, checkpoint)]
        work.seconds += time.perf_counter() - started
        return found

    def read(self, prompt: str) -> list[int]:
        """The numbers of the tokens that the network is given for a prompt."""
        return self._read_all([prompt])[0].ids

    def written(self, text: str) -> list[str]:
        """A text as the tokens that the network could write it with."""
        return self._tokenizer.pieces(self._tokenizer.plain(text))

    @abstractmethod
    def score(self, prompt: str, pieces: Sequence[str]) -> list[float]:
        """The log probability of each of these tokens behind a prompt."""

    @abstractmethod
    def _read_all(self, prompts: Sequence[str]) -> list[Tokens]: ...

    @abstractmethod
    def _start(self, sources: list[list[str]], options: dict[str, Any]) -> list[Any]: ...

    @abstractmethod
    def _texts(self, result: Any) -> Iterator[tuple[str, float]]: ...
