"""A model that writes SQL in the worker."""

from __future__ import annotations

from collections.abc import Callable

from pgml_tune.engine.artifact import LEXICON, Artifact
from pgml_tune.engine.generator import Generated, Generator, read_lexicon
from pgml_tune.engine.work import Work
from pgml_tune.ipc import operations
from pgml_tune.ipc.client import Client


class RemoteGenerator(Generator):
    """What an artifact says of itself, and a worker that has loaded it."""

    def __init__(self, artifact: Artifact, client: Client, wait: Callable[[], None]) -> None:
        artifact.verify()
        self.config = artifact.config()
        self.lexicon = read_lexicon(artifact.path(LEXICON))
        self._digest = artifact.digest
        self._client = client
        self._wait = wait

    def count_tokens(self, prompt: str) -> int:
        reply = self._client.ask(self._digest, {"op": operations.COUNT_PROMPT}, [prompt.encode()], self._wait)
        return int(reply.values["tokens"])

    def generate(
        self, prompt: str, k: int, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> list[Generated]:
        asked = {"op": operations.GENERATE, "k": k}
        values = self._client.ask(self._digest, asked, [prompt.encode()], self._wait).values
        work.tokens += values["tokens"]
        work.unknown += values["unknown"]
        work.truncated += values["truncated"]
        work.seconds += values["seconds"]
        return [Generated(text, score) for text, score in values["texts"]]
