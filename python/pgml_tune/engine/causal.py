"""A loaded decoder, such as Llama or Qwen, with the chat template of its model: run by CTranslate2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pgml_tune.engine.answers import statement_in
from pgml_tune.engine.ct2 import open_model, running
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.engine.tokenizer import LONG_TEXT, Tokens
from pgml_tune.errors import ArtifactDamaged
from pgml_tune.records import ArtifactConfig


class CausalGenerator(LocalGenerator):
    """A model that goes on with the prompt."""

    def __init__(self, folder: Path, config: ArtifactConfig, threads: int) -> None:
        super().__init__(folder, config)
        self._before, self._behind = (self._tokenizer.marked(_text(config, name)) for name in ("prefix", "suffix"))
        self._room = config.max_tokens - len(self._before) - len(self._behind)
        if self._room <= 0:
            raise ArtifactDamaged("the chat template of the model is longer than what the model reads")
        self._ends = [end for end in config.generation.get("end_tokens", []) if isinstance(end, str)]
        self._network = open_model("Generator", folder, threads)
        self._warm_up()

    def count_tokens(self, prompt: str) -> int:
        return len(self._before) + len(self._tokenizer.plain(prompt)) + len(self._behind)

    def score(self, prompt: str, pieces: Sequence[str]) -> list[float]:
        source = self._tokenizer.pieces(self.read(prompt))
        with running():
            (result,) = self._network.score_batch([[*source, *pieces]])
        return list(result.log_probs)[-len(pieces) :] if pieces else []

    def _read_all(self, prompts: Sequence[str]) -> list[Tokens]:
        return [self._read(prompt) for prompt in prompts]

    def _read(self, prompt: str) -> Tokens:
        # Of the prompt itself no special token is taken: whoever asks must not end his turn and speak for the model.
        longest = LONG_TEXT * self.config.max_tokens  # characters: more would be read to be thrown away
        ids = self._tokenizer.plain(prompt[:longest])
        kept = [*self._before, *ids[: self._room], *self._behind]
        is_truncated = len(ids) > self._room or len(prompt) > longest
        return Tokens(kept, self._tokenizer.count_unknown(kept), is_truncated)

    def _start(self, sources: list[list[str]], options: dict[str, Any]) -> list[Any]:
        started: list[Any] = self._network.generate_batch(
            sources,
            asynchronous=True,
            return_scores=True,
            disable_unk=True,  # whatever it stands for is no SQL
            include_prompt_in_result=False,
            max_length=self._longest,
            **({"end_token": self._ends} if self._ends else {}),
            **options,
        )
        return started

    def _texts(self, result: Any) -> Iterator[tuple[str, float]]:
        answers = (self._tokenizer.text(sequence) for sequence in result.sequences)
        return zip(map(statement_in, answers), result.scores, strict=True)


def _text(config: ArtifactConfig, name: str) -> str:
    value = config.generation.get(name, "")
    if not isinstance(value, str):
        raise ArtifactDamaged(f'"{name}" in the configuration of the model is not a text')
    return value
