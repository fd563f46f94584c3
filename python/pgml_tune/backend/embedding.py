"""Entry points of sql/functions/embedding.sql."""

from __future__ import annotations

from pgml_tune.backend import entrypoint, session
from pgml_tune.db.spi import SpiDatabase
from pgml_tune.errors import InvalidArgument


@entrypoint
def embed(db: SpiDatabase, text: str | None, model: str | None, kind: str | None) -> str | None:
    if text is None:
        return None
    return session.inference().embed(db, [text], model, kind)[0][0]


@entrypoint
def embed_many(
    db: SpiDatabase, texts: list[str | None] | None, model: str | None, kind: str | None
) -> list[str | None] | None:
    if texts is None:
        return None
    if any(type(text) is list for text in texts):
        raise InvalidArgument("inputs is not a one-dimensional array", hint="SELECT embed(ARRAY['a', 'b'])")
    given = [text for text in texts if text is not None]
    vectors, truncated = session.inference().embed(db, given, model, kind)
    if truncated:
        db.notice(f"{truncated} of {len(given)} texts were longer than the model reads and were cut")
    remaining = iter(vectors)
    return [None if text is None else next(remaining) for text in texts]


@entrypoint
def embed_pinned(db: SpiDatabase, text: str, model: str, version: str, kind: str) -> str:
    return session.inference().embed_pinned(text, model, version, kind)


@entrypoint
def semantic_similarity(db: SpiDatabase, a: str | None, b: str | None, model: str | None) -> float | None:
    if a is None or b is None:
        return None
    return session.inference().similarity(db, a, b, model)


@entrypoint
def token_count(db: SpiDatabase, text: str | None, model: str | None) -> int | None:
    return None if text is None else session.inference().count_tokens(db, text, model)


@entrypoint
def last_call_id(db: SpiDatabase) -> int | None:
    return session.last_call_id()
