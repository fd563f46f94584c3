"""The objects that live as long as the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgml_tune.engine.signals import blocked_signals
from pgml_tune.service.counters import Counters
from pgml_tune.service.secret import read_secret
from pgml_tune.service.session_cache import SessionCache
from pgml_tune.service.table_cache import TableCache
from pgml_tune.settings import read_paths

if TYPE_CHECKING:
    from pgml_tune.service.inference import Inference

counters = Counters()
vectors = SessionCache()
table_cache = TableCache(counters)
_inference: Inference | None = None


def inference() -> Inference:
    """The session's models and caches, made by the first call that needs them."""
    global _inference
    if _inference is None:
        with blocked_signals():
            from pgml_tune.service.inference import Inference
            from pgml_tune.service.keys import KeyMaker
        paths = read_paths()
        keys = KeyMaker(read_secret(paths.spool_dir))
        _inference = Inference(paths.model_root, keys, vectors, table_cache, counters)
    return _inference


def last_call_id() -> int | None:
    """The identifier of the last inference call, if there was one."""
    return None if _inference is None else _inference.last_call_id
