"""Clients that write to a table and search it while its model changes, and what tells of which version an answer is."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import numpy as np
import psycopg
from conditions import fetch_value, wait_until
from job_workers import Installation

MODEL = "tiny"
COLLECTION = "public.doc.body"
FOUND = 5  # rows of each answer
QUESTIONS = [f"how to return number {number} of a list" for number in range(400)]
TOLERANCE = 1e-5  # of a cosine distance: one of the same version, computed anew

PACE_SECONDS = 0.03  # between two steps of a client: as many as there are, they leave the server room to work

Session = psycopg.Connection[Any]

SEARCHES = {
    "semantic_search": (
        "SELECT document ->> 'body', distance FROM semantic_search('public.doc.body', %(question)s, %(found)s)"
    ),
    "query_function": (
        "SELECT body, embedding <=> doc_body_query(%(question)s) FROM doc_body_embedding"
        " ORDER BY embedding <=> doc_body_query(%(question)s) LIMIT %(found)s"
    ),
    "plain_embed": (
        "SELECT body, embedding <=> embed(%(question)s, 'tiny', 'query') FROM doc_body_embedding"
        " ORDER BY embedding <=> embed(%(question)s, 'tiny', 'query') LIMIT %(found)s"
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a search has found, and when it was asked and answered."""

    kind: str
    question: str
    rows: Sequence[tuple[str, float]]
    began: float
    ended: float

    @property
    def milliseconds(self) -> float:
        return (self.ended - self.began) * 1000


@dataclass
class Client:
    """A session that goes on until it is told to stop, whatever happens to it."""

    session: Session
    name: str  # what it does
    answers: list[Answer] = field(default_factory=list)
    writes: int = 0
    errors: list[str] = field(default_factory=list)
    doing: str = ""  # what it did last


@dataclass
class Clients:
    """All who use the table at the same time."""

    clients: list[Client]

    @property
    def searchers(self) -> list[Client]:
        return [client for client in self.clients if client.name in SEARCHES or client.name == "repeatable_read"]

    @property
    def answers(self) -> list[Answer]:
        return [answer for client in self.searchers for answer in tuple(client.answers)]

    @property
    def writes(self) -> int:
        return sum(client.writes for client in self.clients)

    @property
    def errors(self) -> list[str]:
        return [f"{client.name}: {error}" for client in self.clients for error in client.errors]

    def wait_for(self, count: int, seconds: float = 120.0) -> None:
        """Until each searcher has had so many more answers, and each writer has written as often."""
        before = [len(client.answers) + client.writes for client in self.clients]
        wait_until(
            lambda: all(
                len(client.answers) + client.writes >= start + count
                for client, start in zip(self.clients, before, strict=True)
            ),
            seconds,
        )


Step = Callable[[Client, random.Random], None]
Job = tuple[Client, Step]


@contextmanager
def at_work(jobs: Sequence[Job], pace_seconds: float = PACE_SECONDS) -> Iterator[Clients]:
    """Lets each client do its step over and over, until the context ends."""
    stop = Event()

    def work(client: Client, step: Step, seed: int) -> None:
        chance = random.Random(seed)
        while not stop.wait(pace_seconds):
            try:
                step(client, chance)
            except psycopg.Error as error:
                client.errors.append(f"{client.doing}: {error.sqlstate} {error}")
                client.session.rollback()

    with ThreadPoolExecutor(len(jobs)) as threads:
        running: list[Future[None]] = [threads.submit(work, *job, seed) for seed, job in enumerate(jobs)]
        try:
            yield Clients([client for client, _ in jobs])
        finally:
            stop.set()
    for future in running:
        future.result()


def ask(client: Client, kind: str, question: str, statement: str | None = None, **parameters: Any) -> None:
    """One search, kept with its time."""
    client.doing = kind
    began = time.monotonic()
    rows = client.session.execute(
        statement or SEARCHES[kind], {"question": question, "found": FOUND} | parameters
    ).fetchall()
    client.answers.append(Answer(kind, question, rows, began, time.monotonic()))


def search(client: Client, chance: random.Random) -> None:
    """One search of the kind that the client is named after."""
    ask(client, client.name, chance.choice(QUESTIONS))


def search_under_one_snapshot(client: Client, chance: random.Random) -> None:
    """A transaction whose searches of all kinds look at the table as it was at its start."""
    with client.session.transaction():
        client.session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for kind in chance.sample(sorted(SEARCHES), len(SEARCHES)):
            ask(client, kind, chance.choice(QUESTIONS))


def write(client: Client, chance: random.Random) -> None:
    """One insert, update or delete; as many rows come as go."""
    text = f"value {chance.randrange(1 << 30)} of the object"
    row = chance.randrange(1, 20_001)
    match chance.randrange(4):
        case 0:
            client.session.execute("INSERT INTO doc (body) VALUES (%s), (%s)", (text, f"{text} list"))
        case 1:
            client.session.execute(
                "DELETE FROM doc WHERE id IN (SELECT id FROM doc WHERE id >= %s ORDER BY id LIMIT 2)", (row,)
            )
        case _:
            client.session.execute("UPDATE doc SET body = %s WHERE id = %s", (text, row))
    client.writes += 1


def parsed(vector: str) -> Any:
    """A vector of pgvector's text form."""
    return np.array(json.loads(vector))


def vectors(db: Session, texts: Iterable[str], version: str, kind: str) -> dict[str, Any]:
    """A fresh vector of each text under a version."""
    db.execute("SET pgml_tune.cache = 'off'")
    wanted = sorted(set(texts))
    rows = db.execute(
        "SELECT e::text FROM unnest(embed(%s::text[], %s, %s)) WITH ORDINALITY AS u (e, place) ORDER BY place",
        (wanted, f"{MODEL}@{version}", kind),
    ).fetchall()
    db.execute("RESET pgml_tune.cache")
    found = (parsed(row[0]) for row in rows)
    return {text: vector / np.linalg.norm(vector) for text, vector in zip(wanted, found, strict=True)}


def versions_of(db: Session, answers: Sequence[Answer], versions: Sequence[str], found: int = FOUND) -> list[str]:
    """Which version each answer is of, computed anew from the texts; `mixed` if of none, `either` if alike."""
    questions = {answer.question for answer in answers}
    texts = {body for answer in answers for body, _ in answer.rows}
    spaces = [(vectors(db, questions, v, "query"), vectors(db, texts, v, "passage")) for v in versions]

    def version_of(answer: Answer) -> str:
        if len(answer.rows) != found:
            return "mixed"
        given = np.array([distance for _, distance in answer.rows])
        errors = []
        for asked, stored in spaces:
            expected = [1 - stored[body] @ asked[answer.question] for body, _ in answer.rows]
            errors.append(np.abs(given - expected).max())
        near = [version for version, error in zip(versions, errors, strict=True) if error < TOLERANCE]
        return near[0] if len(near) == 1 else "either" if near else "mixed"

    return [version_of(answer) for answer in answers]


def mixed(answers: Iterable[Answer], versions: Iterable[str]) -> dict[str, int]:
    """How many answers of each kind are not of one version."""
    return Counter(a.kind for a, version in zip(answers, versions, strict=True) if version == "mixed")


def add_versions(db: Session, models: Installation) -> None:
    """Versions of three spaces: v2 has half the dimensions of v1, and v3 as many."""
    for version, digest in (
        ("v1", models.build_tiny()), ("v2", models.build_small()), ("v3", models.build_other())
    ):  # fmt: skip
        db.execute("SELECT register_model(%s, %s, 'embedding', %s)", (MODEL, digest, version))


def longest_ms(answers: Iterable[Answer], began: float = 0.0, ended: float = float("inf")) -> float:
    """The longest time that a search took which was under way in this while."""
    return max((a.milliseconds for a in answers if a.began <= ended and a.ended >= began), default=0.0)


def embed_version(db: Session) -> str:
    """What plain embed(), views and query functions use."""
    return str(fetch_value(db, "SELECT embed_version FROM pgml_tune.traffic WHERE model = %s", (MODEL,)))


def follow(db: Session, version: str) -> None:
    """Ticks until plain embed() has followed."""

    def has_followed() -> bool:
        if embed_version(db) != version:
            db.execute("CALL rollout_tick()")
        return embed_version(db) == version

    wait_until(has_followed, 60)
