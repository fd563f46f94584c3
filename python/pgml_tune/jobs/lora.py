"""Low-rank adapters: few weights that are trained beside the frozen ones, and added to them afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from pgml_tune.errors import InvalidArgument

_DEFAULTS = {"r": 16, "alpha": 32, "dropout": 0.05, "target_modules": None}
# What attention reads its input with, under the names that architectures give it.
_ATTENTION = frozenset(
    ["query", "key", "value", "q", "k", "v", "q_lin", "k_lin", "v_lin", "q_proj", "k_proj", "v_proj"]
    + ["Wqkv", "qkv", "qkv_proj", "query_key_value", "in_proj"]
)


class Adapters:
    """The adapters of a network's encoder."""

    def __init__(self, encoder: Any, options: Mapping[str, Any]) -> None:
        values = _DEFAULTS | {key: value for key, value in options.items() if value is not None}
        targets = values["target_modules"] or _attention_modules(encoder)
        config = LoraConfig(
            r=values["r"], lora_alpha=values["alpha"], lora_dropout=values["dropout"], target_modules=targets
        )
        try:
            self._model = get_peft_model(encoder, config)
        except ValueError as error:  # as it says when no module has one of the names
            raise InvalidArgument(
                'option "lora" names modules that the model does not have',
                detail=f"{error}"[:500],
                hint=f"Its linear modules are: {', '.join(sorted(_leaves(encoder)))}.",
            ) from None

    def merge(self) -> None:
        """Add what was trained to the weights; the encoder is then as it was built."""
        self._model.merge_and_unload(safe_merge=True)


def _attention_modules(encoder: Any) -> list[str] | str:
    found = sorted(_leaves(encoder) & _ATTENTION)
    return found or "all-linear"


def _leaves(encoder: Any) -> set[str]:
    return {name.rpartition(".")[2] for name, module in encoder.named_modules() if isinstance(module, torch.nn.Linear)}


def count_parameters(network: Any) -> tuple[int, int]:
    """How many numbers are trained, and how many there are."""
    sizes = [(parameter.requires_grad, parameter.numel()) for parameter in network.parameters()]
    return sum(size for is_trained, size in sizes if is_trained), sum(size for _, size in sizes)
