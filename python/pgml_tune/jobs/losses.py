"""Which loss a training has: by the shape of the rows, or by option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.losses.triplet import TripletDistanceMetric

from pgml_tune.errors import InvalidArgument
from pgml_tune.service.training_rows import LOSSES

IN_BATCH = ("mnrl", "cached_mnrl")  # take the other rows of a batch for negatives, so a text may be in it once only
_TRIPLET_MARGIN = 0.3  # of cosine distances; the library's default of 5 is for vectors of any length
_CACHED_ROWS = 32  # at a time, whatever the batch


def _cached_mnrl(network: Any) -> Any:
    return losses.CachedMultipleNegativesRankingLoss(network, mini_batch_size=_CACHED_ROWS)


def _triplet(network: Any) -> Any:
    return losses.TripletLoss(network, TripletDistanceMetric.COSINE, _TRIPLET_MARGIN)


_MAKERS: dict[str, Callable[[Any], Any]] = {
    "cosine": losses.CosineSimilarityLoss,
    "cosent": losses.CoSENTLoss,
    "mnrl": losses.MultipleNegativesRankingLoss,
    "cached_mnrl": _cached_mnrl,
    "triplet": _triplet,
    "contrastive": losses.ContrastiveLoss,
}


def choose_loss(shape: str, wanted: str | None) -> str:
    """The name of the loss for rows of a shape."""
    fitting = LOSSES.get(shape, ())
    if not fitting or wanted is not None and wanted not in fitting:
        raise InvalidArgument(
            f'loss "{wanted}" does not fit the rows' if wanted else "the rows do not fit any loss",
            detail=f"Their shape is {shape}; losses that fit are: {', '.join(fitting) or 'none'}.",
        )
    return wanted or fitting[0]


def make_loss(name: str, network: Any, matryoshka: Sequence[int] | None) -> Any:
    """The loss, also applied to the first dimensions of the vectors where these shall be of use alone."""
    loss = _MAKERS[name](network)
    if not matryoshka:
        return loss
    dimensions = int(network.get_embedding_dimension())
    if max(matryoshka) > dimensions:
        raise InvalidArgument(
            f'option "matryoshka" asks for {max(matryoshka)} dimensions, the model has {dimensions}',
        )
    return losses.MatryoshkaLoss(network, loss, sorted({*matryoshka, dimensions}, reverse=True))
