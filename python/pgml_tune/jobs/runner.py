"""Runs an exported file as the engine does, in batches of a chosen size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from pgml_tune.engine.artifact import GRAPH
from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.onnx import OnnxRuntime
from pgml_tune.engine.padding import pad
from pgml_tune.records import ArtifactConfig


class Runner:
    """The tokenizer and network in an artifact's folder."""

    def __init__(self, folder: Path, config: ArtifactConfig, threads: int) -> None:
        self._pad_token_id = config.pad_token_id
        self._runtime = OnnxRuntime(folder / GRAPH, threads)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(config.max_tokens)

    def usable(self, texts: Sequence[str]) -> list[str]:
        """The texts that have a token; without special tokens the empty text has none."""
        encodings = self._tokenizer.encode_batch(list(texts))
        return [text for text, encoding in zip(texts, encodings, strict=True) if encoding.ids]

    def embed(self, texts: Sequence[str], batch_size: int) -> VectorArray:
        """One row per text; texts keep their order, so a batch holds neighbours of any length."""
        token_ids = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        batches = [token_ids[start : start + batch_size] for start in range(0, len(token_ids), batch_size)]
        return np.concatenate([self._run(batch) for batch in batches])

    def _run(self, batch: list[list[int]]) -> VectorArray:
        return self._runtime.run(*pad(batch, self._pad_token_id))
