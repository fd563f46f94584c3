"""CTranslate2: the library, and a model loaded from an artifact's folder."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pgml_tune.engine.artifact import CT2_CONFIG, CT2_MODEL, VOCABULARIES
from pgml_tune.engine.files import open_plain, read_plain
from pgml_tune.engine.leaving import leave_at_once
from pgml_tune.engine.signals import blocked_signals
from pgml_tune.errors import ArtifactDamaged, InvalidArgument, OutOfMemory

_OWN_CONFIG = "config.json"  # as the library calls it
_SHARE_WAITED = 16  # of the time gone by: what polling adds to an answer
_LONGEST_WAIT = 0.02  # seconds
_CHECK_EVERY = 0.05  # seconds


def library() -> Any:
    """The library; from 4.8 on it imports torch only where a model is converted."""
    with blocked_signals():
        import ctranslate2
    leave_at_once()
    ctranslate2.set_log_level(logging.ERROR)
    return ctranslate2


def open_model(kind: str, folder: Path, threads: int) -> Any:
    """The Translator or the Generator in a folder, on so many threads, with the weights as they are stored."""
    loaded = library()
    names = next((names for names in VOCABULARIES if all((folder / name).exists() for name in names)), set[str]())
    files: dict[str, Any] = {name: read_plain(folder / name) for name in sorted(names)}
    files[_OWN_CONFIG] = read_plain(folder / CT2_CONFIG)
    with blocked_signals(), os.fdopen(open_plain(folder / CT2_MODEL), "rb") as weights:
        try:
            return getattr(loaded, kind)(
                str(folder),
                device="cpu",
                compute_type="default",
                inter_threads=1,
                intra_threads=threads,
                files={**files, CT2_MODEL: weights},
            )
        except (RuntimeError, ValueError) as error:
            raise ArtifactDamaged("CTranslate2 cannot load the model", detail=f"{error}.") from None


def wait(results: Sequence[Any], checkpoint: Callable[[], None]) -> list[Any]:
    """What asynchronous calls of the library return; `checkpoint` runs meanwhile and may raise.

    Who has raised leaves the library to finish on its own: the next call waits for that.
    """
    started = checked = time.perf_counter()
    while not all(result.done() for result in results):
        now = time.perf_counter()
        if now - checked > _CHECK_EVERY:
            checkpoint()
            checked = now
        time.sleep(min((now - started) / _SHARE_WAITED, _LONGEST_WAIT))
    with running():
        return [result.result() for result in results]


@contextlib.contextmanager
def running() -> Iterator[None]:
    """Turn what the library raises of a model or an input into errors of ours."""
    try:
        yield
    except ValueError as error:  # of the input: it has no token, or more than the network has places
        raise InvalidArgument("the model cannot read the input", detail=f"{error}.") from None
    except RuntimeError as error:
        if "alloc" in f"{error}":  # mkl_malloc: failed to allocate memory
            raise OutOfMemory("there is too little memory for the model to write", detail=f"{error}.") from None
        raise ArtifactDamaged("CTranslate2 cannot run the model", detail=f"{error}.") from None
