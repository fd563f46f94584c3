"""The measurements that a converted model must pass, with their limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pgml_tune.engine.generator import Generated, open_folder
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.engine.work import Work
from pgml_tune.errors import NotSupported
from pgml_tune.records import ArtifactConfig

PROMPTS = 32
CONVERTED_DIFFERENCE = 0.01  # of log probabilities of tokens, on average
_CANDIDATES = 4
_LONGEST = 64  # tokens written for a comparison: the first tell enough
_DIGITS = 6


def check_conversion(
    folder: Path, config: ArtifactConfig, network: Any, tokenizer: Any, prompts: Sequence[str], threads: int
) -> dict[str, Any]:
    """Compare how probable both find the same texts, token by token; refuse the converted one where they differ."""
    converted = _open(folder, config, threads)
    differences: list[float] = []
    for prompt, found in zip(prompts, _write(converted, prompts), strict=True):
        pieces = converted.written(found[0].text if found else "a")[:_LONGEST]
        ours = np.array(converted.score(prompt, pieces))
        theirs = np.array(_score(network, converted.read(prompt), tokenizer.convert_tokens_to_ids(pieces)))
        differences += np.abs(ours - theirs).tolist()
    mean, most = float(np.mean(differences)), float(np.max(differences))
    if not mean <= CONVERTED_DIFFERENCE:
        raise NotSupported(
            "the converted network does not reproduce the model",
            detail=f"Log probabilities of {len(differences)} tokens differ by {mean:.4f} on average and"
            f" by {most:.4f} at most; the average must be {CONVERTED_DIFFERENCE} or less.",
        )
    return {"conversion": {"tokens": len(differences), "mean": round(mean, _DIGITS), "max": round(most, _DIGITS)}}


def measure_storage(
    plain: Path, stored: Path, config: ArtifactConfig, prompts: Sequence[str], threads: int
) -> dict[str, Any]:
    """The share of prompts for which both write the same text first, and the share of candidates that both have."""
    before, after = (_write(_open(folder, config, threads), prompts) for folder in (plain, stored))
    pairs = list(zip(map(_texts, before), map(_texts, after), strict=True))
    same = sum(old[:1] == new[:1] for old, new in pairs) / len(pairs)
    shared = [len(set(old) & set(new)) / max(len(old), len(new), 1) for old, new in pairs]
    return {
        "storage_parity": {
            "prompts": len(pairs),
            "same_first": round(same, _DIGITS),
            "same_candidates": round(float(np.mean(shared)), _DIGITS),
        }
    }


def _open(folder: Path, config: ArtifactConfig, threads: int) -> LocalGenerator:
    longest = min(config.generation["max_output_tokens"], _LONGEST)
    shorter = replace(config, generation={**config.generation, "max_output_tokens": longest})
    return cast(LocalGenerator, open_folder(folder, shorter, threads))


def _write(generator: LocalGenerator, prompts: Sequence[str]) -> list[list[Generated]]:
    return generator.generate_all(prompts, _CANDIDATES, Work())


def _texts(found: Sequence[Generated]) -> list[str]:
    return [candidate.text for candidate in found]


def _score(network: Any, source: list[int], target: list[int]) -> list[float]:
    """The log probability of each token by the original network."""
    with torch.no_grad():
        if network.config.is_encoder_decoder:
            start = network.config.decoder_start_token_id
            logits = network(
                input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *target[:-1]]])
            ).logits[0]
        else:
            logits = network(input_ids=torch.tensor([[*source, *target]])).logits[0][-len(target) - 1 : -1]
        probabilities = torch.log_softmax(logits.float(), dim=-1)
    return [float(probabilities[place, number]) for place, number in enumerate(target)]
