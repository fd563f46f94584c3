"""Decides what forms a batch; no time, no threads, no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

MAX_TEXTS = 32
MIN_BATCH_TOKENS, MAX_BATCH_TOKENS = 256, 8192
TARGET_SECONDS = 0.2  # a cancel is noticed between two batches
SERVED_SECONDS = 0.05  # that a batch of the worker takes at most, so that nobody waits long behind it
CHUNK_TEXTS, CHUNK_CHARACTERS = 512, 1 << 20  # tokenized between two looks for a cancel


def token_budget(tokens_per_second: float, seconds: float = TARGET_SECONDS) -> int:
    """Padded tokens that a model of this speed works off within the target time."""
    return int(min(max(tokens_per_second * seconds, MIN_BATCH_TOKENS), MAX_BATCH_TOKENS))


def batch_size(longest: int, max_tokens: int) -> int:
    """How many texts go together when the first, longest one sets the padding; a text too long for any goes alone."""
    return max(1, min(MAX_TEXTS, max_tokens // max(longest, 1)))


def chunks(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Consecutive runs of texts, bounded in number and in characters."""
    start, characters = 0, 0
    for end, text in enumerate(texts):
        if end > start and (end - start == CHUNK_TEXTS or characters + len(text) > CHUNK_CHARACTERS):
            yield texts[start:end]
            start, characters = end, 0
        characters += len(text)
    if start < len(texts):
        yield texts[start:]
