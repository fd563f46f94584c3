"""What a model that writes SQL has to offer, whichever engine runs it: all that a further one must know.

A generator turns a finished prompt into texts. Which schema and values stand in the prompt, and whether a text is SQL
that the server takes, is not its business.

`ArtifactConfig.generation` of such a model: max_output_tokens; prompt, the format its prompts were trained in; of an
encoder and a decoder perhaps first_token, which all answers begin with; of a decoder alone prefix and suffix, which its
chat template puts round a prompt, and end_tokens; of a server's model `model`, the name it has there.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.files import read_plain
from pgml_tune.engine.work import Work
from pgml_tune.errors import ArtifactDamaged, NotSupported
from pgml_tune.records import VERBS, ArtifactConfig

_MOST_TOKENS = 100_000
_UNFIT = re.compile("[\0\ud800-\udfff]")
CT2, CT2_CAUSAL, ENDPOINT = "ctranslate2", "ctranslate2_causal", "endpoint"  # engines


@dataclass(frozen=True, slots=True)
class Generated:
    """One of the texts that a model finds, and its log probability per token: 0 is certain."""

    text: str
    score: float


class Generator(ABC):
    """A loaded model that writes SQL."""

    task: ClassVar[str] = "text_to_sql"
    config: ArtifactConfig
    lexicon: Mapping[str, str] = MappingProxyType({})  # what questions call values of the database

    @abstractmethod
    def count_tokens(self, prompt: str) -> int:
        """Tokens of a prompt with all that the model needs round it, nothing cut."""

    def fits(self, prompt: str) -> bool:
        """Whether the model reads a prompt to its end."""
        return self.count_tokens(prompt) <= self.config.max_tokens

    @abstractmethod
    def generate(
        self, prompt: str, k: int, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> list[Generated]:
        """At most `k` different texts, the most probable first; `checkpoint` runs meanwhile and may raise."""

    def using(self, endpoint: str) -> Generator:
        """The generator with the server that the settings name; only a model that a server runs has use for it."""
        return self

    def try_out(self) -> None:
        """Write something; what fails now would fail in every call."""
        self.generate("a", 2, Work())


def open_generator(artifact: Artifact, threads: int) -> Generator:
    """The generator in an artifact, by the engine that it is made for."""
    artifact.verify()
    config = artifact.config()
    if config.task != Generator.task:
        raise NotSupported(f"the model does not {VERBS[Generator.task]}", detail=f"Its task is {config.task}.")
    return open_folder(artifact.folder, config, threads)


def open_folder(folder: Path, config: ArtifactConfig, threads: int) -> Generator:
    """The generator in a folder that is not an artifact yet, or one that was checked."""
    if config.engine == CT2:
        from pgml_tune.engine.translator import Translator

        return Translator(folder, config, threads)
    if config.engine == CT2_CAUSAL:
        from pgml_tune.engine.causal import CausalGenerator

        return CausalGenerator(folder, config, threads)
    if config.engine == ENDPOINT:
        from pgml_tune.engine.endpoint import Endpoint

        return Endpoint(config)
    raise NotSupported(f'engine "{config.engine}" of the model is not one of this version')


def different(found: Iterable[tuple[str, float]]) -> list[Generated]:
    """Texts with their scores, those left out that are empty, were there before or that PostgreSQL cannot keep."""
    first: dict[str, float] = {}
    for text, score in found:
        if text and not _UNFIT.search(text):
            first.setdefault(text, float(score))
    return [Generated(text, score) for text, score in first.items()]


def positive(config: ArtifactConfig, name: str) -> int:
    """A number of `config.generation` that such a model cannot do without."""
    value = config.generation.get(name)
    if type(value) is not int or not 0 < value <= _MOST_TOKENS:
        raise ArtifactDamaged(f'the configuration of the model has no usable "{name}"')
    return value


def read_lexicon(file: Path) -> dict[str, str]:
    """What questions call values of the database, by the file that tells it; nothing where there is none."""
    if not file.exists():
        return {}
    try:
        found = json.loads(read_plain(file))
    except (ValueError, RecursionError):
        found = None
    if type(found) is not dict or not all(type(value) is str for value in found.values()):
        raise ArtifactDamaged(f'file "{file.name}" of the artifact does not map phrases to values')
    return found
