"""How the network of a version is run, which may be another way than the one it was exported for; no library here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
CPU, CUDA, TENSORRT = "cpu", "cuda", "tensorrt"
FP32, BF16 = "fp32", "bf16"
_NAMES = {  # as callers write it, by engine, provider and precision
    "onnxruntime": (ONNXRUNTIME, CPU, FP32),
    "openvino": (OPENVINO, CPU, FP32),
    "openvino_bf16": (OPENVINO, CPU, BF16),
    "cuda": (ONNXRUNTIME, CUDA, FP32),
    "tensorrt": (ONNXRUNTIME, TENSORRT, FP32),
}
ENGINES = tuple(_NAMES)
_MOST = 100_000


@dataclass(frozen=True, slots=True)
class Way:
    """An engine with all that is chosen for it."""

    engine: str  # onnxruntime | openvino
    provider: str  # cpu | cuda | tensorrt
    precision: str  # fp32 | bf16: what is computed in, where the version does not store it in 8 bits
    threads: int  # that compute one batch
    lanes: int  # batches at once
    batch_size: int  # most texts of a batch

    @classmethod
    def of(cls, name: str, threads: int, lanes: int, batch_size: int) -> Way:
        return cls(*_NAMES[name], threads, lanes, batch_size)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Way:
        """The way that was written down; ValueError where it is none."""
        try:
            way = cls(**{name: values[name] for name in cls.__slots__})
        except KeyError as error:
            raise ValueError(f"{error} is missing") from None
        numbers = (way.threads, way.lanes, way.batch_size)
        if (way.engine, way.provider, way.precision) not in _NAMES.values() or not all(
            type(number) is int and 1 <= number <= _MOST for number in numbers
        ):
            raise ValueError("it is not a way of this version")
        return way

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def name(self) -> str:
        """The engine as callers write it."""
        key = (self.engine, self.provider, self.precision)
        return next(name for name, parts in _NAMES.items() if parts == key)

    def within(self, threads: int) -> Way:
        """The same on no more threads than there are."""
        if self.provider != CPU or self.threads * self.lanes <= threads:
            return self
        each = min(self.threads, threads)
        return replace(self, threads=each, lanes=max(1, threads // each))

    def __str__(self) -> str:
        return f"{self.engine} {self.provider} {self.precision}, {self.lanes} x {self.threads} threads"
