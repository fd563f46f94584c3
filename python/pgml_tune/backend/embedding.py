"""Entry points of sql/functions/embedding.sql."""

from __future__ import annotations

from typing import Any

from pgml_tune.backend import entrypoint, session
from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument


@entrypoint
def embed(db: Session, text: str | None, model: str | None, kind: str | None) -> str | None:
    return None if text is None else session.inference().embed(db, text, model, kind)


@entrypoint
def embed_many(db: Session, texts: list[Any] | None, model: str | None, kind: str | None) -> list[str | None] | None:
    if texts is None:
        return None
    given = _given(texts)
    vectors, truncated = session.inference().embed_many(db, given, model, kind)
    _tell_truncated(db, truncated, len(given))
    remaining = iter(vectors)
    return [None if text is None else next(remaining) for text in texts]


@entrypoint
def embed_passages(
    db: Session, texts: list[Any] | None, model: str | None, chunk_tokens: int | None, chunk_overlap: int | None
) -> list[dict[str, int | str]]:
    given = _given(texts or [])
    places = [place for place, text in enumerate(texts or [], 1) if text is not None]
    passages, truncated = session.inference().embed_passages(db, given, model, chunk_tokens, chunk_overlap or 0)
    _tell_truncated(db, truncated, len(passages))
    return [
        {"text_no": places[text_no - 1], "chunk_no": chunk_no, "embedding": vector}
        for text_no, chunk_no, vector in passages
    ]


@entrypoint
def embed_pinned(db: Session, text: str, model: str, version: str, kind: str) -> str:
    return session.inference().embed_pinned(text, model, version, kind, db.role())


@entrypoint
def embed_question(
    db: Session, query: str | None, model: str | None, version: str | None, route: str | None
) -> str | None:
    if query is None:
        return None
    if model is None or version is None or route is None:
        raise InvalidArgument("a search needs a model, a version and a route")
    return session.searches().begin(db, query, f"{model}@{version}", route)


@entrypoint
def end_search(db: Session, result_count: int | None) -> None:
    session.searches().end(db, max(result_count or 0, 0))


@entrypoint
def semantic_similarity(db: Session, a: str | None, b: str | None, model: str | None) -> float | None:
    if a is None or b is None:
        return None
    return session.inference().similarity(db, a, b, model)


@entrypoint
def token_count(db: Session, text: str | None, model: str | None) -> int | None:
    return None if text is None else session.inference().count_tokens(db, text, model)


@entrypoint
def last_call_id(db: Session) -> int | None:
    return session.last_call_id()


def _given(texts: list[Any]) -> list[str]:
    """The texts without the NULLs."""
    if any(type(text) is list for text in texts):
        raise InvalidArgument("inputs is not a one-dimensional array", hint="SELECT embed(ARRAY['a', 'b'])")
    return [text for text in texts if text is not None]


def _tell_truncated(db: Session, truncated: int, total: int) -> None:
    if truncated:
        db.notice(f"{truncated} of {total} texts were longer than the model reads and were cut")
