"""Trains a loaded network on tokens, with a loss of any kind on its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from pgml_tune.engine.padding import pad
from pgml_tune.engine.tokenizer import Tokens
from pgml_tune.jobs import training
from pgml_tune.jobs.export import Graph
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.reports import Reporter

HEAD_FACTOR = 20  # a layer that begins at random has further to go than one that knows something
Loss = Callable[[Any, Any], Any]  # of the network's output and the numbers of its rows


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast the weights change; those whose name begins with `head` may have a rate of their own."""

    encoder: float
    head: float
    head_name: str = "\0"  # no name begins so

    def of(self, name: str) -> float:
        return self.head if name.startswith(self.head_name) else self.encoder


class _Learner(torch.nn.Module):  # type: ignore[misc]
    """The network and its loss, as the trainer wants them."""

    def __init__(self, network: Any, loss: Loss) -> None:
        super().__init__()
        self.graph = Graph(network)
        self.loss = loss

    def forward(self, input_ids: Any, attention_mask: Any, rows: Any) -> dict[str, Any]:
        return {"loss": self.loss(self.graph(input_ids, attention_mask), rows)}


def learn(
    network: Any,
    examples: Sequence[Tokens],
    pad_token_id: int,
    loss: Loss,
    rates: Rates,
    device: str,
    job: Job,
    report: Reporter,
    measure: tuple[str, Callable[[], float]] | None = None,
) -> dict[str, Any]:
    """Train on examples, whose places in the sequence are the rows that `loss` is told; says how it went.

    `measure` is the name of a figure and what measures it, for a job that is to stop early.
    """

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
        token_ids, mask = pad([example["input_ids"] for example in batch], pad_token_id)
        rows = [example["row"] for example in batch]
        return {
            "input_ids": torch.from_numpy(token_ids),
            "attention_mask": torch.from_numpy(mask),
            "rows": torch.tensor(rows),
        }

    learner = _Learner(network, loss).to(device)
    watch = training.Watch(report)
    trainer = Trainer(
        model=learner,
        args=TrainingArguments(
            **training.settings(job, device, rates.encoder, job.scratch("trainer")),
            train_sampling_strategy="group_by_length",  # little is padded
            remove_unused_columns=False,
        ),
        data_collator=collate,
        train_dataset=[{"input_ids": tokens.ids, "row": row} for row, tokens in enumerate(examples)],
        optimizers=(_optimizer(network, rates, job.parameters["weight_decay"]), None),
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    if measure is not None and job.parameters["early_stopping"]:
        name, compute = measure
        epoch = -(-len(examples) // job.parameters["batch_size"])
        stopping = training.EarlyStopping(
            network, compute, lambda value: watch.measured(name, value), job.parameters["early_stopping"], epoch
        )
        trainer.add_callback(stopping)
    report.progress("training")
    trainer.train()
    network.cpu()
    training.check_weights(network, trainer.state.global_step)
    return {"steps": trainer.state.global_step, "last_loss": watch.loss}


def _optimizer(network: Any, rates: Rates, weight_decay: float) -> Any:
    groups = [
        {"params": [weight], "lr": rates.of(name), "weight_decay": decay}
        for name, weight, decay in _weights(network, weight_decay)
    ]
    return torch.optim.AdamW(groups, fused=True)


def _weights(network: Any, weight_decay: float) -> Iterator[tuple[str, Any, float]]:
    """What is trained; biases and the scales of normalisations are not pulled towards zero."""
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            yield name, weight, weight_decay if weight.ndim > 1 else 0.0
