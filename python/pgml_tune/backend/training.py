"""Entry points of sql/functions/training.sql."""

from __future__ import annotations

from collections.abc import Callable

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.engine import checkpoint
from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument
from pgml_tune.service import training
from pgml_tune.service.job import Request, read_limits, run
from pgml_tune.service.own_settings import own_settings
from pgml_tune.service.worker_start import start_worker
from pgml_tune.settings import read_paths
from pgml_tune.store.job import server_address


@entrypoint
def import_model(
    db: Session,
    name: str | None,
    source: str | None,
    task: str | None,
    version: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(db, wait, lambda: training.import_model(db, name, source, task, version, options))


@entrypoint
def finetune_sbert(
    db: Session,
    model: str | None,
    train_query: str | None,
    new_version: str | None,
    eval_query: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(
        db,
        wait,
        lambda: training.finetune_sbert(db, _check_checkpoint, model, train_query, new_version, eval_query, options),
    )


@entrypoint
def finetune_classifier(
    db: Session,
    model: str | None,
    train_query: str | None,
    new_model: str | None,
    eval_query: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(
        db,
        wait,
        lambda: training.finetune_classifier(db, _check_checkpoint, model, train_query, new_model, eval_query, options),
    )


@entrypoint
def finetune_text_to_sql(
    db: Session,
    model: str | None,
    train_query: str | None,
    new_version: str | None,
    eval_query: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(
        db,
        wait,
        lambda: training.finetune_text_to_sql(
            db, _check_checkpoint, model, train_query, new_version, eval_query, options
        ),
    )


@entrypoint
def distill_model(
    db: Session,
    teacher: str | None,
    student: str | None,
    train_query: str | None,
    eval_query: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(
        db,
        wait,
        lambda: training.distill_model(db, _check_checkpoint, teacher, student, train_query, eval_query, options),
    )


@entrypoint
def quantize_model(
    db: Session,
    model: str | None,
    method: str | None,
    calibration_query: str | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(db, wait, lambda: training.quantize_model(db, model, method, calibration_query, options))


@entrypoint
def export_onnx(db: Session, model: str | None, options: str | None, wait: bool | None) -> list[int]:
    return _run(db, wait, lambda: training.export_onnx(db, _check_checkpoint, model, options))


@entrypoint
def export_tensorrt(
    db: Session, model: str | None, dtype: str | None, options: str | None, wait: bool | None
) -> list[int]:
    return _run(db, wait, lambda: training.export_tensorrt(db, model, dtype, options))


@entrypoint
def evaluate_model(
    db: Session,
    model: str | None,
    eval_query: str | None,
    metrics: list[str | None] | None,
    options: str | None,
    wait: bool | None,
) -> list[int]:
    return _run(db, wait, lambda: training.evaluate_model(db, model, eval_query, metrics, options))


@entrypoint
def tune_engine(
    db: Session, model: str | None, version: str | None, options: str | None, wait: bool | None
) -> list[int]:
    return _run(db, wait, lambda: training.tune_engine(db, model, version, options))


def _run(db: Session, wait: bool | None, make_request: Callable[[], Request]) -> list[int]:
    """The number of the job, as the one column of the procedure's result."""
    if wait is None:
        raise InvalidArgument("wait must not be NULL")
    with own_settings(db):
        request = make_request()
        limits = read_limits(db)
        address = server_address(db)
    spool_dir = read_paths().spool_dir
    return [run(db, request, limits, wait, lambda transaction: start_worker(address, spool_dir, transaction))]


def _check_checkpoint(reference: str, digest: str) -> None:
    model_root = read_paths().model_root
    checkpoint.locate(model_root, Artifact(model_root, digest).config(), reference)
