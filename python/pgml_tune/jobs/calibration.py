"""Texts that show a quantizer which values a network's activations take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import CalibrationDataReader

from pgml_tune.engine.contract import TokenArray
from pgml_tune.engine.padding import pad
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.records import ArtifactConfig

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}
MAX_TEXTS = 1024  # ranges hardly move beyond some hundred
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a static quantization looks at, and how it turns that into ranges."""

    token_ids: Sequence[Sequence[int]]
    pad_token_id: int
    method: str

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer_file: Path, config: ArtifactConfig, method: str) -> Calibration:
        """The tokens of so many texts as are needed, evenly out of all, each with one of the model's prompts."""
        chosen = texts[:: max(1, -(-len(texts) // MAX_TEXTS))]
        prompts = (config.prompt_passage, config.prompt_query)
        prompted = [prompts[position % 2] + text for position, text in enumerate(chosen)]
        encoded = TextTokenizer(tokenizer_file, config.max_tokens).encode(prompted)
        return cls([tokens.ids for tokens in encoded if tokens.ids], config.pad_token_id, method)


class CalibrationReader(CalibrationDataReader):  # type: ignore[misc]
    """Gives the quantizer one batch at a time; with a stride of 1 it holds the activations of one batch only."""

    def __init__(self, calibration: Calibration) -> None:
        by_length = sorted(calibration.token_ids, key=len)
        self._batches = [by_length[start : start + _BATCH] for start in range(0, len(by_length), _BATCH)]
        self._pad_token_id = calibration.pad_token_id
        self._next: Iterator[Sequence[Sequence[int]]] = iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._next = iter(self._batches[start_index:end_index])

    def get_next(self) -> dict[str, TokenArray] | None:
        batch = next(self._next, None)
        if batch is None:
            return None
        token_ids, mask = pad(batch, self._pad_token_id)
        return {"input_ids": token_ids, "attention_mask": mask}
