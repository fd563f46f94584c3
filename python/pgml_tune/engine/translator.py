"""A loaded encoder and decoder, such as T5: run by CTranslate2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pgml_tune.engine.ct2 import open_model, running
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.engine.tokenizer import Tokens
from pgml_tune.records import ArtifactConfig


class Translator(LocalGenerator):
    """A model that reads the whole prompt before it writes."""

    def __init__(self, folder: Path, config: ArtifactConfig, threads: int) -> None:
        super().__init__(folder, config)
        first = config.generation.get("first_token")  # that it was made to begin with
        self._prefix = [first] if isinstance(first, str) else None
        self._network = open_model("Translator", folder, threads)
        self._warm_up()

    def count_tokens(self, prompt: str) -> int:
        return self._tokenizer.count(prompt)

    def score(self, prompt: str, pieces: Sequence[str]) -> list[float]:
        source = self._tokenizer.pieces(self.read(prompt))
        with running():
            (result,) = self._network.score_batch([source], [list(pieces)], max_input_length=0)
        return list(result.log_probs)[: len(pieces)]

    def _read_all(self, prompts: Sequence[str]) -> list[Tokens]:
        return self._tokenizer.encode(prompts)

    def _start(self, sources: list[list[str]], options: dict[str, Any]) -> list[Any]:
        started: list[Any] = self._network.translate_batch(
            sources,
            target_prefix=None if self._prefix is None else [self._prefix] * len(sources),
            asynchronous=True,
            return_scores=True,
            disable_unk=True,  # whatever it stands for is no SQL
            max_input_length=0,  # the tokenizer has cut already
            max_decoding_length=self._longest,
            **options,
        )
        return started

    def _texts(self, result: Any) -> Iterator[tuple[str, float]]:
        return zip(map(self._tokenizer.text, result.hypotheses), result.scores, strict=True)
