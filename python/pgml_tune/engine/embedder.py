"""A loaded embedding model: texts in, checked vectors out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pgml_tune.engine.artifact import GRAPH, Artifact
from pgml_tune.engine.batching import batch_size, chunks, token_budget
from pgml_tune.engine.contract import Runtime, TokenArray, VectorArray
from pgml_tune.engine.onnx import OnnxRuntime
from pgml_tune.engine.padding import pad
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.engine.tokenizer import Spans, TextTokenizer
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, NotSupported

_SPEED_BEFORE_MEASURED = 2048.0  # tokens per second
_SMALLEST_NORM = 1e-6


@dataclass(slots=True)
class Work:
    """What it took to embed."""

    tokens: int = 0
    truncated: int = 0
    seconds: float = 0.0


class Embedder:
    """The tokenizer and the runtime of one artifact."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        artifact.verify()
        self.config = artifact.config()
        if self.config.engine != "onnxruntime":
            raise NotSupported(f'engine "{self.config.engine}" of the model is not one of this version')
        with blocked_signals():
            self._tokenizer = TextTokenizer(artifact.path("tokenizer.json"), self.config.max_tokens)
            self._runtime: Runtime = OnnxRuntime(artifact.path(GRAPH), threads)
            self._runtime.run(np.zeros((1, 1), np.int64), np.ones((1, 1), np.int64))
        self._speed = _SPEED_BEFORE_MEASURED

    def count_tokens(self, text: str) -> int:
        """Tokens of a text with its special tokens, nothing cut."""
        return self._tokenizer.count(text)

    def spans(self, text: str, checkpoint: Callable[[], None]) -> Spans:
        """Where the tokens of a text are, nothing cut and none added."""
        return self._tokenizer.spans(text, checkpoint)

    def longest_text(self, kind: str) -> int:
        """The most tokens of a part of a text that the model reads beside its special tokens and its prompt."""
        return self._tokenizer.longest_text(self.config.prompt(kind))

    def try_out(self) -> None:
        """Embed a text of the greatest length, and two that need padding; what fails now would fail in every call."""
        self.embed(["a " * self.config.max_tokens], "passage", Work())
        self.embed(["a", "a longer text"], "query", Work())

    def embed(
        self, texts: Sequence[str], kind: str, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> VectorArray:
        """One row per text, [texts, dimensions]; `checkpoint` runs between batches and may raise to end the call."""
        if len(texts) == 1:
            return self._embed_one(texts[0], kind, work)
        started = time.perf_counter()
        prompt = self.config.prompt(kind)
        token_ids: list[list[int]] = []
        for chunk in chunks(texts):
            for tokens in self._tokenizer.encode([prompt + text for text in chunk] if prompt else chunk):
                token_ids.append(tokens.ids)
                work.truncated += tokens.is_truncated
            if len(token_ids) < len(texts):
                checkpoint()
        vectors = np.empty((len(token_ids), self.config.dimensions), np.float32)
        order = sorted(range(len(token_ids)), key=lambda position: len(token_ids[position]), reverse=True)
        start = 0
        while start < len(order):
            if start:
                checkpoint()
            size = batch_size(len(token_ids[order[start]]), token_budget(self._speed))
            batch = order[start : start + size]
            vectors[batch] = self._run_padded([token_ids[position] for position in batch])
            start += size
        work.tokens += sum(map(len, token_ids))
        work.seconds += time.perf_counter() - started
        return vectors

    def _embed_one(self, text: str, kind: str, work: Work) -> VectorArray:
        # A run of the model empties the processor's caches, so each step beside it costs ten times what it seems to.
        started = time.perf_counter()
        (tokens,) = self._tokenizer.encode([self.config.prompt(kind) + text])
        token_ids = np.array([tokens.ids], np.int64)
        vectors = self._run(token_ids, np.ones_like(token_ids))
        work.tokens += token_ids.size
        work.truncated += tokens.is_truncated
        work.seconds += time.perf_counter() - started
        return vectors

    def _run_padded(self, token_ids: list[list[int]]) -> VectorArray:
        padded, mask = pad(token_ids, self.config.pad_token_id)
        started = time.perf_counter()
        vectors = self._run(padded, mask)
        self._speed = padded.size / max(time.perf_counter() - started, 1e-6)
        return vectors

    def _run(self, token_ids: TokenArray, mask: TokenArray) -> VectorArray:
        if not token_ids.size:
            raise InvalidArgument("input has no token of the model")
        vectors = self._runtime.run(token_ids, mask)
        shape = (len(token_ids), self.config.dimensions)
        if vectors.shape != shape:
            raise ArtifactDamaged(
                f"the model returned an array of shape {vectors.shape}, its configuration says {shape}"
            )
        check_vectors(vectors)
        return vectors


def check_vectors(vectors: VectorArray) -> None:
    """Refuse NaN, infinity and the zero vector."""
    if len(vectors) == 1 and _SMALLEST_NORM**2 < float(vectors[0].dot(vectors[0])) < math.inf:
        return
    norms = np.einsum("ij,ij->i", vectors, vectors)
    # A comparison with NaN is false, so this catches it too.
    if not bool(((norms > _SMALLEST_NORM**2) & (norms < np.inf)).all()):
        raise InvalidArgument(
            "the model has no usable vector for the input",
            detail="It returned a zero vector or numbers that are not finite.",
        )
