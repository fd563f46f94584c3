"""Classifiers while they are loaded: sentence-transformers models whose output are the logits of their labels.

The labels stand in the configuration of the encoder, where transformers keeps them. The head is a dense layer behind
the pooling, or for a `*ForSequenceClassification` model its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Transformer

from pgml_tune.engine.onnx import OUTPUT
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.records import are_labels

_LOGITS: dict[str, Any] = {"text": {"method": "forward", "method_output_name": "logits"}}


def sequence_classifier(folder: Path, weights: Mapping[str, Any]) -> Any:
    """A model with a classification head of transformers, loaded from its folder."""
    network = Transformer(
        str(folder),
        transformer_task="sequence-classification",
        modality_config=_LOGITS,
        module_output_name=OUTPUT,
        model_kwargs={**weights, "trust_remote_code": False, "local_files_only": True},
        config_kwargs={"local_files_only": True},
        processor_kwargs={"local_files_only": True},
    )
    return SentenceTransformer(modules=[network], device="cpu")


def labels_of(network: Any) -> list[str]:
    """The labels of a classifier in the order of its output."""
    config = network[0].config
    if config.problem_type not in (None, "single_label_classification"):
        raise NotSupported(
            "the model does not choose one of its labels",
            detail=f"Its configuration says problem_type {config.problem_type}.",
        )
    names = {int(place): name for place, name in (config.id2label or {}).items()}
    labels = [names.get(place) for place in range(len(names))]
    outputs = head_of(network)[1].out_features
    if len(labels) != outputs or len(labels) < 2 or not are_labels(labels):
        raise InvalidArgument(
            "the model is not a classifier with a name for each of its labels",
            detail=f"It has {outputs} outputs, and id2label of its configuration names {len(labels)}.",
            hint="Import it with the task embedding, then CALL finetune_classifier(...).",
        )
    return [str(label) for label in labels]


def head_of(network: Any) -> tuple[str, Any]:
    """The name and the layer of what makes the logits: the last linear layer."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, torch.nn.Linear)]
    if not layers:
        raise NotSupported("the model has no linear layer that could be its head")
    return layers[-1]


def with_labels(network: Any, labels: Sequence[str], known: Sequence[str]) -> Any:
    """The model with a head for these labels: a new one, or its own, whose rows of `known` labels are kept."""
    if known:
        _change_head(network, labels, known)
    else:
        network.truncate_dim = None
        modules = [module for module in network if not isinstance(module, Normalize)]
        head = Dense(int(network.get_embedding_dimension()), len(labels), activation_function=None)
        network = with_modules(network, [*modules, head])
    config = network[0].config
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: place for place, label in enumerate(labels)}
    return network


def with_modules(network: Any, modules: Sequence[Any]) -> Any:
    """A model of other modules with the prompts of this one."""
    return SentenceTransformer(
        modules=list(modules),
        device="cpu",
        prompts=network.prompts,
        default_prompt_name=network.default_prompt_name,
    )


def _change_head(network: Any, labels: Sequence[str], known: Sequence[str]) -> None:
    name, head = head_of(network)
    fresh = torch.nn.Linear(head.in_features, len(labels), bias=head.bias is not None)
    kept = [place for place, label in enumerate(labels) if label in known]
    former = [known.index(labels[place]) for place in kept]
    with torch.no_grad():
        fresh.weight[kept] = head.weight[former]
        if head.bias is not None:
            fresh.bias[kept] = head.bias[former]
    owner = network.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], fresh)
    for holder in network.modules():
        if isinstance(holder, Dense) and holder.linear is fresh:
            holder.out_features = len(labels)
        elif hasattr(holder, "num_labels") and isinstance(holder.num_labels, int):
            holder.num_labels = len(labels)
