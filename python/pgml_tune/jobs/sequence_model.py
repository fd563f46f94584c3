"""A model that writes text, in a staged folder of transformers: its network, and what writing needs to know of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

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
    """What a folder says of its model, in part under the names of ArtifactConfig."""

    source: Source
    config: Any
    tokenizer: Any
    engine: str
    dimensions: int
    max_tokens: int
    pad_token_id: int
    generation: dict[str, Any]

    @property
    def architecture(self) -> str:
        return str((self.config.architectures or [type(self.config).__name__])[0])

    def tokenizer_json(self) -> str:
        return tokenizer_json(self.tokenizer)


def describe(source: Source) -> SequenceModel:
    """What a staged folder says of its model."""
    folder = str(source.folder)
    with _explained(source):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        writing = (
            GenerationConfig.from_pretrained(folder, local_files_only=True)
            if (source.folder / "generation_config.json").exists()
            else GenerationConfig.from_model_config(config)
        )
    if not getattr(tokenizer, "is_fast", False):
        raise NotSupported(f'model "{source.name}" has no fast tokenizer', detail="Inference needs its tokenizer.json.")
    is_pair = bool(config.is_encoder_decoder)
    places = _places(config)
    known = [limit for limit in (places, int(tokenizer.model_max_length)) if limit and limit <= _UNLIMITED_TOKENS]
    limit = min(known, default=_MOST_TOKENS)
    # What a decoder alone writes comes behind what it reads, in the same places.
    room = places or _MOST_OUTPUT_TOKENS if is_pair else limit // 4
    generation: dict[str, Any] = {"max_output_tokens": min(_MOST_OUTPUT_TOKENS, room)}
    if is_pair:
        if writing.forced_bos_token_id is not None:
            generation["first_token"] = tokenizer.convert_ids_to_tokens(writing.forced_bos_token_id)
    else:
        limit -= generation["max_output_tokens"]
        generation |= chat_template(tokenizer, source.name)
        generation["end_tokens"] = _end_tokens(writing.eos_token_id, tokenizer)
    return SequenceModel(
        source=source,
        config=config,
        tokenizer=tokenizer,
        engine=CT2 if is_pair else CT2_CAUSAL,
        dimensions=int(config.hidden_size),
        max_tokens=limit,
        pad_token_id=int(tokenizer.pad_token_id or 0),
        generation=generation,
    )


def load_network(model: SequenceModel) -> Any:
    """The network in full precision; one whose weights are incomplete is refused."""
    kind = AutoModelForSeq2SeqLM if model.config.is_encoder_decoder else AutoModelForCausalLM
    with _explained(model.source):
        network, report = kind.from_pretrained(
            str(model.source.folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if report["missing_keys"] or report["mismatched_keys"]:
        raise InvalidArgument(
            f'the weights of model "{model.source.name}" are incomplete',
            detail="Parts of the network are not in its safetensors files and would be random.",
        )
    return network.eval()


@contextlib.contextmanager
def _explained(source: Source) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a foreign folder makes the libraries raise
        raise InvalidArgument(
            f'model "{source.name}" cannot be loaded', detail=f"{type(error).__name__}: {error}"
        ) from error


def _places(config: Any) -> int | None:
    """The tokens that a network has places for; None where it has them for any number."""
    found = [getattr(config, name, None) for name in _POSITIONS]
    return next((place for place in found if isinstance(place, int) and place > 0), None)


def _end_tokens(ends: Any, tokenizer: Any) -> list[str]:
    numbers = ends if isinstance(ends, list) else [ends]
    found = [tokenizer.convert_ids_to_tokens(number) for number in numbers if number is not None]
    return list(dict.fromkeys([*found, *filter(None, [tokenizer.eos_token])]))
