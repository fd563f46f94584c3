"""A model that writes text, loaded from a staged folder of transformers, with what writing needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from pgml_tune.engine.generator import CT2, CT2_CAUSAL
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.chat import chat_template
from pgml_tune.jobs.source import Source
from pgml_tune.jobs.tokens import tokenizer_json

_UNLIMITED_TOKENS = 1 << 20  # libraries write "no limit" as a number like 10**30
_MOST_TOKENS = 512  # read, where nothing in the model sets a limit
_MOST_OUTPUT_TOKENS = 256
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True, slots=True)
class SequenceModel:
    """The loaded network, and its properties under the names of ArtifactConfig."""

    network: Any
    tokenizer: Any
    tokenizer_json: str
    engine: str
    dimensions: int
    max_tokens: int
    pad_token_id: int
    generation: dict[str, Any]


def load_sequence_model(source: Source) -> SequenceModel:
    """Load a staged model in full precision; one whose weights are incomplete is refused."""
    folder = str(source.folder)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        network, report = kind.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a foreign folder makes the libraries raise
        raise InvalidArgument(
            f'model "{source.name}" cannot be loaded', detail=f"{type(error).__name__}: {error}"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise InvalidArgument(
            f'the weights of model "{source.name}" are incomplete',
            detail="Parts of the network are not in its safetensors files and would be random.",
        )
    if not getattr(tokenizer, "is_fast", False):
        raise NotSupported(f'model "{source.name}" has no fast tokenizer', detail="Inference needs its tokenizer.json.")
    return _describe(network.eval(), tokenizer, source)


def _describe(network: Any, tokenizer: Any, source: Source) -> SequenceModel:
    is_pair = bool(network.config.is_encoder_decoder)
    places = _places(network.config)
    longest = min(_MOST_OUTPUT_TOKENS, places // 2) if places else _MOST_OUTPUT_TOKENS
    known = [limit for limit in (places, int(tokenizer.model_max_length)) if limit and limit <= _UNLIMITED_TOKENS]
    limit = min(known, default=_MOST_TOKENS)
    generation: dict[str, Any] = {"max_output_tokens": longest}
    if is_pair:
        first = getattr(network.generation_config, "forced_bos_token_id", None)
        if first is not None:
            generation["first_token"] = tokenizer.convert_ids_to_tokens(first)
    else:
        # What is written comes behind what is read, in the same places.
        limit -= longest
        generation |= chat_template(tokenizer, source.name)
        generation["end_tokens"] = _end_tokens(network, tokenizer)
    return SequenceModel(
        network=network,
        tokenizer=tokenizer,
        tokenizer_json=tokenizer_json(tokenizer),
        engine=CT2 if is_pair else CT2_CAUSAL,
        dimensions=int(network.config.hidden_size),
        max_tokens=limit,
        pad_token_id=int(tokenizer.pad_token_id or 0),
        generation=generation,
    )


def _places(config: Any) -> int | None:
    """The tokens that a network has places for; None where it has them for any number."""
    found = [getattr(config, name, None) for name in _POSITIONS]
    return next((place for place in found if isinstance(place, int) and place > 0), None)


def _end_tokens(network: Any, tokenizer: Any) -> list[str]:
    ends = network.generation_config.eos_token_id
    numbers = ends if isinstance(ends, list) else [ends]
    found = [tokenizer.convert_ids_to_tokens(number) for number in numbers if number is not None]
    return list(dict.fromkeys([*found, *filter(None, [tokenizer.eos_token])]))
