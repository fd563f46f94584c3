"""Leaves out of a model the tokens that some texts do not use.

What stays: the tokens of the texts, special tokens, and every single character that was a token, so that other texts
still become tokens, if more of them. The tokens of the texts themselves stay the same: WordPiece takes the longest
token that fits, and that one is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from pgml_tune.errors import NotSupported

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Reduction:
    """The numbers of the tokens that stay, by their numbers before; in the same order."""

    places: dict[int, int]
    before: int


def choose_tokens(tokenizer_json: str, texts: Iterable[str]) -> Reduction:
    """The tokens that stay when a vocabulary is reduced to what texts use."""
    description = json.loads(tokenizer_json)
    model = description["model"]
    if model.get("type") != "WordPiece":
        raise NotSupported(
            "the vocabulary of the student cannot be reduced",
            detail=f"Its tokenizer is {model.get('type')}; only in WordPiece does a token need no others.",
            hint="Use the option vocabulary => full.",
        )
    prefix, unknown = model["continuing_subword_prefix"], model["unk_token"]
    numbers = {token: int(number) for token, number in model["vocab"].items()}
    added = {int(token["id"]) for token in description["added_tokens"]}
    characters = {number for token, number in numbers.items() if len(token.removeprefix(prefix)) == 1}
    kept = added | characters | {numbers[unknown]} | _used(tokenizer_json, texts)
    return Reduction({number: place for place, number in enumerate(sorted(kept))}, len({*numbers.values(), *added}))


def reduce_embeddings(network: Any, reduction: Reduction) -> None:
    """Leave the rows of the embedding matrix that belong to tokens that stay."""
    encoder = network[0].model
    former = encoder.get_input_embeddings()
    padding = reduction.places.get(former.padding_idx) if former.padding_idx is not None else None
    kept = torch.tensor(list(reduction.places), dtype=torch.long)
    matrix = torch.nn.Embedding.from_pretrained(former.weight.detach()[kept].clone(), False, padding)
    encoder.set_input_embeddings(matrix)
    config = encoder.config
    config.vocab_size = len(reduction.places)
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and type(value) is int:
            setattr(config, name, reduction.places.get(value))


def reduce_tokenizer(folder: Path, reduction: Reduction) -> None:
    """Rewrite the tokenizer in a saved model folder."""
    file = folder / "tokenizer.json"
    description = json.loads(file.read_text(encoding="utf-8"))
    model = description["model"]
    model["vocab"] = {
        token: reduction.places[number] for token, number in model["vocab"].items() if number in reduction.places
    }
    for token in description["added_tokens"]:
        token["id"] = reduction.places[token["id"]]
    names = model["vocab"] | {token["content"]: token["id"] for token in description["added_tokens"]}
    _renumber(description.get("post_processor"), names)
    if description.get("padding"):
        description["padding"]["pad_id"] = names[description["padding"]["pad_token"]]
    file.write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    words = folder / "vocab.txt"
    if words.exists():
        words.write_text("".join(f"{token}\n" for token in sorted(names, key=names.__getitem__)), encoding="utf-8")
    configured = folder / "tokenizer_config.json"
    if configured.exists():
        values = json.loads(configured.read_text(encoding="utf-8"))
        decoder = values.get("added_tokens_decoder")
        if decoder:
            values["added_tokens_decoder"] = {
                str(reduction.places[int(number)]): token for number, token in decoder.items()
            }
            configured.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


def _used(tokenizer_json: str, texts: Iterable[str]) -> set[int]:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    listed, used = list(texts), set[int]()
    for start in range(0, len(listed), _AT_ONCE):
        for encoding in tokenizer.encode_batch(listed[start : start + _AT_ONCE]):
            used.update(encoding.ids)
    return used


def _renumber(processor: Any, names: Mapping[str, int]) -> None:
    """Give the special tokens that a processor adds their new numbers."""
    if not isinstance(processor, dict):
        return
    for part in processor.get("processors", []):
        _renumber(part, names)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else []:
        token["ids"] = [names[name] for name in token["tokens"]]
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], names[processor[name][0]]]
