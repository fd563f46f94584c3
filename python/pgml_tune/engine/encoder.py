"""A loaded model: texts in, one row of numbers per text out. What the rows are is a subclass's business."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from pgml_tune.engine import openvino, tensorrt
from pgml_tune.engine.artifact import GRAPH, PLAN, Artifact
from pgml_tune.engine.batching import batch_size, chunks, token_budget
from pgml_tune.engine.contract import OUTPUTS, Runtime, TokenArray, VectorArray
from pgml_tune.engine.onnx import ENGINE, OnnxRuntime
from pgml_tune.engine.padding import pad
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.engine.tokenizer import TextTokenizer, Tokens
from pgml_tune.engine.turns import InTurns
from pgml_tune.engine.way import OPENVINO, Way
from pgml_tune.engine.work import Work
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, NotSupported
from pgml_tune.records import VERBS, ArtifactConfig

_SPEED_BEFORE_MEASURED = 2048.0  # tokens per second


class Encoder(ABC):
    """The tokenizer and the runtime of one artifact."""

    task: ClassVar[str]

    def __init__(self, artifact: Artifact, threads: int, way: Way | None = None) -> None:
        artifact.verify()
        self.config = artifact.config()
        if self.config.task != self.task:
            raise NotSupported(f"the model does not {VERBS[self.task]}", detail=f"Its task is {self.config.task}.")
        with blocked_signals():
            self._tokenizer = TextTokenizer(artifact.path("tokenizer.json"), self.config.max_tokens)
            self._runtime = open_runtime(self.config, artifact.folder, threads, way)
            self._runtime.run(np.zeros((1, 1), np.int64), np.ones((1, 1), np.int64))
        self._speed = _SPEED_BEFORE_MEASURED

    @property
    def speed(self) -> float:
        """Tokens per second of the last batch, the padding included."""
        return self._speed

    def read(self, texts: Sequence[str], kind: str) -> list[Tokens]:
        """The tokens of texts as the model is given them."""
        prompt = self.config.prompt(kind)
        return self._tokenizer.encode([prompt + text for text in texts] if prompt else texts)

    def run(self, token_ids: Sequence[list[int]]) -> VectorArray:
        """One row for each sequence of tokens, computed together."""
        return self._run_padded(token_ids)

    @abstractmethod
    def try_out(self) -> None:
        """Compute something; what fails now would fail in every call."""

    @abstractmethod
    def _check(self, rows: VectorArray) -> None:
        """Refuse rows that are of no use to a caller."""

    def _compute(
        self, texts: Sequence[str], prompt: str, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> VectorArray:
        """One row per text, [texts, dimensions]; `checkpoint` runs between batches and may raise to end the call."""
        if len(texts) == 1:
            return self._compute_one(prompt + texts[0], work)
        started = time.perf_counter()
        token_ids: list[list[int]] = []
        for chunk in chunks(texts):
            for tokens in self._tokenizer.encode([prompt + text for text in chunk] if prompt else chunk):
                token_ids.append(tokens.ids)
                work.unknown += tokens.unknown
                work.truncated += tokens.is_truncated
            if len(token_ids) < len(texts):
                checkpoint()
        rows = self.compute_read(token_ids, checkpoint)
        work.tokens += sum(map(len, token_ids))
        work.seconds += time.perf_counter() - started
        return rows

    def compute_read(
        self, token_ids: Sequence[list[int]], checkpoint: Callable[[], None] = lambda: None
    ) -> VectorArray:
        """One row per sequence of tokens, computed in batches of about one length."""
        rows = np.empty((len(token_ids), self.config.dimensions), np.float32)
        order = sorted(range(len(token_ids)), key=lambda position: len(token_ids[position]), reverse=True)
        start = 0
        while start < len(order):
            if start:
                checkpoint()
            size = batch_size(len(token_ids[order[start]]), token_budget(self._speed))
            batch = order[start : start + size]
            rows[batch] = self._run_padded([token_ids[position] for position in batch])
            start += size
        return rows

    def _compute_one(self, text: str, work: Work) -> VectorArray:
        # A run of the model empties the processor's caches, so each step beside it costs ten times what it seems to.
        started = time.perf_counter()
        (tokens,) = self._tokenizer.encode([text])
        token_ids = np.array([tokens.ids], np.int64)
        rows = self._run(token_ids, np.ones_like(token_ids))
        work.tokens += token_ids.size
        work.unknown += tokens.unknown
        work.truncated += tokens.is_truncated
        work.seconds += time.perf_counter() - started
        return rows

    def _run_padded(self, token_ids: Sequence[list[int]]) -> VectorArray:
        padded, mask = pad(token_ids, self.config.pad_token_id)
        started = time.perf_counter()
        rows = self._run(padded, mask)
        self._speed = padded.size / max(time.perf_counter() - started, 1e-6)
        return rows

    def _run(self, token_ids: TokenArray, mask: TokenArray) -> VectorArray:
        if not token_ids.size:
            raise InvalidArgument("input has no token of the model")
        rows = self._runtime.run(token_ids, mask)
        shape = (len(token_ids), self.config.dimensions)
        if rows.shape != shape:
            raise ArtifactDamaged(f"the model returned an array of shape {rows.shape}, its configuration says {shape}")
        self._check(rows)
        return rows


def open_runtime(config: ArtifactConfig, folder: Path, threads: int, way: Way | None = None) -> Runtime:
    """The network in an artifact's folder, loaded by the engine that it is made for, or in the way that was chosen."""
    output = OUTPUTS[config.task]
    if config.engine == tensorrt.ENGINE:
        return tensorrt.TensorRtRuntime(folder / PLAN, config.source.get("tensorrt"), output)
    if config.engine != ENGINE:
        raise NotSupported(f'engine "{config.engine}" of the model is not one of this version')
    if way is None:
        return OnnxRuntime(folder / GRAPH, threads, output)
    if way.engine == OPENVINO:
        return openvino.OpenVinoRuntime(folder / GRAPH, way, output)
    runtime = OnnxRuntime(folder / GRAPH, way.threads, output, way.provider)
    return InTurns(runtime, way.lanes) if way.threads > 1 else runtime
