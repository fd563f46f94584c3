"""Trains a model that writes SQL, from scratch or a version further, on questions whose SQL runs as their caller."""

from __future__ import annotations

import gc
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from pgml_tune.engine import checkpoint
from pgml_tune.engine.artifact import LEXICON, Artifact, new_artifact
from pgml_tune.engine.files import read_plain
from pgml_tune.engine.generator import CT2, open_generator
from pgml_tune.engine.local import LocalGenerator
from pgml_tune.errors import NotSupported
from pgml_tune.jobs import training
from pgml_tune.jobs.caller import Caller
from pgml_tune.jobs.checkpoints import take
from pgml_tune.jobs.device import choose_device
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.refine import refine
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.sequence_model import describe, load_network
from pgml_tune.jobs.source import stage
from pgml_tune.jobs.sql_augment import Augmenter
from pgml_tune.jobs.sql_learning import Course, Example, learn_sql
from pgml_tune.jobs.sql_metrics import METRIC, SqlMeasures, measure_sql
from pgml_tune.jobs.sql_rows import Lesson, Reader, SqlRows, lexicon_of, linked_columns, read_rows
from pgml_tune.jobs.sql_scratch import new_network, new_tokenizer, save
from pgml_tune.jobs.sql_trial import open_network
from pgml_tune.jobs.translation import publish_generator
from pgml_tune.service.prompt import PromptFormat

_SCRATCH = "scratch:"
_FROM_SCRATCH = Course(60, 2e-3, None)
_FURTHER = Course(10, 3e-4, None)
_MORE_OUTPUT = 32  # tokens that an answer may have more than the longest of the rows
_MOST_OUTPUT = 512
_WORTH_THREADS = 5_000_000  # weights: the layers of smaller networks are done before a second core has begun


@dataclass(slots=True)
class _Student:
    """What learns: a network with its tokenizer, and how it is asked."""

    network: Any
    tokenizer: Any
    reader: Reader
    name: str
    base: str | None  # the version that it comes from

    def generation(self, lessons: list[Lesson]) -> dict[str, Any]:
        """What the artifact will say of how it writes."""
        longest = max(len(self.tokenizer(text_target=lesson.output)["input_ids"]) for lesson in lessons)
        return {
            "prompt": self.reader.form.to_json(),
            "max_output_tokens": min(longest + _MORE_OUTPUT, _MOST_OUTPUT),
        }


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Train, convert, publish and measure; a version that is trained further is measured before, too."""
    started = time.monotonic()
    device = choose_device(job.parameters["device"], job.parameters["precision"])
    caller = Caller(job.access)
    try:
        rows = read_rows(job, caller, report)
        training.prepare(job)
        student = _further(job, rows, report) if "model" in job.models else _from_scratch(job, rows, report)
        lessons = [student.reader.lesson(row) for row in rows.train]
        checks = [student.reader.lesson(row) for row in rows.evaluation]
        before = _measure_base(job, checks, caller, rows, report)
        outcome, generation = _train(student, lessons, checks, caller, device, job, report)
        saved = job.scratch("trained")
        save(student.network, student.tokenizer, saved)
        student.network = None
        gc.collect()
        artifact = _publish(str(saved), student, generation, lessons, checks, job, report)
        after = _measure("new", artifact, checks, caller, rows, job, report)
    finally:
        caller.close()
    return {
        **outcome,
        "device": device,
        "train_rows": len(rows.train),
        "eval_rows": len(rows.evaluation),
        "dropped_rows": rows.dropped,
        "held_out": rows.is_held_out,
        "phrases": len(student.reader.lexicon),
        "metric": METRIC if after else None,
        "before": before.execution_accuracy if before else None,
        "after": after.execution_accuracy if after else None,
        "evaluation": after.figures() if after else None,
        "summary": _summary(before, after, rows),
        "seconds": round(time.monotonic() - started, 1),
        "core_seconds": round(time.process_time(), 1),
    }


def _from_scratch(job: Job, rows: SqlRows, report: Reporter) -> _Student:
    """A network that knows nothing, with a tokenizer made of the rows."""
    report.progress("learning the names of values")
    prompt = job.parameters["prompt"] or {}
    form = PromptFormat(
        schema=prompt.get("schema", "none"),
        values=prompt.get("values", "placeholder"),
        lower=True,
        columns=linked_columns(rows.train, rows.places),
    )
    reader = Reader(form, lexicon_of(rows.train, rows.places, form), rows.places)
    lessons = [reader.lesson(row) for row in rows.train]
    hinted = (column for place in rows.places.values() for _, column, _ in place.values)
    texts = [text for lesson in lessons for text in (lesson.prompt.text, lesson.output)] + list(dict.fromkeys(hinted))
    tokenizer = new_tokenizer(texts, job.parameters["vocabulary_size"])
    size = (job.parameters["base"] or f"{_SCRATCH}small").removeprefix(_SCRATCH)
    network = new_network(size, tokenizer)
    student = _Student(network, tokenizer, reader, f"{_SCRATCH}{size}", None)
    _limit(student, int(tokenizer.model_max_length), job)
    return student


def _further(job: Job, rows: SqlRows, report: Reporter) -> _Student:
    """The network and the tokenizer of a version, which is asked as before unless the options say otherwise."""
    report.progress("loading the model")
    artifact = job.artifact("model")
    config, reference = artifact.config(), job.models["model"].reference
    if config.engine != CT2:
        raise NotSupported(
            f'model "{reference}" cannot be trained further',
            detail=f"Its engine is {config.engine}; what is trained has an encoder and a decoder.",
        )
    model = describe(take(job, "model", job.scratch("base")))
    known = PromptFormat.from_json(config.generation.get("prompt") or {})
    form = replace(known, **(job.parameters["prompt"] or {}))
    if form.columns is not None:
        form = replace(form, columns=tuple(sorted({*form.columns, *linked_columns(rows.train, rows.places)})))
    report.progress("learning the names of values")
    lexicon = json.loads(read_plain(artifact.path(LEXICON))) if LEXICON in artifact.files else {}
    lexicon |= lexicon_of(rows.train, rows.places, form) if form.values != "none" else {}
    name = str(config.source.get("name", reference))
    student = _Student(load_network(model), model.tokenizer, Reader(form, lexicon, rows.places), name, reference)
    _limit(student, config.max_tokens, job)
    return student


def _limit(student: _Student, max_tokens: int, job: Job) -> None:
    """Let prompts be as long as the model reads, or as its caller says."""
    limit, tokenizer = training.token_limit(job, max_tokens), student.tokenizer
    student.reader.fits = lambda prompt: len(tokenizer(prompt)["input_ids"]) <= limit


def _train(
    student: _Student,
    lessons: list[Lesson],
    checks: list[Lesson],
    caller: Caller,
    device: str,
    job: Job,
    report: Reporter,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What came of the training and of its refinement, and how the model writes."""
    parameters = job.parameters
    usual = _FROM_SCRATCH if student.base is None else _FURTHER
    course = Course(
        parameters["epochs"] or usual.epochs,
        parameters["learning_rate"] or usual.rate,
        parameters["max_seconds"],
    )
    generation = student.generation(lessons)
    is_small = sum(weight.numel() for weight in student.network.parameters()) < _WORTH_THREADS
    threads = 1 if is_small and not parameters["threads"] else job.thread_count
    torch.set_num_threads(threads)

    def trial() -> LocalGenerator:
        return open_network(student.network, student.tokenizer, generation, threads)

    def accuracy() -> float:
        return measure_sql(trial(), checks, caller).execution_accuracy

    def teach(taught: list[Lesson], part: Course, folder: str) -> dict[str, Any]:
        example = _examples(taught, student.reader, job)
        lengths = [len(student.tokenizer(text_target=lesson.output)["input_ids"]) for lesson in taught]
        return learn_sql(
            student.network,
            student.tokenizer,
            len(taught),
            example,
            lengths,
            part,
            device,
            job.scratch(folder),
            job,
            report,
            accuracy if checks else None,
        )

    outcome = teach(lessons, course, "trainer") | {"learning_rate": course.rate, "epochs": course.epochs}
    if parameters["refine"] is not None:
        rounds = refine(
            student.network, lessons, parameters["refine"], course, trial, teach, accuracy if checks else None, caller,
            parameters["seed"], report,
        )  # fmt: skip
        outcome["refine"] = rounds
    return outcome, generation


def _examples(lessons: list[Lesson], reader: Reader, job: Job) -> Callable[[int], Example]:
    """What is learnt at a place, each time perhaps another variation of it."""
    if not job.parameters["augment"]:
        return lambda place: (lessons[place].prompt.text, lessons[place].output)
    augmenter = Augmenter(reader, lessons, random.Random(job.parameters["seed"]))
    return lambda place: augmenter.vary(lessons[place])


def _publish(
    saved: str,
    student: _Student,
    generation: dict[str, Any],
    lessons: list[Lesson],
    checks: list[Lesson],
    job: Job,
    report: Reporter,
) -> Artifact:
    """Convert what was trained, keep it as the checkpoint of the artifact, and report that."""
    site = Site.of(job, report)
    with new_artifact(site.model_root, site.label) as folder:
        staged = stage(saved, folder, name=student.name)
        artifact = publish_generator(
            staged,
            site,
            generation=generation,
            max_tokens=training.token_limit(job, int(student.tokenizer.model_max_length)),
            prompts=[lesson.prompt.text for lesson in (checks or lessons)],
            lexicon=dict(student.reader.lexicon) or None,
            made_by=job.made_by(student.base),
        )
        checkpoint.keep(site.model_root, folder, staged.files_sha256)
    report.artifact(artifact.digest, "", artifact.config().to_json(), existed=False)
    return artifact


def _measure_base(
    job: Job, checks: list[Lesson], caller: Caller, rows: SqlRows, report: Reporter
) -> SqlMeasures | None:
    if "model" not in job.models:
        return None
    return _measure(job.models["model"].reference, job.artifact("model"), checks, caller, rows, job, report)


def _measure(
    of: str, artifact: Artifact, checks: list[Lesson], caller: Caller, rows: SqlRows, job: Job, report: Reporter
) -> SqlMeasures | None:
    """Report figures of an artifact, as it will serve."""
    if not checks:
        return None
    report.progress("evaluating")
    generator = cast(LocalGenerator, open_generator(artifact, job.thread_count))
    found = measure_sql(generator, checks, caller)
    report.evaluation(of, artifact.digest, rows.part, found.figures(), len(checks) if rows.is_held_out else None)
    return found


def _summary(before: SqlMeasures | None, after: SqlMeasures | None, rows: SqlRows) -> str:
    if after is None:
        return f"trained on {len(rows.train):,} rows, not measured"
    was = f"{before.execution_accuracy:.2f} -> " if before else ""
    return (
        f"execution accuracy {was}{after.execution_accuracy:.2f}, exact match {after.exact_match:.2f},"
        f" valid SQL {after.valid_rate:.2f} on {len(rows.evaluation):,} rows"
    )
