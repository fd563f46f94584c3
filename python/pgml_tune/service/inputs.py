"""What may be passed to a model: the limits of an input, and the errors beyond them."""

from __future__ import annotations

from pgml_tune.engine.work import Work
from pgml_tune.errors import LimitExceeded
from pgml_tune.settings import SETTINGS, Limits


def encoded(text: str, limits: Limits, *, is_bounded_by_setting: bool = True) -> bytes:
    """A text in UTF-8, if it is not too large."""
    # A text has at least as many bytes as characters: what is far too long is not even encoded.
    size = len(text)
    if size <= limits.max_input_bytes:
        content = text.encode()
        size = len(content)
        if size <= limits.max_input_bytes:
            return content
    raise LimitExceeded(
        f"input has {size} bytes or more, the limit is {limits.max_input_bytes}",
        hint=raise_limit("max_input_bytes", size) if is_bounded_by_setting else "",
    )


def refuse_cut(work: Work, limits: Limits, max_tokens: int) -> None:
    """Raise where a text was longer than the model reads and the settings do not let it be cut."""
    if work.truncated and limits.long_input == "error":
        raise LimitExceeded(
            f"input is longer than the {max_tokens} tokens the model reads",
            detail="Setting long_input is error.",
            hint="SELECT configure('long_input', 'truncate')",
        )


def raise_limit(name: str, value: int) -> str:
    """The statement that would let a value pass, if any may."""
    possible = value <= SETTINGS[name].maximum
    return f"SELECT configure('{name}', '{value}')" if possible else ""
