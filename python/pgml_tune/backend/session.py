"""The objects that live as long as the connection."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from pgml_tune.backend import database
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.service.counters import Counters
from pgml_tune.service.secret import read_secret
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import read_paths

if TYPE_CHECKING:
    from pgml_tune.ipc.client import Client
    from pgml_tune.service.calls import Calls
    from pgml_tune.service.classification import Classification
    from pgml_tune.service.inference import Inference
    from pgml_tune.service.keys import KeyMaker
    from pgml_tune.service.models import Models
    from pgml_tune.service.routing import Router
    from pgml_tune.service.runtime import Runtime, Runtimes
    from pgml_tune.service.searches import Searches
    from pgml_tune.service.sql_examples import SqlExamples
    from pgml_tune.service.text_to_sql import TextToSql
    from pgml_tune.service.vectors import Vectors

counters = Counters()
vectors = SessionCache()
table_cache = TableCache(counters)
_calls: Calls | None = None


@cache
def inference() -> Inference:
    """Embeds, with the session's models and caches; made by the first call that needs it."""
    with blocked_signals():
        from pgml_tune.service.inference import Inference
    _, calls, router = _shared()
    return Inference(read_paths().model_root, calls, router, _vectors(), _runtimes())


@cache
def searches() -> Searches:
    """Embeds the questions of searches; made by the first search."""
    with blocked_signals():
        from pgml_tune.service.searches import Searches
    _, calls, router = _shared()
    return Searches(_vectors(), calls, router)


@cache
def classification() -> Classification:
    """Classifies, with the session's models; made by the first call that needs it."""
    with blocked_signals():
        from pgml_tune.service.classification import Classification
    _, calls, router = _shared()
    return Classification(_runtimes(), calls, router)


@cache
def text_to_sql() -> TextToSql:
    """Writes SQL, with the session's models and caches; made by the first call that needs it."""
    with blocked_signals():
        from pgml_tune.service.sql_generation import SqlGeneration
        from pgml_tune.service.text_to_sql import TextToSql
    loaded, calls, router = _shared()
    generation = SqlGeneration(loaded, _runtimes(), _vectors(), _keys(), vectors, table_cache)
    return TextToSql(generation, calls, router, sql_examples().find)


@cache
def sql_examples() -> SqlExamples:
    """Keeps and finds verified examples; made by the first call that needs it."""
    with blocked_signals():
        from pgml_tune.service.sql_examples import SqlExamples
    return SqlExamples(_vectors(), _keys())


def last_call_id() -> int | None:
    """The identifier of the last inference call, if there was one."""
    return None if _calls is None else _calls.last_id


@cache
def _vectors() -> Vectors:
    with blocked_signals():
        from pgml_tune.service.vectors import Vectors
    return Vectors(_runtimes(), _keys(), vectors, table_cache)


@cache
def _runtimes() -> Runtimes:
    with blocked_signals():
        from pgml_tune.service.remote_runtime import RemoteRuntime
        from pgml_tune.service.runtime import Runtimes
    return Runtimes(
        _local_runtime,
        RemoteRuntime(client(), database.give_way),
        lambda: database.preference(b"pgml_tune.runtime"),
        models(),
    )


def load_in_worker(digest: str) -> None:
    """Let the worker, if it is there and may be asked, load a model before calls go to it."""
    _runtimes().load(digest)


def _local_runtime() -> Runtime:
    # Loads the libraries that compute, which a session that asks the worker does without.
    with blocked_signals():
        from pgml_tune.service.local_runtime import LocalRuntime
    return LocalRuntime(models())


@cache
def client() -> Client:
    """The session's end of the connection to the worker."""
    with blocked_signals():
        from pgml_tune.ipc.addresses import worker_address
        from pgml_tune.ipc.client import Client
    return Client(worker_address(read_paths()))


@cache
def models() -> Models:
    """The models that the session has loaded."""
    with blocked_signals():
        from pgml_tune.service.models import Models
        from pgml_tune.service.slots import Slots
    paths = read_paths()
    return Models(paths.model_root, Slots(paths.spool_dir))


@cache
def _keys() -> KeyMaker:
    with blocked_signals():
        from pgml_tune.service.keys import KeyMaker
    return KeyMaker(read_secret(read_paths().spool_dir))


@cache
def _shared() -> tuple[Models, Calls, Router]:
    """What all tasks share: a session has so many models loaded, and counts and routes its calls, whatever they do."""
    global _calls
    with blocked_signals():
        from pgml_tune.service.call_log import CallLog
        from pgml_tune.service.calls import Calls
        from pgml_tune.service.routing import Router
    _calls = Calls(_runtimes(), counters, table_cache, CallLog(read_paths().spool_dir))
    return models(), _calls, Router(_calls)
