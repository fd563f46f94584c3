"""A request on its way through the worker."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import orjson

from pgml_tune.engine.classifier import Classifier
from pgml_tune.engine.contract import VectorArray
from pgml_tune.engine.generator import Generator
from pgml_tune.engine.sketch import sketch
from pgml_tune.engine.tokenizer import Tokens
from pgml_tune.engine.work import Work
from pgml_tune.errors import InvalidArgument, NotSupported, SystemFault
from pgml_tune.ipc import operations
from pgml_tune.ipc.frames import pack
from pgml_tune.records import KINDS, VERBS
from pgml_tune.serving.faults import FAULTS, as_told
from pgml_tune.serving.hosted import Model

_TASKS = {
    operations.CLASSIFY: "classification", operations.GENERATE: "text_to_sql", operations.COUNT_PROMPT: "text_to_sql",
}  # fmt: skip
_MOST_WRITTEN = 100  # texts for one prompt
_COMPUTED = (operations.EMBED, operations.CLASSIFY)  # what runs the network
_MOST_LABELS = 1_000_000


class Peer(Protocol):
    """Who has asked."""

    session: int
    is_gone: bool

    def answer(self, task: Task, payload: bytes) -> None: ...

    def refuse(self, task: Task, error: BaseException) -> None: ...


@dataclass(slots=True, eq=False)
class Task:
    """A request, and what has come of it so far."""

    peer: Peer
    number: int
    digest: str
    values: dict[str, Any]
    pieces: list[bytes]
    arrived: float
    texts: list[str] = field(default_factory=list)
    tokens: list[Tokens] = field(default_factory=list)
    rows: VectorArray | None = None
    left: int = 0  # texts that are not computed yet
    loads: int = 0  # whether it has waited for the model to be loaded
    work: Work = field(default_factory=Work)
    answer: bytes | None = None
    error: BaseException | None = None
    is_begun: bool = False  # the model counts it among its users
    is_over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def operation(self) -> str:
        return str(self.values.get("op"))

    @property
    def is_bulk(self) -> bool:
        return self.values.get("bulk") is True

    @property
    def is_computed(self) -> bool:
        """Whether the network has to run."""
        return self.operation in _COMPUTED

    @property
    def kind(self) -> str:
        kind = self.values.get("kind", KINDS[0])
        if kind not in KINDS:
            raise InvalidArgument("kind is neither passage nor query")
        return str(kind)

    def check(self, model: Model) -> None:
        """Refuse what the model cannot do, and what no client of ours asks."""
        task = _TASKS.get(self.operation, "embedding")
        if self.operation != operations.LOAD and model.config.task != task:
            raise NotSupported(f"the model does not {VERBS[task]}", detail=f"Its task is {model.config.task}.")
        if self.operation == operations.CLASSIFY:
            top_k = self.values.get("top_k")
            if type(top_k) is not int or not 1 <= top_k or len(self.pieces) != 1:
                raise InvalidArgument("top_k is not 1 or more, or there is not one text")
        if self.operation == operations.GENERATE:
            k = self.values.get("k")
            if type(k) is not int or not 1 <= k <= _MOST_WRITTEN:
                raise InvalidArgument(f"k is not 1 to {_MOST_WRITTEN}")
        if self.operation != operations.SKETCH:
            try:
                self.texts = [piece.decode() for piece in self.pieces]
            except UnicodeDecodeError:
                raise InvalidArgument("a text is not valid UTF-8") from None
        self.pieces = self.pieces if self.operation == operations.SKETCH else []

    def read(self, model: Model) -> None:
        """Turn the texts into tokens."""
        self.tokens = model.encoder.read(self.texts, self.kind)
        self.rows = np.empty((len(self.tokens), model.config.dimensions), np.float32)
        self.left = len(self.tokens)

    def put(self, places: Sequence[int], rows: VectorArray, seconds: float) -> bool:
        """Take rows; whether all are there now."""
        assert self.rows is not None
        self.rows[places] = rows
        self.left -= len(places)
        self.work.seconds += seconds
        return not self.left

    def compute_apart(self, model: Model) -> None:
        """Compute all texts as a session would by itself."""
        if self.values.get("alone") or self.operation == operations.CLASSIFY:
            rows = [model.encoder.run([tokens.ids]) for tokens in self.tokens]
            self.rows = np.concatenate(rows) if rows else self.rows
        else:
            self.rows = model.encoder.compute_read([tokens.ids for tokens in self.tokens])
        self.left = 0

    def form(self, model: Model) -> None:
        """Make the answer of what is computed, if nothing went wrong."""
        if self.error is None:
            try:
                self.answer = self._payload(model)
            except FAULTS as error:
                self.error = as_told(error)

    def _payload(self, model: Model) -> bytes:
        for tokens in self.tokens:
            self.work.tokens += len(tokens.ids)
            self.work.unknown += tokens.unknown
            self.work.truncated += tokens.is_truncated
        values: dict[str, Any] = {
            "tokens": self.work.tokens,
            "unknown": self.work.unknown,
            "truncated": self.work.truncated,
            "seconds": self.work.seconds,
            "loads": self.loads,
            "max_tokens": model.config.max_tokens,
        }
        rows = self.rows
        assert rows is not None
        if isinstance(model.encoder, Classifier):
            (best,) = model.encoder.best_of(rows, min(self.values["top_k"], _MOST_LABELS))
            return pack(values | {"labels": best})
        pieces: list[bytes] = []
        for row in rows:
            pieces.append(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY))
            if self.values.get("raw"):
                pieces.append(row.tobytes())
        if self.values.get("total"):
            pieces.append(rows.sum(axis=0).tobytes())
        return pack(values | {"texts": len(rows)}, pieces)

    def write(self, writer: Generator) -> bytes:
        """The answer of a model that writes; given up when nobody waits for it any more."""

        def checkpoint() -> None:
            if self.is_over:
                raise SystemFault("nobody waits for the answer")

        match self.operation, self.texts:
            case operations.COUNT_PROMPT, [prompt]:
                return pack({"tokens": writer.count_tokens(prompt)})
            case operations.GENERATE, [prompt]:
                found = writer.generate(prompt, self.values["k"], self.work, checkpoint)
                return pack(asdict(self.work) | {"texts": [[one.text, one.score] for one in found]})
            case operations.LOAD, _:
                return pack({"loads": self.loads})
        raise InvalidArgument("the worker does not know this request")

    def measure(self, model: Model) -> bytes:
        """The answer to what needs no network."""
        match self.operation, self.texts:
            case operations.LOAD, _:
                return pack({"loads": self.loads})
            case operations.COUNT, [text]:
                return pack({"tokens": model.count_tokens(text)})
            case operations.LONGEST, []:
                return pack({"tokens": model.longest_text(self.kind)})
            case operations.SPANS, [text]:
                spans = model.spans(text)
                return pack({}, [np.array(side, np.int64).tobytes() for side in (spans.starts, spans.ends)])
            case operations.SKETCH, _ if [len(piece) for piece in self.pieces] == [4 * model.config.dimensions]:
                total = np.frombuffer(self.pieces[0], np.float32)
                return pack({"sketch": sketch(total, model.config.space_id)})
        raise InvalidArgument("the worker does not know this request")
