"""Decides which waiting texts of different sessions are computed together, and when; no time, no threads, no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MOST_PADDING = 1.5  # tokens computed for each token that means something
_MOST_LOOKED_AT = 256  # parts that may join a batch: more would take longer to look at than to compute


@dataclass(frozen=True, slots=True)
class Part:
    """Texts of one request that are computed together in any case, all of about one length."""

    number: int  # no two have the same
    digest: str
    session: int
    is_bulk: bool
    arrived: float
    texts: int
    tokens: int
    longest: int
    most_tokens: int  # that the model works off within a moment
    is_mixable: bool  # texts of others in the batch do not change its vectors
    most_texts: int  # that a batch of the model may hold


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a batch may hold, and how long parts may wait."""

    texts: int
    wait_seconds: float  # for a batch to fill
    bulk_wait_seconds: float  # behind interactive parts


@dataclass(frozen=True, slots=True)
class Wait:
    """It is better to wait for more."""

    seconds: float


def form_batch(
    waiting: Sequence[Part], now: float, is_idle: bool, limits: BatchLimits, served: Mapping[int, int]
) -> list[Part] | Wait:
    """The parts that are to be computed now; no part waits for others where nothing else is being computed.

    Interactive parts come before those of bulk work unless these have waited for long. Sessions take turns: `served`
    tells when each had its last one, and who has had none for longest is next.
    """
    if is_idle and len(waiting) == 1:
        return list(waiting)
    ordered = _ordered(waiting, now, limits, served)
    head = ordered[0]
    if not head.is_mixable:
        return [head]
    batch, texts, tokens, longest = [head], head.texts, head.tokens, head.longest
    most_texts = min(limits.texts, head.most_texts)
    for part in ordered[1:_MOST_LOOKED_AT]:
        if part.digest != head.digest or not part.is_mixable or texts + part.texts > most_texts:
            continue
        padded = max(longest, part.longest) * (texts + part.texts)
        if padded <= head.most_tokens and padded <= _MOST_PADDING * (tokens + part.tokens):
            batch.append(part)
            texts, tokens, longest = texts + part.texts, tokens + part.tokens, max(longest, part.longest)
    is_full = 2 * texts > most_texts or 2 * longest * texts > head.most_tokens
    waits_until = min(part.arrived for part in batch) + limits.wait_seconds
    if is_idle or is_full or now >= waits_until:
        return batch
    return Wait(waits_until - now)


def _ordered(
    waiting: Sequence[Part], now: float, limits: BatchLimits, served: Mapping[int, int]
) -> list[Part]:
    before: Counter[int] = Counter()  # parts that a session has ahead of this one
    ranked = []
    for part in sorted(waiting, key=lambda part: (part.arrived, part.number)):
        is_late = part.is_bulk and now - part.arrived < limits.bulk_wait_seconds
        turn = before[part.session], served.get(part.session, 0)
        ranked.append((is_late, turn, part.arrived, part.number, part))
        before[part.session] += 1
    return [entry[-1] for entry in sorted(ranked, key=lambda entry: entry[:-1])]
