"""Fine-tunes a classifier: a head on an encoder, or a classifier that is there already."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.tokenizer import Tokens
from pgml_tune.jobs import training
from pgml_tune.jobs.checkpoints import publish_trained, take
from pgml_tune.jobs.classifier import head_of, with_labels
from pgml_tune.jobs.device import choose_device
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.label_metrics import LabelMeasures, compare_labels, measure_labels
from pgml_tune.jobs.label_rows import LabelledRows, LabelledTexts, all_labels, read_labelled
from pgml_tune.jobs.learning import HEAD_FACTOR, Rates, learn
from pgml_tune.jobs.model import load
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.tokens import tokenize
from pgml_tune.records import ArtifactConfig

_LEARNING_RATE = 1e-4


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Train, export, publish and measure; a model that was a classifier before is measured before, too."""
    started = time.monotonic()
    device = choose_device(job.parameters["device"], job.parameters["precision"])
    rows, base, model = read_labelled(job), job.artifact("model"), job.models["model"]
    config = base.config()
    labels = all_labels(config.labels, rows.train.labels)
    limit = training.token_limit(job, config.max_tokens)
    before = _measure(model.reference, base, rows, job, report) if config.labels else None
    report.progress("loading the model")
    loaded = load(take(job, "model", job.scratch("base")), config.task)
    training.prepare(job)
    network = loaded.network if labels == config.labels else with_labels(loaded.network, labels, config.labels)
    parts = [rows.train.texts, rows.evaluation.texts]
    tokenized = tokenize(base.path("tokenizer.json"), limit, config.prompt_passage, parts)
    truncated = tokenized.report_cut(report)
    outcome = _train(network, tokenized.parts[0], rows, labels, config, device, job, report)
    saved = job.scratch("trained")
    network.save_pretrained(str(saved), create_model_card=False, safe_serialization=True)
    del network, loaded
    gc.collect()
    name = str(config.source.get("name", model.reference))
    artifact = publish_trained(saved, "classification", name, model.reference, job, Site.of(job, report))
    after = _measure("new", artifact, rows, job, report)
    return {
        **outcome,
        "device": device,
        "train_rows": len(rows.train.texts),
        "eval_rows": len(rows.evaluation.texts),
        "held_out": rows.is_held_out,
        "truncated_texts": truncated,
        "label_count": len(labels),
        "metric": "accuracy" if after else None,
        "before": before.accuracy if before else None,
        "after": after.accuracy if after else None,
        "evaluation": after.to_json() if after else None,
        "summary": _summary(before, after, rows),
        "seconds": round(time.monotonic() - started, 1),
    }


def _measure(of: str, artifact: Artifact, rows: LabelledRows, job: Job, report: Reporter) -> LabelMeasures | None:
    """Report figures of the exported model, as it will serve."""
    if not rows.evaluation.texts:
        return None
    report.progress("evaluating")
    config = artifact.config()
    runner = Runner(artifact.folder, config, job.thread_count)
    found = measure_labels(runner, config, rows.evaluation)
    count = len(rows.evaluation.texts) if rows.is_held_out else None
    report.evaluation(of, artifact.digest, rows.part, found.all_figures(), count)
    return found


def _train(
    network: Any,
    examples: list[Tokens],
    rows: LabelledRows,
    labels: list[str],
    config: ArtifactConfig,
    device: str,
    job: Job,
    report: Reporter,
) -> dict[str, Any]:
    head, _ = head_of(network)
    is_frozen = job.parameters["freeze_encoder"]
    rate = job.parameters["learning_rate"] or _LEARNING_RATE * (HEAD_FACTOR if is_frozen else 1)
    is_new = labels != config.labels
    if is_frozen:
        for name, weight in network.named_parameters():
            weight.requires_grad_(name.startswith(head))
    places = {label: place for place, label in enumerate(labels)}
    targets = torch.tensor([places[label] for label in rows.train.labels], device=device)

    def loss(logits: Any, positions: Any) -> Any:
        return torch.nn.functional.cross_entropy(logits.float(), targets[positions])

    rates = Rates(rate, rate * HEAD_FACTOR if is_new and not is_frozen else rate, head)
    measure = measure_accuracy(network, rows.evaluation, labels, config.prompt_passage)
    outcome = learn(network, examples, config.pad_token_id, loss, rates, device, job, report, measure)
    return outcome | {"learning_rate": rate}


def measure_accuracy(
    network: Any, rows: LabelledTexts, labels: list[str], prompt: str
) -> tuple[str, Callable[[], float]] | None:
    """The name of the figure that may end a training early, and what measures it; None without rows."""
    if not rows.texts:
        return None

    def compute() -> float:
        logits = network.encode(rows.texts, prompt=prompt, show_progress_bar=False)
        return compare_labels(rows.labels, [labels[place] for place in logits.argmax(axis=1).tolist()]).accuracy

    return "accuracy", compute


def _summary(before: LabelMeasures | None, after: LabelMeasures | None, rows: LabelledRows) -> str:
    if after is None:
        return f"trained on {len(rows.train.texts):,} rows, not measured"
    was = f"{before.accuracy:.2f} -> " if before else ""
    return (
        f"accuracy {was}{after.accuracy:.2f}, macro F1 {after.macro_f1:.2f} on {len(rows.evaluation.texts):,} rows"
    )
