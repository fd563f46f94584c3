"""A model that a server of this machine runs, such as vLLM or llama.cpp: asked by the protocol of OpenAI.

The artifact holds no weights but the name that the server knows the model by. Which server that is, the settings say.
"""

from __future__ import annotations

import copy
import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from pgml_tune.engine.answers import INSTRUCTION, statement_in
from pgml_tune.engine.generator import Generated, Generator, different, positive
from pgml_tune.engine.patience import PatientConnection
from pgml_tune.engine.work import Work
from pgml_tune.errors import ArtifactDamaged, NotReady, SystemFault
from pgml_tune.records import ArtifactConfig

_BYTES_PER_TOKEN = 3  # fewer than most tokenizers need: what is reckoned to fit does
_LONGEST_WAIT = 60.0  # seconds
_MOST_BYTES = 4 << 20
_LONGEST_REASON = 200
_TEMPERATURE, _SEED = 0.7, 42  # of the candidates behind the first
_REFUSED = (400, 404, 405, 422, 501)  # what servers answer that write one text at a time
_FARTHEST = 1e6  # from 0, of a log probability
_SHOW = "SELECT configure('sql_endpoint', 'http://127.0.0.1:8000/v1/chat/completions')"


class Endpoint(Generator):
    """A model by the name that a server has for it."""

    def __init__(self, config: ArtifactConfig, address: str = "") -> None:
        self.config = config
        self._address = address
        self._longest = positive(config, "max_output_tokens")
        name = config.generation.get("model")
        if type(name) is not str or not name:
            raise ArtifactDamaged('the configuration of the model has no usable "model"')
        self._name = name

    def count_tokens(self, prompt: str) -> int:
        """An estimate: the tokenizer is the server's."""
        return len(f"{INSTRUCTION}{prompt}".encode()) // _BYTES_PER_TOKEN + 1

    def using(self, endpoint: str) -> Endpoint:
        if endpoint == self._address:
            return self
        found = copy.copy(self)
        found._address = endpoint
        return found

    def try_out(self) -> None:
        """Nothing: whether the server runs says nothing of whether it will."""

    def generate(
        self, prompt: str, k: int, work: Work, checkpoint: Callable[[], None] = lambda: None
    ) -> list[Generated]:
        """The most probable text first; the others are drawn by chance, since servers look for no second best one."""
        started = time.perf_counter()
        until = time.monotonic() + _LONGEST_WAIT
        _, first = self._ask(prompt, {"n": 1, "temperature": 0}, until, checkpoint)
        found = list(_texts(first))
        work.tokens += _tokens_read(first) or self.count_tokens(prompt)
        if k > 1:
            status, more = self._ask(
                prompt, {"n": k - 1, "temperature": _TEMPERATURE, "seed": _SEED}, until, checkpoint, _REFUSED
            )
            if status == http.client.OK:
                found += sorted(_texts(more), key=lambda candidate: candidate[1], reverse=True)
        work.seconds += time.perf_counter() - started
        return different(found)[:k]

    def _ask(
        self,
        prompt: str,
        options: dict[str, Any],
        until: float,
        checkpoint: Callable[[], None],
        accepted: tuple[int, ...] = (),
    ) -> tuple[int, dict[str, Any]]:
        """The status and the object that the server answers; a status other than 200 must be accepted."""
        if not self._address:
            raise NotReady(
                "no server is set that runs the model",
                detail=f'It is model "{self._name}" of a server, and the setting sql_endpoint is empty.',
                hint=_SHOW,
            )
        address = urlsplit(self._address)
        is_secure = address.scheme == "https"
        body = {"model": self._name, "max_tokens": self._longest, "stream": False, **options}
        text = f"{INSTRUCTION}\n\n{prompt}"
        if address.path.endswith("/chat/completions"):
            body |= {"messages": [{"role": "user", "content": text}], "logprobs": True}
        else:
            body |= {"prompt": f"{text}\n", "logprobs": 1}
        connection = PatientConnection(
            address.hostname or "", address.port or (443 if is_secure else 80), is_secure, until, checkpoint
        )
        try:
            headers = {"Content-Type": "application/json", "Accept": "application/json", "Connection": "close"}
            with connection:
                connection.request("POST", address.path, json.dumps(body).encode(), headers)
                response = connection.getresponse()
                content = response.read(_MOST_BYTES + 1)
        except (OSError, http.client.HTTPException) as error:
            reason = f"{error.strerror or error}" if isinstance(error, OSError) else type(error).__name__
            raise self._silent(f"{reason}.") from None
        if response.status in accepted:
            return response.status, {}
        if response.status != http.client.OK:
            said = "".join(filter(str.isprintable, content[:_LONGEST_REASON].decode("utf-8", "replace")))
            raise self._silent(f"Its status is {response.status}: {said}")
        try:
            answer = json.loads(content) if len(content) <= _MOST_BYTES else None
        except (ValueError, RecursionError):
            answer = None
        if type(answer) is not dict or type(answer.get("choices")) is not list:
            raise self._silent("What it says is not an answer of this protocol.")
        return response.status, answer

    def _silent(self, reason: str) -> SystemFault:
        return SystemFault(
            f'the server that runs model "{self._name}" does not answer',
            detail=reason,
            hint="SELECT value FROM pgml_tune.settings WHERE name = 'sql_endpoint'",
        )


def _texts(answer: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The texts of an answer; a server that does not tell how probable they are has them score by their places."""
    for place, choice in enumerate(answer["choices"]):
        if type(choice) is dict:
            message = choice.get("message")
            text = message.get("content") if type(message) is dict else choice.get("text")
            if type(text) is str:
                score = _score(choice.get("logprobs"))
                yield statement_in(text), -float(place) if score is None else score


def _score(told: Any) -> float | None:
    if type(told) is not dict:
        return None
    values = told.get("token_logprobs")
    if type(told.get("content")) is list:
        values = [token.get("logprob") for token in told["content"] if type(token) is dict]
    known = [value for value in values or () if type(value) in (int, float)] if type(values) is list else []
    numbers = [float(max(-_FARTHEST, min(0, value))) for value in known]
    return sum(numbers) / len(numbers) if numbers else None


def _tokens_read(answer: dict[str, Any]) -> int:
    usage = answer.get("usage")
    count = usage.get("prompt_tokens") if type(usage) is dict else None
    return count if type(count) is int and 0 < count < 1 << 31 else 0
