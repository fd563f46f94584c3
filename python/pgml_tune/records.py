"""The values that travel between the layers."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from pgml_tune.errors import InvalidArgument

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}\Z")
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
VERBS = {  # what a model of a task does
    "embedding": "embed", "classification": "classify", "text_to_sql": "write SQL",
}  # fmt: skip
TASKS = tuple(VERBS)
KINDS = ("passage", "query")
STORAGE_SUFFIXES = {  # of the name of a version that is stored otherwise than the one it is made from
    "int8_dynamic": "-int8", "int8_static": "-int8-static", "int8_block": "-int8-block", "fp16": "-fp16",
}  # fmt: skip
_INTEGERS = {"dimensions": (1, 16_000), "max_tokens": (2, 1_000_000), "pad_token_id": (0, 2**31 - 1)}
_TEXTS = {  # longest, in characters
    "task": 63, "engine": 63, "pooling": 200, "prompt_query": 10_000, "prompt_passage": 10_000, "storage": 63,
    "space_id": 200,
}  # fmt: skip
_BOOLEANS = ("is_normalized", "is_batch_invariant")
_OBJECTS = ("metrics", "source", "generation")
_LONGEST_LABEL = 1000  # characters
_DEEPEST = 16  # levels of nesting in metrics and source


def is_valid_name(name: str) -> bool:
    """Whether `name` may name a model or a version."""
    return _NAME.match(name) is not None and ".." not in name


def check_name(name: str, what: str) -> str:
    """`name` itself, if it may name a model or a version."""
    if not is_valid_name(name):
        raise InvalidArgument(
            f"{what} name is not valid",
            detail="A name has 1 to 63 characters a-z, 0-9, '_', '.', '-', begins with a letter or digit"
            " and does not contain '..'.",
        )
    return name


def is_digest(text: str) -> bool:
    """Whether `text` is a sha256 in lower-case hexadecimal."""
    return _DIGEST.match(text) is not None


@dataclass(frozen=True, slots=True)
class ModelReference:
    """A model as callers write it: `name` or `name@version`."""

    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        name, at, version = text.partition("@")
        check_name(name, "model")
        return cls(name, check_name(version, "version") if at else None)

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class ArtifactConfig:
    """What `config.json` of an artifact says: all that inference needs to know."""

    task: str
    engine: str  # onnxruntime | tensorrt | ctranslate2 | ctranslate2_causal | endpoint
    dimensions: int  # of a classifier: how many labels it has; of a generator: of its hidden states
    max_tokens: int  # special tokens included
    pooling: str  # mean | cls | max | lasttoken ...: informative, it is inside the graph
    is_normalized: bool
    prompt_query: str
    prompt_passage: str
    pad_token_id: int
    storage: str  # fp32 | int8_dynamic | int8_block
    space_id: str
    is_batch_invariant: bool
    metrics: dict[str, Any] = field(default_factory=dict)  # parity and invariance, as measured
    source: dict[str, Any] = field(default_factory=dict)  # where the weights came from
    labels: list[str] = field(default_factory=list)  # of a classifier, in the order of its output
    generation: dict[str, Any] = field(default_factory=dict)  # of a generator: see engine/generator.py

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ArtifactConfig:
        try:
            config = cls(**values)
        except TypeError:
            raise InvalidArgument("config.json of the artifact has other fields than this version reads") from None
        wrong = next((name for name in cls.__slots__ if not _is_valid(name, getattr(config, name))), None)
        if wrong is not None:
            raise InvalidArgument(f'"{wrong}" in config.json of the artifact has a value that is not valid')
        if len(config.labels) != (config.dimensions if config.task == "classification" else 0):
            raise InvalidArgument("config.json of the artifact has another number of labels than its output")
        return config

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def prompt(self, kind: str) -> str:
        """The text to put before an input of this kind."""
        return self.prompt_query if kind == "query" else self.prompt_passage


def _is_valid(name: str, value: object) -> bool:
    if name in _INTEGERS:
        lowest, highest = _INTEGERS[name]
        return type(value) is int and lowest <= value <= highest
    if name in _TEXTS:
        fits = type(value) is str and len(value) <= _TEXTS[name] and _is_plain(value)
        return fits and (name != "task" or value in TASKS)
    if name in _BOOLEANS:
        return type(value) is bool
    if name == "labels":
        return type(value) is list and are_labels(value)
    return name in _OBJECTS and type(value) is dict and _is_plain(value)


def are_labels(values: list[Any]) -> bool:
    """Whether a classifier may have these labels: different texts, none of them empty."""
    fit = all(type(value) is str and 0 < len(value) <= _LONGEST_LABEL and _is_plain(value) for value in values)
    return fit and len(set(values)) == len(values)


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether PostgreSQL can keep a JSON value: finite numbers, texts of Unicode without NUL, nested moderately."""
    if depth > _DEEPEST:
        return False
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(entry, depth + 1) for key, entry in value.items())
    if isinstance(value, list):
        return all(_is_plain(entry, depth + 1) for entry in value)
    if isinstance(value, str):
        return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)
    return math.isfinite(value) if isinstance(value, float) else value is None or isinstance(value, int)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `doctor()`: status is ok, warn or fail."""

    check_name: str
    status: str
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """That a call took part in a rollout: by its unit it was a call of one variant, whichever version then answered."""

    rollout_id: int
    phase: int
    share: int  # units of 10,000 that were to go to the candidate
    unit: int  # first 60 bits of sha256(salt:unit)
    variant: str  # serving | candidate
