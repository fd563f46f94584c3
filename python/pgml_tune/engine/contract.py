"""What a runtime has to offer: all that a second one must know.

A runtime turns one padded batch into one array. Tokenizing, prompts, batching, caching and checks are not its business.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pgml_tune.errors import ArtifactDamaged

TokenArray = NDArray[np.int64]  # [batch, tokens]
VectorArray = NDArray[np.float32]  # [batch, dimensions]
INPUTS, TYPES = frozenset({"input_ids", "attention_mask"}), "token_type_ids"  # what a graph takes, and may take, too
OUTPUTS = {"embedding": "sentence_embedding", "classification": "logits"}  # what a graph gives, by its task


class Runtime(Protocol):
    """A loaded model file."""

    def run(self, token_ids: TokenArray, attention_mask: TokenArray) -> VectorArray:
        """One vector, or the logits of all labels, for each row of a right-padded batch; the mask is 0 on padding."""
        ...


def check_graph(inputs: Collection[str], output: str, *, is_typed: bool) -> None:
    """Refuse a graph that is no text encoder; `is_typed` says that its types, and the output, are right."""
    if not is_typed or not INPUTS <= set(inputs) <= {*INPUTS, TYPES}:
        raise ArtifactDamaged(
            "the model does not have the inputs and the output of a text encoder",
            detail=f"Inputs are {', '.join(sorted(INPUTS))} and perhaps {TYPES}, the output is {output}.",
        )
