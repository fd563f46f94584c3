"""Fine-tunes an embedding model on rows of texts, and publishes it as a model in a space of its own."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import PrinterCallback

from pgml_tune.engine.artifact import Artifact
from pgml_tune.errors import InvalidArgument, NotSupported
from pgml_tune.jobs import pairs, training
from pgml_tune.jobs.checkpoints import publish_trained, take
from pgml_tune.jobs.device import choose_device
from pgml_tune.jobs.job import Job, texts_of
from pgml_tune.jobs.lora import Adapters, count_parameters
from pgml_tune.jobs.losses import IN_BATCH, choose_loss, make_loss
from pgml_tune.jobs.measuring import BATCH, measure_artifact
from pgml_tune.jobs.model import load
from pgml_tune.jobs.parity import Vectors
from pgml_tune.jobs.publishing import Site
from pgml_tune.jobs.quality import main_figure, measure_vectors
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.shares import DEFAULT_SHARE, hold_out
from pgml_tune.records import ArtifactConfig

_LEARNING_RATE, _LORA_LEARNING_RATE = 2e-5, 1e-3
_MEASURED_PER_EPOCH = 4  # with early stopping
_K = 10


@dataclass(frozen=True, slots=True)
class _Data:
    """Rows to train with, and rows to measure with."""

    train: list[list[Any]]
    shape: str
    evaluation: list[list[Any]]
    evaluation_shape: str
    part: str  # "eval", or "train" where a share of it is held out


class _Trainer(SentenceTransformerTrainer):  # type: ignore[misc]
    """Makes no model card: it would quote the rows."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        pass


def run(job: Job, report: Reporter) -> dict[str, Any]:
    """Train, export and publish; measure before and after."""
    started = time.monotonic()
    device = choose_device(job.parameters["device"], job.parameters["precision"])
    data, base, model = _read(job), job.artifact("model"), job.models["model"]
    config = base.config()
    if config.task != "embedding":
        raise NotSupported(f'model "{model.reference}" makes no embeddings', detail=f"Its task is {config.task}.")
    if job.parameters["early_stopping"] and not data.evaluation:
        raise InvalidArgument(
            'option "early_stopping" needs rows to measure with', hint="Pass an eval_query, or an eval_share above 0."
        )
    loss_name = choose_loss(data.shape, job.parameters["loss"])
    truncated = _count_truncated(job, base, data, report)
    before = _measure(model.reference, base, data, job, report)
    training.prepare(job)
    report.progress("loading the model")
    network = load(take(job, "model", job.scratch("base"))).network
    outcome = _train(network, loss_name, data, config, device, job, report)
    saved = _save(network, job)
    del network
    gc.collect()
    name = str(config.source.get("name", model.reference))
    artifact = publish_trained(saved, "embedding", name, model.reference, job, Site.of(job, report))
    after = _measure("new", artifact, data, job, report)
    figure = main_figure(data.evaluation_shape, _K) if data.evaluation else None
    return {
        "summary": _summary(figure, before, after, data),
        **outcome,
        "loss": loss_name,
        "shape": data.shape,
        "device": device,
        "train_rows": len(data.train),
        "eval_rows": len(data.evaluation),
        "held_out": data.part == "train" and bool(data.evaluation),
        "truncated_texts": truncated,
        "metric": figure,
        "before": before.get(figure or ""),
        "after": after.get(figure or ""),
        "seconds": round(time.monotonic() - started, 1),
    }


def _summary(figure: str | None, before: dict[str, float], after: dict[str, float], data: _Data) -> str:
    if figure is None or figure not in after or figure not in before:
        return f"trained on {len(data.train):,} rows, not measured"
    held_out = " held out" if data.part == "train" else ""
    return f"{figure} {before[figure]:.2f} -> {after[figure]:.2f} on {len(data.evaluation):,} rows{held_out}"


def _read(job: Job) -> _Data:
    rows, given = list(job.rows["train"].read()), job.rows.get("eval")
    shape, share = job.rows["train"].shape, job.parameters["eval_share"]
    if given is not None:
        return _Data(rows, shape, list(given.read()), given.shape, "eval")
    train, held = hold_out(rows, DEFAULT_SHARE if share is None else share, job.parameters["seed"])
    return _Data(train, shape, held, shape, "train")


def _count_truncated(job: Job, base: Artifact, data: _Data, report: Reporter) -> int:
    limit = training.token_limit(job, base.config().max_tokens)
    texts = texts_of([*data.train, *data.evaluation])
    longer, count = pairs.count_long(texts, base.path("tokenizer.json"), limit)
    if longer:
        report.log(f"{longer:,} of {count:,} texts are longer than the {limit:,} tokens the model reads and are cut")
    return longer


def _measure(of: str, artifact: Artifact, data: _Data, job: Job, report: Reporter) -> dict[str, float]:
    """Figures of the exported model, as it will serve."""
    if not data.evaluation:
        return {}
    report.progress("evaluating")
    figures = measure_artifact(artifact, data.evaluation, data.evaluation_shape, _K, job.thread_count)
    rows = len(data.evaluation) if data.part == "train" else None
    report.evaluation(of, artifact.digest, data.part, figures, rows)
    return figures


def _train(
    network: Any, loss_name: str, data: _Data, config: ArtifactConfig, device: str, job: Job, report: Reporter
) -> dict[str, Any]:
    parameters = job.parameters
    max_tokens = network.max_seq_length
    network.max_seq_length = training.token_limit(job, config.max_tokens)
    dataset = pairs.make_dataset(data.train, data.shape)
    if parameters["hard_negatives"]:
        if data.shape != "pair":
            raise InvalidArgument(
                'option "hard_negatives" does not fit the rows',
                detail=f"Negatives are mined for rows (anchor, positive); the shape of these is {data.shape}.",
            )
        dataset = pairs.mine_negatives(dataset, network, parameters["hard_negatives"], config, report)
    adapters = Adapters(network[0].auto_model, parameters["lora"]) if parameters["lora"] is not None else None
    trained, total = count_parameters(network)
    rate = parameters["learning_rate"] or (_LORA_LEARNING_RATE if adapters else _LEARNING_RATE)
    watch = training.Watch(report)
    trainer = _Trainer(
        model=network,
        args=SentenceTransformerTrainingArguments(
            **training.settings(job, device, rate, job.scratch("trainer")),
            prompts=pairs.prompts(config) or None,
            batch_sampler="no_duplicates" if loss_name in IN_BATCH else "batch_sampler",
        ),
        train_dataset=dataset,
        loss=make_loss(loss_name, network, parameters["matryoshka"]),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    if parameters["early_stopping"]:
        trainer.add_callback(_early_stopping(network, data, config, watch, parameters, len(dataset)))
    report.progress("training")
    trainer.train()
    network.cpu()
    if adapters:
        adapters.merge()
    training.check_weights(network, trainer.state.global_step)
    network.max_seq_length = max_tokens
    return {
        "steps": trainer.state.global_step,
        "last_loss": watch.loss,
        "learning_rate": rate,
        "trained_parameters": trained,
        "parameters": total,
    }


def _early_stopping(
    network: Any, data: _Data, config: ArtifactConfig, watch: training.Watch, parameters: Any, row_count: int
) -> training.EarlyStopping:
    figure = main_figure(data.evaluation_shape, _K)

    def embed(texts: Sequence[str], kind: str) -> Vectors:
        vectors: Vectors = network.encode(
            list(texts), prompt=config.prompt(kind), batch_size=BATCH, show_progress_bar=False
        )
        return vectors

    def measure() -> float:
        return measure_vectors(embed, data.evaluation, data.evaluation_shape, _K).get(figure, float("-inf"))

    every = max(1, row_count // parameters["batch_size"] // _MEASURED_PER_EPOCH)
    return training.EarlyStopping(
        network, measure, lambda value: watch.measured(figure, value), parameters["early_stopping"], every
    )


def _save(network: Any, job: Job) -> Path:
    folder = job.scratch("trained")
    with torch.no_grad():
        network.save_pretrained(str(folder), create_model_card=False, safe_serialization=True)
    return folder
