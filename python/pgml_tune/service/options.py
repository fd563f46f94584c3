"""The `options jsonb` of functions."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from pgml_tune.errors import InvalidArgument


def parse_options(text: str | None, valid: Iterable[str], example: str) -> dict[str, Any]:
    """The keys and values of options, NULL meaning none; an unknown key is refused with the valid ones."""
    try:
        values = json.loads("{}" if text is None else text)
    except (ValueError, RecursionError):
        raise InvalidArgument("options cannot be read") from None
    if type(values) is not dict:
        raise InvalidArgument("options is not a JSON object", hint=f"SELECT jsonb_build_object({example})")
    if set(values) - set(valid):
        raise InvalidArgument("options has unknown keys", detail=f"Valid keys are: {', '.join(valid)}.")
    return values
