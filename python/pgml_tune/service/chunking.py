"""Decides where a text is cut into chunks; no tokenizer, no model, no SQL."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pgml_tune.engine.spans import Spans
from pgml_tune.errors import InvalidArgument

# How good a place is to cut at.
_INSIDE, _TOKEN, _WORD, _SENTENCE, _LINE, _PARAGRAPH = range(-1, 5)
_IDEOGRAPH = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")
_STOPS, _WIDE_STOPS = ".!?…", "。！？｡"
_CLOSING = "\"')]}»”’」』）】》〉"
_NEVER_FIRST = _STOPS + _WIDE_STOPS + _CLOSING + ",;:%，、；："


def check_sizes(chunk_tokens: int, chunk_overlap: int, longest: int) -> None:
    """Refuse sizes that the model cannot read or that would hardly get on."""
    if not 1 <= chunk_tokens <= longest:
        raise InvalidArgument(
            f"chunk_tokens is {chunk_tokens}",
            detail=f"It is from 1 to {longest}, the tokens of a text that the model reads.",
        )
    if not 0 <= chunk_overlap <= chunk_tokens // 2:
        raise InvalidArgument(
            f"chunk_overlap is {chunk_overlap}",
            detail=f"It is from 0 to {chunk_tokens // 2}, half of chunk_tokens.",
        )


def cut(text: str, spans: Spans, chunk_tokens: int, chunk_overlap: int) -> list[tuple[int, int]]:
    """Ranges of characters that together hold the text but for white space, each of at most so many tokens.

    A chunk ends with a paragraph, a line or a sentence if one ends in its last third, else with a word. Only
    characters that share more tokens make a chunk that is longer.
    """
    ranges: list[tuple[int, int]] = []
    first, begin = 0, 0
    while len(spans.starts) - first > chunk_tokens:
        end = _end(text, spans, first, first + chunk_tokens)
        if end == len(spans.starts):
            break
        # White space goes to the chunk behind it, as it does in tokenizers that keep it.
        ranges.append((begin, spans.ends[end - 1]))
        # The next chunk begins with the best place in the first half of what is to be had twice.
        again = range(max(end - chunk_overlap, first + 1), end - chunk_overlap // 2 + 1)
        first = _best(text, spans, again, _TOKEN) or end
        begin = spans.ends[first - 1]
    ranges.append((begin, len(text)))
    return [(begin, end) for begin, end in ranges if not text[begin:end].isspace()] or [(0, len(text))]


def _end(text: str, spans: Spans, first: int, last: int) -> int:
    """The token before which a chunk ends that begins with token `first` and holds none behind `last`."""
    third, half = last - (last - first) // 3, first + (last - first) // 2
    place = (
        _best(text, spans, range(last, third - 1, -1), _WORD)
        or _best(text, spans, range(third - 1, half, -1), _WORD)
        or _best(text, spans, range(last, first, -1), _TOKEN, enough=_TOKEN)
    )
    if place is not None:
        return place
    beyond = last + 1
    while beyond < len(spans.starts) and _rank(text, spans, beyond) == _INSIDE:
        beyond += 1
    return beyond


def _best(text: str, spans: Spans, places: Iterable[int], rank: int, enough: int = _PARAGRAPH) -> int | None:
    """The first of the best places to cut before, if it has this rank at least; `enough` ends the search."""
    best = None
    for place in places:
        found = _rank(text, spans, place)
        if found > rank or (best is None and found == rank):
            best, rank = place, found
            if rank >= enough:
                break
    return best


def _rank(text: str, spans: Spans, place: int) -> int:
    """How good it is to cut before the token at `place`, which is neither the first nor behind the last."""
    end, start = spans.ends[place - 1], spans.starts[place]
    if start < end or start <= spans.starts[place - 1]:
        return _INSIDE  # both tokens hold a part of one character
    gap = text[end:start]
    breaks = max(gap.count("\n"), gap.count("\r"))
    if breaks:
        return _PARAGRAPH if breaks > 1 else _LINE
    before, after = text[max(0, end - 8) : end].rstrip(_CLOSING)[-1:], text[start : start + 1]
    if not gap and (not after or after in _NEVER_FIRST):
        return _TOKEN
    if before and before in (_WIDE_STOPS + _STOPS if gap else _WIDE_STOPS):
        return _SENTENCE
    return _WORD if gap or _IDEOGRAPH.match(text[end - 1]) or _IDEOGRAPH.match(after) else _TOKEN
