"""The rows that an embedding model is trained with, as sentence-transformers takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers.util import mine_hard_negatives

from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs.reports import Reporter
from pgml_tune.records import ArtifactConfig

_COLUMNS = {
    "pair_score": ("sentence1", "sentence2", "label"),
    "pair_label": ("sentence1", "sentence2", "label"),
    "pair": ("anchor", "positive"),
    "triplet": ("anchor", "positive", "negative"),
}
_MARGIN = 0.05  # a text that is nearer than 95 % of the positive's similarity may well be another right answer
_TOKENIZED_AT_ONCE = 1000


def make_dataset(rows: Sequence[Sequence[Any]], shape: str) -> Dataset:
    """The rows under the column names that the library knows."""
    columns = dict(zip(_COLUMNS[shape], zip(*rows, strict=True), strict=True))
    if "label" in columns:
        columns["label"] = tuple(map(float, columns["label"]))
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def prompts(config: ArtifactConfig) -> dict[str, str]:
    """What stands before the texts of each column; two texts of which neither asks for the other are passages."""
    kinds = {"anchor": "query", "positive": "passage", "negative": "passage"}
    columns = {name: config.prompt(kinds.get(name, "passage")) for names in _COLUMNS.values() for name in names}
    return {name: prompt for name, prompt in columns.items() if prompt and name != "label"}


def mine_negatives(dataset: Dataset, network: Any, count: int, config: ArtifactConfig, report: Reporter) -> Dataset:
    """Triplets of each pair with the near but wrong answers among the other rows' right ones."""
    report.progress("mining hard negatives")
    mined = mine_hard_negatives(
        dataset,
        network,
        num_negatives=count,
        relative_margin=_MARGIN,
        output_format="triplet",
        query_prompt=config.prompt_query,
        corpus_prompt=config.prompt_passage,
        verbose=False,
    )
    if not len(mined):
        raise InvalidArgument(
            "no hard negatives were found in the rows",
            detail="A negative is the right answer of another row, less similar than the row's own by 5 % or more.",
            hint="Leave option hard_negatives out.",
        )
    kept = len(set(mined["anchor"]))
    report.log(
        f"{len(mined)} hard negatives were mined for {kept} of {len(set(dataset['anchor']))} anchors;"
        " rows without any are left out"
    )
    return mined


def count_long(texts: Iterable[str], tokenizer_file: Path, max_tokens: int) -> tuple[int, int]:
    """How many texts are longer than the model reads, and how many there are."""
    tokenizer, listed = TextTokenizer(tokenizer_file, max_tokens), list(texts)
    parts = (listed[start : start + _TOKENIZED_AT_ONCE] for start in range(0, len(listed), _TOKENIZED_AT_ONCE))
    return sum(tokens.is_truncated for part in parts for tokens in tokenizer.encode(part)), len(listed)
