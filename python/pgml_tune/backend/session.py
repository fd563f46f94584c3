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
    from pgml_tune.service.calls import Calls
    from pgml_tune.service.classification import Classification
    from pgml_tune.service.inference import Inference
    from pgml_tune.service.models import Models

counters = Counters()
vectors = SessionCache()
table_cache = TableCache(counters)
_models: Models | None = None
_calls: Calls | None = None
_inference: Inference | None = None
_classification: Classification | None = None


def inference() -> Inference:
    """Embeds, with the session's models and caches; made by the first call that needs it."""
    global _inference
    if _inference is None:
        with blocked_signals():
            from pgml_tune.service.inference import Inference
            from pgml_tune.service.keys import KeyMaker
        paths = read_paths()
        keys = KeyMaker(read_secret(paths.spool_dir))
        _inference = Inference(paths.model_root, *_shared(), keys, vectors, table_cache)
    return _inference


def classification() -> Classification:
    """Classifies, with the session's models; made by the first call that needs it."""
    global _classification
    if _classification is None:
        with blocked_signals():
            from pgml_tune.service.classification import Classification
        _classification = Classification(*_shared())
    return _classification


def last_call_id() -> int | None:
    """The identifier of the last inference call, if there was one."""
    return None if _calls is None else _calls.last_id


def _shared() -> tuple[Models, Calls]:
    """What all tasks share: a session has so many models loaded, and counts its calls, whatever they do."""
    global _models, _calls
    if _models is None or _calls is None:
        with blocked_signals():
            from pgml_tune.service.calls import Calls
            from pgml_tune.service.models import Models
        _models, _calls = Models(read_paths().model_root), Calls(counters, table_cache)
    return _models, _calls
