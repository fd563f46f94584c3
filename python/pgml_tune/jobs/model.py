"""A sentence-transformers model, loaded for training or export, with what inference needs to know of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.classifier import labels_of, sequence_classifier
from pgml_tune.jobs.source import Source
from pgml_tune.jobs.tokens import tokenizer_json

_PASSAGE_PROMPTS = ("passage", "document", "corpus")
_WEIGHTS = {"dtype": torch.float32, "use_safetensors": True}
_UNLIMITED_TOKENS = 1 << 20  # libraries write "no limit" as a number like 10**30


@dataclass(frozen=True, slots=True)
class Model:
    """The loaded network, and its properties under the names of ArtifactConfig."""

    network: Any
    tokenizer_json: str
    dimensions: int
    max_tokens: int
    pooling: str
    is_normalized: bool
    prompt_query: str
    prompt_passage: str
    pad_token_id: int
    space_id: str
    labels: list[str]


def load(source: Source, task: str = "embedding") -> Model:
    """Load a staged model; weights that are missing and would be made up at random are found out by a second load."""
    other = _load_network(source, task, seed=1).encode(["probe"])
    network = _load_network(source, task, seed=0)
    if not np.array_equal(network.encode(["probe"]), other, equal_nan=True):
        raise InvalidArgument(
            f'the weights of model "{source.name}" are incomplete',
            detail="Parts of the network are not in its safetensors files and would be random.",
        )
    return _describe(network, source, task)


def _load_network(source: Source, task: str, seed: int) -> Any:
    torch.manual_seed(seed)
    try:
        if task == "classification" and not (source.folder / "modules.json").exists():
            network = sequence_classifier(source.folder, _WEIGHTS)
        else:
            network = SentenceTransformer(
                str(source.folder),
                device="cpu",
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs=dict(_WEIGHTS),
            )
    except Exception as error:  # whatever a foreign folder makes the libraries raise
        raise InvalidArgument(
            f'model "{source.name}" cannot be loaded', detail=f"{type(error).__name__}: {error}"
        ) from error
    return network.eval()


def _describe(network: Any, source: Source, task: str) -> Model:
    modules = list(network)
    pooling = [module for module in modules if isinstance(module, Pooling)]
    labels = labels_of(network) if task == "classification" else []
    has_own_head = bool(labels) and not pooling  # the network pools by itself
    if not isinstance(modules[0], Transformer) or (len(pooling) != 1 and not has_own_head):
        raise NotSupported(
            f'model "{source.name}" is not a text encoder with one pooling step',
            detail=f"Its modules are: {', '.join(type(module).__name__ for module in modules)}.",
        )
    if not getattr(network.tokenizer, "is_fast", False):
        raise NotSupported(f'model "{source.name}" has no fast tokenizer', detail="Inference needs its tokenizer.json.")
    prompts = dict(network.prompts)
    default = prompts.get(network.default_prompt_name) or ""
    prompt_query = prompts.get("query") or default
    prompt_passage = next((prompts[name] for name in _PASSAGE_PROMPTS if prompts.get(name)), default)
    if (prompt_query or prompt_passage) and not all(step.include_prompt for step in pooling):
        raise NotSupported(
            f'model "{source.name}" leaves the tokens of its prompt out of pooling',
            detail='Its pooling has "include_prompt": false, which the exported network cannot follow.',
        )
    modes = pooling[0].pooling_mode if pooling else "none"
    pooling_name = modes if isinstance(modes, str) else "+".join(modes)
    dimensions = len(labels) or int(network.get_embedding_dimension())
    return Model(
        network=network,
        tokenizer_json=tokenizer_json(network.tokenizer),
        dimensions=dimensions,
        max_tokens=_max_tokens(network, source),
        pooling=pooling_name,
        is_normalized=isinstance(modules[-1], Normalize) and network.truncate_dim is None,
        prompt_query=prompt_query,
        prompt_passage=prompt_passage,
        pad_token_id=int(network.tokenizer.pad_token_id or 0),
        space_id=_space_id(source.weights_sha256, pooling_name, dimensions, prompt_query, prompt_passage),
        labels=labels,
    )


def _max_tokens(network: Any, source: Source) -> int:
    limits = (network.max_seq_length, network[0].max_seq_length)
    known = [int(limit) for limit in limits if limit is not None and 0 < limit <= _UNLIMITED_TOKENS]
    if not known:
        raise InvalidArgument(
            f'model "{source.name}" does not say how many tokens it takes',
            hint='Add {"max_seq_length": ...} as sentence_bert_config.json to its folder.',
        )
    return min(known)


def _space_id(weights_sha256: str, *properties: str | int) -> str:
    """Equal for versions whose vectors may be compared: the same weights, pooling, dimensions and prompts."""
    return hashlib.sha256(json.dumps([weights_sha256, *properties]).encode()).hexdigest()[:32]
