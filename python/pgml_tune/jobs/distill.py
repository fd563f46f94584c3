"""Teaches a small model what a large one says: a classifier its probabilities, an embedding model its vectors."""

from __future__ import annotations

import gc
import re
import time
from dataclasses import dataclass
from typing import Any

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs import latency, training
from pgml_tune.jobs.checkpoints import publish_trained, take
from pgml_tune.jobs.classifier import head_of, with_labels
from pgml_tune.jobs.device import choose_device
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.learning import HEAD_FACTOR, Rates, learn
from pgml_tune.jobs.lessons import ClassifierLessons, EmbedderLessons, Lessons
from pgml_tune.jobs.model import Model, load
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.source import stage
from pgml_tune.jobs.student import keep_layers, with_dimensions
from pgml_tune.jobs.vocabulary import choose_tokens, reduce_embeddings, reduce_tokenizer
from pgml_tune.records import ArtifactConfig

_LAYERS = re.compile(r"layers:([1-9][0-9]{0,3})\Z")


@dataclass(frozen=True, slots=True)
class _Student:
    """The student before it learns."""

    model: Model
    new_layer: str  # the name of the one that begins at random; '' if none does
    vocabulary: dict[str, int] | None  # its size before and after, where it was reduced


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Train, export and publish a student, and measure it beside its teacher."""
    started = time.monotonic()
    device = choose_device(job.parameters["device"], job.parameters["precision"])
    teacher, reference = job.artifact("teacher"), job.models["teacher"].reference
    config = teacher.config()
    lessons: Lessons = (ClassifierLessons if config.labels else EmbedderLessons)(job, teacher)
    report.progress("loading the model")
    student = _make_student(job, config, lessons)
    truncated = lessons.prepare(student.model, report)
    network = student.model.network
    rate = job.parameters["learning_rate"]
    rates = Rates(rate, rate * HEAD_FACTOR, student.new_layer) if student.new_layer else Rates(rate, rate)
    training.prepare(job)
    measure = lessons.measure_with(network)
    pad = student.model.pad_token_id
    outcome = learn(network, lessons.examples, pad, lessons.loss, rates, device, job, report, measure)
    saved = job.scratch("trained")
    network.save_pretrained(str(saved), create_model_card=False, safe_serialization=True)
    vocabulary = student.vocabulary
    del network, student, measure
    gc.collect()
    name = str(config.source.get("name", reference))
    artifact = publish_trained(saved, config.task, name, reference, job, Site.of(job, report))
    figures = _measure(lessons, teacher, artifact, job, report)
    return {
        **outcome,
        "learning_rate": rate,
        "device": device,
        "truncated_texts": truncated,
        **lessons.facts(),
        "vocabulary": vocabulary,
        "metric": lessons.metric,
        **figures,
        "summary": _summary(lessons, figures),
        "seconds": round(time.monotonic() - started, 1),
    }


def _make_student(job: Job, teacher: ArtifactConfig, lessons: Lessons) -> _Student:
    """Build the student, save it, and load it as it will be loaded from its checkpoint."""
    recipe = _LAYERS.match(job.parameters["student"])
    role = "teacher" if recipe else "student"
    model = load(take(job, role, job.scratch("base")), job.artifact(role).config().task)
    training.prepare(job)  # a new layer begins at random, by the seed
    network, is_new = model.network, False
    if recipe:
        keep_layers(network, int(recipe[1]))
    elif teacher.labels:
        is_new = model.labels != teacher.labels
        network = with_labels(network, teacher.labels, model.labels) if is_new else network
    else:
        is_new = model.dimensions != teacher.dimensions
        network = with_dimensions(network, teacher.dimensions, is_normalized=teacher.is_normalized)
    reduction = None
    if job.parameters["vocabulary"] == "rows":
        reduction = choose_tokens(model.tokenizer_json, lessons.texts_with(model.prompt_passage, model.prompt_query))
        reduce_embeddings(network, reduction)
    folder = job.scratch("student")
    network.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    if reduction is not None:
        reduce_tokenizer(folder, reduction)
    loaded = load(stage(str(folder), job.scratch("staged")), teacher.task)
    if loaded.dimensions != teacher.dimensions:
        raise InvalidArgument(
            f"the student has {loaded.dimensions} outputs, its teacher {teacher.dimensions}"
        )
    sizes = None if reduction is None else {"before": reduction.before, "after": len(reduction.places)}
    return _Student(loaded, head_of(loaded.network)[0] if is_new else "", sizes)


def _measure(
    lessons: Lessons, teacher: Artifact, student: Artifact, job: Job, report: Reporter
) -> dict[str, dict[str, Any]]:
    """Quality, speed and size of both, reported as evaluations."""
    report.progress("evaluating")
    # One thread, as a session has: so the speeds can be compared with those of other machines.
    runners = {
        "teacher": Runner(teacher.folder, teacher.config(), 1),
        "student": Runner(student.folder, student.config(), 1),
    }
    speeds = latency.compare(runners, lessons.sample())
    found = {}
    for role, of, artifact in (("teacher", job.models["teacher"].reference, teacher), ("student", "new", student)):
        quality, details = lessons.quality(role, artifact)
        figures = {**quality, **latency.figures(speeds[role], artifact.size_bytes)}
        part = lessons.part if lessons.evaluated else None
        report.evaluation(
            of, artifact.digest, part, {**figures, **details}, lessons.evaluated if part == "train" else None
        )
        found[role] = figures
    return found


def _summary(lessons: Lessons, figures: dict[str, dict[str, Any]]) -> str:
    teacher, student = figures["teacher"], figures["student"]
    size, time_alone = (100 * student[name] / teacher[name] for name in ("bytes", "latency_ms"))
    parts = [f"{time_alone:.0f} % of the teacher's latency, {size:.0f} % of its size"]
    if lessons.metric in student:
        was = f"{teacher[lessons.metric]:.2f} -> " if lessons.metric in teacher else ""
        parts.insert(0, f"{lessons.metric} {was}{student[lessons.metric]:.2f} on {lessons.evaluated:,} rows")
    return ", ".join(parts)
