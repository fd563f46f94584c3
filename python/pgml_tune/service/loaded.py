"""Which models are in memory, here and in the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pgml_tune.ipc.client import Client, WorkerLost
from pgml_tune.ipc.frames import NO_DIGEST
from pgml_tune.ipc.operations import STATUS
from pgml_tune.service.models import Models

WORKER, SESSION = "worker", "session"


def list_models(client: Client, models: Models, wait: Callable[[], None]) -> list[dict[str, Any]]:
    """The models of the worker, if it is there, and those of this session."""
    return [*_of_worker(status(client, wait)), *_of_session(models)]


def status(client: Client, wait: Callable[[], None] = lambda: None) -> dict[str, Any] | None:
    """What the worker says of itself; None: there is none, or it does not answer."""
    try:
        return client.ask(NO_DIGEST, {"op": STATUS}, checkpoint=wait).values
    except WorkerLost:
        return None


def why_silent(client: Client) -> str:
    """Why a worker that has told nothing of itself cannot be asked."""
    try:
        client.reach()
    except WorkerLost as lost:
        return str(lost)
    finally:
        client.close()
    return "it has accepted the connection and does not answer"


def _of_worker(told: dict[str, Any] | None) -> list[dict[str, Any]]:
    if told is None:
        return []
    loaded = [
        {
            "place": WORKER,
            "artifact_sha256": model["digest"],
            "bytes": model["bytes"],
            "is_pinned": model["is_pinned"],
            "is_quarantined": False,
            "calls": model["calls"],
            "last_used_at": datetime.fromtimestamp(model["last_used_at"], UTC).isoformat(),
            **_engine(model["engine"], model["way"]),
        }
        for model in told["models"]
    ]
    stopped = [_row(WORKER, digest, is_quarantined=True) for digest in told["quarantined"]]
    return loaded + stopped


def _of_session(models: Models) -> list[dict[str, Any]]:
    return [_row(SESSION, digest) | _engine(engine, None) for digest, engine in models.engines.items()]


def _row(place: str, digest: str, *, is_quarantined: bool = False) -> dict[str, Any]:
    return {
        "place": place,
        "artifact_sha256": digest,
        "bytes": None,
        "is_pinned": False,
        "is_quarantined": is_quarantined,
        "calls": None,
        "last_used_at": None,
        **_engine(None, None),
    }


def _engine(engine: str | None, way: Mapping[str, Any] | None) -> dict[str, str | None]:
    """What runs a model, and how, where tune_engine() has chosen that."""
    if way is None:
        return {"engine": engine, "provider": None, "inference_precision": None}
    return {"engine": engine, "provider": way["provider"], "inference_precision": way["precision"]}
