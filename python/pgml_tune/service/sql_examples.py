"""Questions whose SQL somebody has verified: keeping them, and finding the one that is asked again."""

from __future__ import annotations

import hmac
import json

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, LimitExceeded, NotSupported, ObjectNotFound, PermissionDenied
from pgml_tune.records import VERBS
from pgml_tune.service.inference import TASK as EMBEDDING
from pgml_tune.service.inputs import encoded
from pgml_tune.service.keys import KeyMaker
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.questions import ask_the_same, normal_form
from pgml_tune.service.readable import Place
from pgml_tune.service.resolution import Rules
from pgml_tune.service.sql_check import check
from pgml_tune.service.vectors import Vectors
from pgml_tune.settings import Limits
from pgml_tune.store import registry
from pgml_tune.store import sql_example as store
from pgml_tune.store.schema import read_path
from pgml_tune.store.setting import read_settings
from pgml_tune.store.sql_example import QuestionVector, SqlExample

TASK = "text_to_sql"
LONGEST_QUESTION = 10_000  # characters
_LONGEST_NORMAL = 40_000  # one character may stand for many
_MOST_RELATIONS = 100
_MOST_FOUND = 4
_MOST_NEAR = 8  # looked at, to find those that ask the same
_MOST_EMBEDDED = 256  # of one transaction of maintain()
_ADD = "SELECT add_sql_example('how many customers are there', 'SELECT count(*) FROM customer')"


class SqlExamples:
    """What the functions of sql/functions/sql_examples.sql do, for one session, and what text_to_sql() asks of them."""

    def __init__(self, vectors: Vectors, keys: KeyMaker) -> None:
        self._vectors = vectors
        self._keys = keys
        self._rules = Rules()

    def add(self, db: Session, question: str | None, sql: str | None, model: str | None) -> int:
        """Keep SQL as the right answer to a question, if text_to_sql() might give it; its number."""
        path = read_path(db)
        with own_settings(db):
            limits = Limits.from_rows(read_settings(db)[1])
            asked, normal = _check_question(question, limits)
            name = None if model is None else _check_model(db, model)
        if sql is None or not sql.strip():
            raise InvalidArgument("sql is empty", hint=_ADD)
        verdict = check(db, sql, limits)
        if verdict.error is not None:
            raise InvalidArgument("this SQL is not accepted", detail=f"Why: {verdict.error}.")
        if len(verdict.relations) > _MOST_RELATIONS:
            raise LimitExceeded(f"this SQL reads more than {_MOST_RELATIONS} tables")
        with own_settings(db):
            target = self._embedding_model(db)
            vector = None if target is None else self._vector(db, normal, *target)
            example = json.dumps({
                "question": asked,
                "normal_question": normal,
                "sql": verdict.sql,
                "path": path,
                "relations": [read.to_json() for read in verdict.relations],
                "model": name,
                "vector": None if vector is None else vector.vector,
                "model_version_id": None if vector is None else vector.model_version_id,
                "role_id": db.role(),
            })  # fmt: skip
            return store.keep_example(db, example, self._seal(example))

    def keep(self, db: Session, example: str, seal: bytes) -> int:
        """Add what add() has checked, as the owner of the table; its number."""
        if not hmac.compare_digest(self._seal(example), seal):
            raise PermissionDenied("only add_sql_example() adds verified examples", hint=_ADD)
        return store.add_example(db, example)

    def find(self, db: Session, question: str, model: str, place: Place, limits: Limits) -> list[SqlExample]:
        """The examples that answer a question of the caller, the newest of the same question first.

        Their SQL may no longer be valid, or not for him: it has to be checked like any other.
        """
        if len(question) > LONGEST_QUESTION:
            return []
        normal, path, tables = normal_form(question), place.path, place.tables
        found = store.same_questions(db, normal, model, path, tables, _MOST_FOUND)
        if found or limits.sql_example_similarity >= 1:
            return found
        target = self._embedding_model(db)
        if target is None or not store.has_vectors(db, path, target[0]):
            return []
        vector = self._vector(db, normal, *target)
        if vector is None:
            return []
        near = store.near_questions(db, vector, limits.sql_example_similarity, model, path, tables, _MOST_NEAR)
        return [example for example in near if ask_the_same(question, example.question)][:_MOST_FOUND]

    def embed_stale(self, db: Session) -> int:
        """Embed examples that the default embedding model has not seen; how many."""
        target = self._embedding_model(db)
        if target is None:
            return 0
        version_id, digest = target
        vectors: dict[int, str] = {}
        for example_id, normal in store.stale_questions(db, version_id, _MOST_EMBEDDED):
            found = self._vector(db, normal, version_id, digest)
            if found is not None:
                vectors[example_id] = found.vector
            db.checkpoint()
        return store.write_vectors(db, vectors, version_id)

    def _vector(self, db: Session, normal_question: str, version_id: int, digest: str) -> QuestionVector | None:
        """Where a question lies; None where the model has no place for it."""
        try:
            return QuestionVector(self._vectors.alone(digest, normal_question, "query", db.role()), version_id)
        except InvalidArgument:
            return None

    def _seal(self, example: str) -> bytes:
        """The proof that an example was checked; nobody knows the secret who has not its file."""
        return self._keys.key("sql_example", example.encode())

    def _embedding_model(self, db: Session) -> tuple[int, str] | None:
        """The default embedding model: number and digest of the version that serves; None: there is no such model."""
        try:
            target, _ = self._rules.read(db, None, EMBEDDING)
        except ObjectNotFound:
            return None
        return target.model_version_id, target.digest


def _check_question(question: str | None, limits: Limits) -> tuple[str, str]:
    """A question as it was put, and in its normal form."""
    if question is not None and len(question) > LONGEST_QUESTION:
        raise LimitExceeded(f"question is longer than {LONGEST_QUESTION} characters")
    normal = normal_form(question or "")
    if question is None or not normal:
        raise InvalidArgument("question is empty", hint=_ADD)
    if len(normal) > _LONGEST_NORMAL:
        raise LimitExceeded(f"question is longer than {_LONGEST_NORMAL} characters in plain letters")
    encoded(question, limits)
    return question, normal


def _check_model(db: Session, model: str) -> str:
    """The name of a model that writes SQL."""
    versions = registry.versions_of(db, model)
    if not versions:
        raise ObjectNotFound(f'model "{model}" does not exist', hint="SELECT model, task FROM pgml_tune.models")
    if versions[0].task != TASK:
        raise NotSupported(f'model "{model}" does not {VERBS[TASK]}', detail=f"Its task is {versions[0].task}.")
    return model
