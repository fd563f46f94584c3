"""What a student is before it learns: some layers of its teacher, or another model that gets the teacher's output."""

from __future__ import annotations

from typing import Any

from sentence_transformers.sentence_transformer.modules import Dense, Normalize
from torch.nn import ModuleList

from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs.classifier import with_modules


def spaced(count: int, total: int) -> list[int]:
    """So many places out of `total`, evenly spaced; the first and the last are among them, if there are two."""
    return [0] if count == 1 else [round(place * (total - 1) / (count - 1)) for place in range(count)]


def keep_layers(network: Any, count: int) -> None:
    """Leave so many layers of the encoder; embeddings, pooling and head stay."""
    encoder = network[0].model
    config = encoder.config
    total = int(getattr(config, "num_hidden_layers", 0))
    found = [
        name for name, module in encoder.named_modules() if isinstance(module, ModuleList) and len(module) == total
    ]
    if len(found) != 1 or getattr(config, "is_encoder_decoder", False):
        raise NotSupported(
            "layers cannot be taken out of the teacher",
            detail=f"Its architecture ({type(encoder).__name__}) is not one list of layers.",
            hint="Name a registered model as the student.",
        )
    if not 1 <= count < total:
        raise InvalidArgument(
            f"the student is to have {count} layers, the teacher has {total}",
            hint=f"Name as student layers:1 to layers:{total - 1}.",
        )
    places = spaced(count, total)
    owner, _, attribute = found[0].rpartition(".")
    layers = encoder.get_submodule(found[0])
    setattr(encoder.get_submodule(owner), attribute, ModuleList(layers[place] for place in places))
    config.num_hidden_layers = count
    if getattr(config, "layer_types", None):  # where layers differ, the configuration says how
        config.layer_types = [config.layer_types[place] for place in places]


def with_dimensions(network: Any, dimensions: int, *, is_normalized: bool) -> Any:
    """The model with vectors of so many dimensions, by a dense layer if it has others, and of length 1 if asked."""
    network.truncate_dim = None
    modules = [module for module in network if not isinstance(module, Normalize)]
    own = int(network.get_embedding_dimension())
    if own != dimensions:
        modules.append(Dense(own, dimensions, activation_function=None))
    return with_modules(network, [*modules, Normalize()] if is_normalized else modules)
