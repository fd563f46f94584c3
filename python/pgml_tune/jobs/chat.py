"""The chat template of a model, rendered once: what stands before and behind whatever is asked."""

from __future__ import annotations

from typing import Any

from pgml_tune.engine.answers import INSTRUCTION
from pgml_tune.errors import NotSupported

_PLACE = "QUESTION-GOES-HERE"


def chat_template(tokenizer: Any, name: str) -> dict[str, str]:
    """Prefix and suffix of a prompt; a model without a template gets nothing but the token it begins texts with."""
    if not tokenizer.chat_template:
        beginning = tokenizer.decode(tokenizer.encode("x")[: -len(tokenizer.encode("x", add_special_tokens=False))])
        return {"prefix": str(beginning), "suffix": ""}
    try:
        # In a sandbox of the library: it reads no file and calls nothing but methods of texts and lists.
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{INSTRUCTION}\n\n{_PLACE}"}], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # a template may raise what it likes
        raise NotSupported(
            f'the chat template of model "{name}" cannot be rendered', detail=f"{type(error).__name__}: {error}"
        ) from None
    prefix, found, suffix = str(text).partition(_PLACE)
    if not found or _PLACE in suffix:
        raise NotSupported(
            f'the chat template of model "{name}" does not repeat what is asked once',
            detail="The question has to stand in it in one place, unchanged.",
        )
    return {"prefix": prefix, "suffix": suffix}
