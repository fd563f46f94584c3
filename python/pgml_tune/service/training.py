"""What the procedures of sql/functions/training.sql ask for: arguments checked, versions looked up, a request made."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pgml_tune.db import Session
from pgml_tune.errors import InvalidArgument, NameTaken, NotSupported, ObjectNotFound
from pgml_tune.records import STORAGE_SUFFIXES, TASKS, ModelReference, check_name
from pgml_tune.service.job import Request, RowQuery
from pgml_tune.service.job_options import parse_job_options
from pgml_tune.service.resolution import Rules
from pgml_tune.service.training_rows import LOSSES
from pgml_tune.settings import Limits
from pgml_tune.store import job as store
from pgml_tune.store import registry
from pgml_tune.store.job import VersionFacts
from pgml_tune.store.setting import read_settings

_SHOW_VERSIONS = "SELECT model, version, task FROM pgml_tune.model_versions"
_LAYERS = re.compile(r"layers:([1-9][0-9]{0,2})\Z")
_MAX_SOURCE = 4096
DTYPES = ("fp16", "fp32")

# Metrics by the shape of the rows that they are measured on.
METRICS = {
    "pair_score": ("spearman", "pearson"),
    "retrieval": ("ndcg", "recall", "mrr"),
    "text_label": ("accuracy", "macro_f1"),
    "question_sql": ("execution_accuracy", "exact_match", "valid_rate"),
}
_SHAPES = {  # of the rows that a model of a task is measured on
    "embedding": ("pair_score", "retrieval"),
    "classification": ("text_label",),
    "text_to_sql": ("question_sql",),
}
SPEED = ("latency", "throughput")
_RANKED = METRICS["retrieval"]

# Fails where the version of a reference, an artifact of that digest, cannot be trained further on this machine.
CheckCheckpoint = Callable[[str, str], None]


def import_model(
    db: Session, name: str | None, source: str | None, task: str | None, version: str | None, options: str | None
) -> Request:
    """A request to bring a model in."""
    if not name or not source:
        raise InvalidArgument("name and source must not be empty", hint="CALL import_model('name', '/folder')")
    if len(source) > _MAX_SOURCE or not source.isprintable():
        raise InvalidArgument("source is neither a folder nor a model of a hub")
    check_name(name, "model")
    if task not in TASKS:
        raise InvalidArgument("there is no such task", detail=f"Tasks are: {', '.join(TASKS)}.")
    values = parse_job_options("import_model", options)
    _check_target(db, name, version, task)
    parameters = values | {"source": source, "task": task, "target": _target(name, version, None, task, values)}
    return Request("import_model", parameters)


def finetune_sbert(
    db: Session,
    check_checkpoint: CheckCheckpoint,
    model: str | None,
    train_query: str | None,
    new_version: str | None,
    eval_query: str | None,
    options: str | None,
) -> Request:
    """A request to train an embedding model further."""
    values = parse_job_options("finetune_sbert", options)
    base = _find(db, model, "embedding")
    _check_training(base, values, eval_query)
    dimensions = max(values["matryoshka"] or [0])
    if dimensions > base.dimensions:
        raise InvalidArgument(
            f'option "matryoshka" asks for {dimensions} dimensions, model "{base.reference}" has {base.dimensions}'
        )
    queries = _queries(train_query, eval_query, _shapes(values), (*LOSSES, "retrieval"))
    _check_target(db, base.name, new_version, base.task)
    check_checkpoint(base.reference, base.digest)
    target = _target(base.name, new_version, base.version, base.task, values)
    return Request("finetune_sbert", values | {"models": {"model": _start(base)}, "target": target}, queries)


def _shapes(values: dict[str, Any]) -> tuple[str, ...]:
    """The shapes of rows that the chosen loss fits, and that hard negatives can be mined for."""
    loss = values["loss"]
    shapes = tuple(shape for shape, losses in LOSSES.items() if loss is None or loss in losses)
    if not values["hard_negatives"]:
        return shapes
    if "pair" not in shapes:
        raise InvalidArgument(
            f'option "hard_negatives" does not fit loss "{loss}"',
            detail="Negatives are mined for rows (anchor, positive).",
        )
    return ("pair",)


def _check_training(base: VersionFacts, values: dict[str, Any], eval_query: str | None) -> None:
    """Refuse options that do not fit the model, or each other."""
    length = values["max_seq_length"]
    if length is not None and length > base.max_tokens:
        raise InvalidArgument(
            f'option "max_seq_length" is {length}, model "{base.reference}" reads {base.max_tokens} tokens'
        )
    if values["early_stopping"] and eval_query is None and values["eval_share"] == 0:
        raise _nothing_to_measure_with()


def _nothing_to_measure_with() -> InvalidArgument:
    return InvalidArgument(
        'option "early_stopping" needs rows to measure with', hint="Pass an eval_query, or an eval_share above 0."
    )


def finetune_classifier(
    db: Session,
    check_checkpoint: CheckCheckpoint,
    model: str | None,
    train_query: str | None,
    new_model: str | None,
    eval_query: str | None,
    options: str | None,
) -> Request:
    """A request to train a classifier."""
    values = parse_job_options("finetune_classifier", options)
    base = _find(db, model)
    _check_training(base, values, eval_query)
    queries = _queries(train_query, eval_query, ("text_label",))
    if new_model is None and base.task != "classification":
        raise InvalidArgument(
            f'model "{base.name}" is not a classifier',
            detail="A classifier that is made from it is a model of its own: name it with new_model.",
            hint=f"CALL finetune_classifier('{base.reference}', 'SELECT body, label FROM ...', 'new_model')",
        )
    name = base.name if new_model is None else check_name(new_model, "model")
    _check_target(db, name, values["new_version"], "classification")
    check_checkpoint(base.reference, base.digest)
    base_version = base.version if name == base.name else None
    target = _target(name, values["new_version"], base_version, "classification", values)
    return Request("finetune_classifier", values | {"models": {"model": _start(base)}, "target": target}, queries)


def finetune_text_to_sql(
    db: Session,
    check_checkpoint: CheckCheckpoint,
    model: str | None,
    train_query: str | None,
    new_version: str | None,
    eval_query: str | None,
    options: str | None,
) -> Request:
    """A request to train a model that writes SQL."""
    values = parse_job_options("finetune_text_to_sql", options)
    if model is None:
        raise InvalidArgument("model must not be NULL", hint=_SHOW_VERSIONS)
    reference = ModelReference.parse(model)
    base = _sql_base(db, reference, values["base"])
    if base is not None:
        _check_training(base, values, eval_query)
    elif values["early_stopping"] and eval_query is None and values["eval_share"] == 0:
        raise _nothing_to_measure_with()
    queries = _queries(train_query, eval_query, ("question_sql",))
    _check_target(db, reference.name, new_version, "text_to_sql")
    models = {}
    if base is not None:
        check_checkpoint(base.reference, base.digest)
        models["model"] = _start(base)
    base_version = base.version if base is not None and base.name == reference.name else None
    target = _target(reference.name, new_version, base_version, "text_to_sql", values)
    parameters = values | {"models": models, "target": target}
    return Request("finetune_text_to_sql", parameters, queries, takes_schema=True)


def _sql_base(db: Session, reference: ModelReference, base: str | None) -> VersionFacts | None:
    """The version that training starts from; None: from scratch."""
    if base is None and registry.versions_of(db, reference.name):
        return _find(db, str(reference), "text_to_sql")
    if reference.version is not None:
        raise InvalidArgument(
            f'model "{reference}" is named with a version, as what is made is not',
            detail="Where training starts is the option base, what is made is named by new_version.",
            hint=f"CALL finetune_text_to_sql('{reference.name}', ..., options => '{{\"base\": \"{reference}\"}}')",
        )
    return _find(db, base, "text_to_sql", "base") if base is not None and "@" in base else None


def distill_model(
    db: Session,
    check_checkpoint: CheckCheckpoint,
    teacher: str | None,
    student: str | None,
    train_query: str | None,
    eval_query: str | None,
    options: str | None,
) -> Request:
    """A request to teach a smaller model."""
    values = parse_job_options("distill_model", options)
    from_model = _without_writers(_find(db, teacher, what="teacher"))
    if student is None:
        raise InvalidArgument(
            "student must not be NULL", hint="CALL distill_model('teacher', 'layers:3', 'SELECT ...')"
        )
    models = {"teacher": _start(from_model)}
    check_checkpoint(from_model.reference, from_model.digest)
    if _LAYERS.match(student) is None:
        if student.startswith("layer"):
            raise InvalidArgument(
                "student is not layers:N", detail="N is how many of the teacher's layers it keeps, from 1."
            )
        pupil = _find(db, student, what="student")
        if pupil.task not in (from_model.task, "embedding"):
            raise NotSupported(f'student "{pupil.reference}" does not embed', detail=f"Its task is {pupil.task}.")
        check_checkpoint(pupil.reference, pupil.digest)
        models["student"] = _start(pupil)
    _check_training(from_model, values, eval_query)
    is_classifier = from_model.task == "classification"
    train_shape, eval_shape = ("text_label", "text_label") if is_classifier else ("text", "pair_score")
    queries = _queries(train_query, eval_query, (train_shape,), (eval_shape,))
    name = values["new_model"] or check_name(f"{from_model.name}-distilled", "model")
    _check_target(db, name, values["new_version"], from_model.task)
    base_version = from_model.version if name == from_model.name else None
    target = _target(name, values["new_version"], base_version, from_model.task, values)
    return Request("distill_model", values | {"student": student, "models": models, "target": target}, queries)


def quantize_model(
    db: Session, model: str | None, method: str | None, calibration_query: str | None, options: str | None
) -> Request:
    """A request for a smaller version."""
    values = parse_job_options("quantize_model", options)
    if method not in STORAGE_SUFFIXES:
        raise InvalidArgument("there is no such method", detail=f"Methods are: {', '.join(STORAGE_SUFFIXES)}.")
    base = _find_full(db, model)
    queries: tuple[RowQuery, ...] = ()
    if method == "int8_static":
        queries = (_query("calibration", calibration_query, ("text",)),)
    elif calibration_query is not None:
        raise InvalidArgument(f'method "{method}" needs no calibration_query', detail="Only int8_static does.")
    if values["eval_query"] is not None:
        queries += (_query("eval", values["eval_query"], _SHAPES[base.task]),)
    version = values["new_version"] or _derived(base, STORAGE_SUFFIXES[method])
    _check_target(db, base.name, version, base.task)
    target = _target(base.name, version, base.version, base.task, values)
    parameters = values | {"method": method, "models": {"model": _start(base)}, "target": target}
    return Request("quantize_model", parameters, queries)


def export_onnx(db: Session, check_checkpoint: CheckCheckpoint, model: str | None, options: str | None) -> Request:
    """A request to export a version again."""
    values = parse_job_options("export_onnx", options)
    base = _find_full(db, model)
    check_checkpoint(base.reference, base.digest)
    # Without a name of its own the version gets what the job adds to the one of its base.
    version = values["new_version"] or base.version
    if values["new_version"] is not None:
        _check_target(db, base.name, version, base.task)
    target = _target(base.name, version, base.version, base.task, values)
    return Request("export_onnx", values | {"models": {"model": _start(base)}, "target": target})


def export_tensorrt(db: Session, model: str | None, dtype: str | None, options: str | None) -> Request:
    """A request for an engine of the GPU."""
    values = parse_job_options("export_tensorrt", options)
    if dtype not in DTYPES:
        raise InvalidArgument("there is no such dtype", detail=f"They are: {', '.join(DTYPES)}.")
    base = _find_full(db, model)
    version = values["new_version"] or _derived(base, f"-trt-{dtype}")
    _check_target(db, base.name, version, base.task)
    target = _target(base.name, version, base.version, base.task, values)
    return Request("export_tensorrt", values | {"dtype": dtype, "models": {"model": _start(base)}, "target": target})


def evaluate_model(
    db: Session, model: str | None, eval_query: str | None, metrics: list[str | None] | None, options: str | None
) -> Request:
    """A request to measure a version."""
    values = parse_job_options("evaluate_model", options)
    measured = _find(db, model)
    names, shapes = _metrics(metrics, _SHAPES[measured.task], values["k"])
    queries = (_query("eval", eval_query, shapes),)
    parameters = values | {"metrics": names, "models": {"model": _start(measured)}, "target": None}
    return Request("evaluate_model", parameters, queries, takes_schema=measured.task == "text_to_sql")


def tune_engine(db: Session, model: str | None, version: str | None, options: str | None) -> Request:
    """A request to measure the ways of running a version on this machine, and to take the best."""
    values = parse_job_options("tune_engine", options)
    found = _without_writers(_find(db, _reference(model, version)))
    limits = Limits.from_rows(read_settings(db)[1])
    # What the worker computes with, not what jobs may: it is the worker that is measured.
    names = ("serve_threads", "batch_size", "batch_tokens")
    served = {name: getattr(limits, name) for name in names}
    return Request("tune_engine", values | served | {"models": {"model": _start(found)}, "target": None})


def _reference(model: str | None, version: str | None) -> str | None:
    """The model and its version as one name."""
    if model is None or version is None:
        return model
    reference = ModelReference.parse(model)
    if reference.version not in (None, version):
        raise InvalidArgument(
            f'version is "{version}", model "{model}" names another one', hint=f"CALL tune_engine('{model}')"
        )
    return str(ModelReference(reference.name, check_name(version, "version")))


def _metrics(
    metrics: list[str | None] | None, possible: tuple[str, ...], k: int
) -> tuple[list[str] | None, tuple[str, ...]]:
    """Metrics by their full names, and the shapes of rows that all of them can be measured on."""
    shapes = possible
    if metrics is None:
        return None, shapes
    if not metrics:
        raise InvalidArgument("metrics is empty", detail="NULL means all that the rows allow.")
    names: list[str] = []
    for metric in metrics:
        name, at, place = (metric if type(metric) is str else "").partition("@")
        fitting = tuple(shape for shape in shapes if name in METRICS[shape])
        is_place = not at or (name in _RANKED and place.isascii() and place.isdigit() and len(place) <= 4)
        if not (fitting or name in SPEED) or not is_place or (at and not 1 <= int(place) <= 1000):
            valid = ", ".join([metric for shape in possible for metric in METRICS[shape]] + list(SPEED))
            raise InvalidArgument(
                f"metric {len(names) + 1} is unknown, or cannot be measured on the same rows as those before it",
                detail=f"Metrics of this model are: {valid}; of {', '.join(_RANKED)} also those @k, 1 to 1000.",
            )
        names.append(f"{name}@{int(place) if at else k}" if name in _RANKED else name)
        if fitting:
            shapes = fitting
    return list(dict.fromkeys(names)), shapes


def _find(db: Session, model: str | None, task: str | None = None, what: str = "model") -> VersionFacts:
    """The ready version that a reference means; without a task a model of any task."""
    if model is None:
        raise InvalidArgument(f"{what} must not be NULL", hint=_SHOW_VERSIONS)
    if task is None:
        versions = registry.versions_of(db, ModelReference.parse(model).name)
        task = versions[0].task if versions else TASKS[0]
    target, _ = Rules().read(db, model, task)
    facts = store.version_facts(db, target.model_version_id)
    if facts is None:
        raise ObjectNotFound(f"the version of {what} is gone", hint=_SHOW_VERSIONS)
    return facts


def _without_writers(found: VersionFacts) -> VersionFacts:
    """The version itself, unless it writes SQL."""
    if found.task == "text_to_sql":
        raise NotSupported(
            f'model "{found.reference}" writes SQL',
            detail="Such a model is stored in 8 bits from the start; models that embed or classify can be quantized,"
            " exported, distilled and run in other ways.",
        )
    return found


def _find_full(db: Session, model: str | None) -> VersionFacts:
    """The version that a reference means, which must be one in full precision."""
    found = _without_writers(_find(db, model))
    if found.storage != "fp32":
        raise NotSupported(
            f'version "{found.reference}" is stored as {found.storage}',
            detail="Smaller and exported versions are made from the one in full precision.",
            hint=f"SELECT version, storage FROM pgml_tune.model_versions WHERE model = '{found.name}'",
        )
    return found


def _queries(
    train_query: str | None, eval_query: str | None, shapes: tuple[str, ...], eval_shapes: tuple[str, ...] | None = None
) -> tuple[RowQuery, ...]:
    train = _query("train", train_query, shapes)
    return (train,) if eval_query is None else (train, _query("eval", eval_query, eval_shapes or shapes))


def _query(part: str, text: str | None, shapes: tuple[str, ...]) -> RowQuery:
    if text is None or not text.strip():
        example = "body" if shapes == ("text",) else "a, b"
        raise InvalidArgument(
            f"{part}_query must not be empty", hint=f"Pass a SELECT as a text: $$SELECT {example} FROM t$$"
        )
    # It becomes a part of another query.
    return RowQuery(part, text.rstrip("; \t\r\n"), shapes)


def _check_target(db: Session, name: str, version: str | None, task: str) -> None:
    """Refuse a version that exists, and a model of another task."""
    existing = registry.versions_of(db, name)
    if existing and existing[0].task != task:
        raise NameTaken(f'model "{name}" exists and has another task', hint="SELECT model, task FROM pgml_tune.models")
    if version is not None:
        check_name(version, "version")
        if any(row.version == version for row in existing):
            raise NameTaken(f'version "{name}@{version}" exists already', hint=_SHOW_VERSIONS)


def _derived(base: VersionFacts, suffix: str) -> str:
    return check_name(f"{base.version}{suffix}", "version")


def _start(version: VersionFacts) -> dict[str, str]:
    """A version that the job begins with."""
    return {"reference": version.reference, "digest": version.digest, "task": version.task}


def _target(name: str, version: str | None, base: str | None, task: str, values: dict[str, Any]) -> dict[str, Any]:
    """What the job makes, as it will be registered."""
    return {"model": name, "version": version, "base": base, "task": task, "description": values["description"]}
