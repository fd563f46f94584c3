"""Runs an exported file as the engine does, in batches of a chosen size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.encoder import open_runtime
from pgml_tune.engine.padding import pad
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.records import ArtifactConfig


class Runner:
    """The tokenizer and network in an artifact's folder."""

    def __init__(self, folder: Path, config: ArtifactConfig, threads: int) -> None:
        self._pad_token_id = config.pad_token_id
        self._runtime = open_runtime(config, folder, threads)
        self._tokenizer = TextTokenizer(folder / "tokenizer.json", config.max_tokens)

    def usable(self, texts: Sequence[str]) -> list[str]:
        """The texts that have a token; without special tokens the empty text has none."""
        return [text for text, tokens in zip(texts, self._tokenizer.encode(texts), strict=True) if tokens.ids]

    def embed(self, texts: Sequence[str], batch_size: int) -> VectorArray:
        """One row per text; texts keep their order, so a batch holds neighbours of any length."""
        token_ids = [tokens.ids for tokens in self._tokenizer.encode(texts)]
        batches = [token_ids[start : start + batch_size] for start in range(0, len(token_ids), batch_size)]
        return np.concatenate([self._run(batch) for batch in batches])

    def embed_sorted(self, texts: Sequence[str], batch_size: int = 32) -> VectorArray:
        """One row per text, in their order; those of a batch have like lengths, so little is padded."""
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows = self.embed([texts[place] for place in order], batch_size)
        sorted_back = np.empty_like(rows)
        sorted_back[order] = rows
        return sorted_back

    def _run(self, batch: list[list[int]]) -> VectorArray:
        return self._runtime.run(*pad(batch, self._pad_token_id))
