"""Trains a network to write SQL, and measures it meanwhile by running what it writes."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from pgml_tune.jobs import training
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.sql_metrics import METRIC

_SMOOTHING = 0.1  # of labels: the few rows of one database are soon known by heart
_LEAST_RATE = 0.02  # of the height of the learning rate, at the end
_POOL = 16  # batches that are sorted by length together
_MEASUREMENTS = 6  # while training, where it is not to stop early
Example = tuple[str, str]  # what is read and what is to be written


@dataclass(frozen=True, slots=True)
class Course:
    """How long and how fast a network learns."""

    epochs: int
    rate: float
    max_seconds: float | None  # None: as long as it takes


class _Examples(torch.utils.data.Dataset[Any]):  # type: ignore[misc]
    """Examples as tokens; each time one is asked for it may be another variation of it."""

    def __init__(self, count: int, example: Callable[[int], Example], tokenizer: Any, limit: int) -> None:
        self._count = count
        self._example = example
        self._tokenizer = tokenizer
        self._limit = limit

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> dict[str, Any]:
        prompt, output = self._example(place)
        read = self._tokenizer(prompt, truncation=True, max_length=self._limit)
        written = self._tokenizer(text_target=output, truncation=True, max_length=self._limit)
        return {
            "input_ids": read["input_ids"],
            "attention_mask": read["attention_mask"],
            "labels": written["input_ids"],
        }


class _Batches(torch.utils.data.Sampler[int]):  # type: ignore[misc]
    """Puts examples of about the same length into a batch, so that little is padded, and the batches in any order.

    A sampler that sorts whole stretches of an epoch teaches long statements first and short ones last.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self._lengths = lengths
        self._size = size
        self._chance = random.Random(seed)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        places = list(range(len(self._lengths)))
        self._chance.shuffle(places)
        last = len(places) - len(places) % self._size
        batches = []
        for start in range(0, last, _POOL * self._size):
            pool = sorted(places[start : min(last, start + _POOL * self._size)], key=lambda place: self._lengths[place])
            batches += [pool[at : at + self._size] for at in range(0, len(pool), self._size)]
        self._chance.shuffle(batches)
        yield from (place for batch in batches for place in batch)
        yield from places[last:]  # fewer than a batch


class _Trainer(Seq2SeqTrainer):  # type: ignore[misc]
    """Takes examples as _Batches gives them."""

    def __init__(self, lengths: Sequence[int], **rest: Any) -> None:
        super().__init__(**rest)
        self._lengths = lengths

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return _Batches(self._lengths, self.args.train_batch_size, self.args.seed)


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Ends a training when its time is over."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._started = time.monotonic()

    def share(self) -> float:
        """How much of the time is over."""
        return 0.0 if self._seconds is None else (time.monotonic() - self._started) / self._seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self._started = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if self.share() >= 1:
            control.should_training_stop = True


class _Measurements(TrainerCallback):  # type: ignore[misc]
    """Measures now and then, to show how training comes on; nothing follows from it."""

    def __init__(self, measure: Callable[[], float], show: Callable[[float], None], every: int) -> None:
        self._measure = measure
        self._show = show
        self._every = every

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self._every == 0 and state.global_step < state.max_steps:
            self._show(self._measure())


def learn_sql(
    network: Any,
    tokenizer: Any,
    count: int,
    example: Callable[[int], Example],
    lengths: Sequence[int],
    course: Course,
    device: str,
    folder: Path,
    job: Job,
    report: Reporter,
    measure: Callable[[], float] | None,
) -> dict[str, Any]:
    """Train on `count` examples, whose outputs have about these lengths; says how it went."""
    parameters = job.parameters
    steps_of_epoch = -(-count // parameters["batch_size"])
    steps = course.epochs * steps_of_epoch
    clock, watch = _Clock(course.max_seconds), training.Watch(report)
    weights = _groups(network, parameters["weight_decay"])
    optimizer = torch.optim.AdamW(weights, lr=course.rate, betas=(0.9, 0.98), fused=True)
    warmup = max(1, round(parameters["warmup"] * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1.0, (step + 1) / warmup) * max(_LEAST_RATE, 1 - max(step / steps, clock.share())),
    )
    callbacks: list[Any] = [watch, clock]
    stopping = None
    if measure is not None and parameters["early_stopping"]:
        stopping = training.EarlyStopping(
            network,
            _resting(network, measure),
            lambda value: watch.measured(METRIC, value),
            parameters["early_stopping"],
            steps_of_epoch * max(1, course.epochs // 20),
        )
        callbacks.append(stopping)
    elif measure is not None:
        every = max(1, math.ceil(steps / _MEASUREMENTS))
        callbacks.append(_Measurements(_resting(network, measure), lambda value: watch.measured(METRIC, value), every))
    settings = training.settings(job, device, course.rate, folder) | {
        "num_train_epochs": course.epochs,
        "label_smoothing_factor": _SMOOTHING,
    }
    trainer = _Trainer(
        lengths=lengths,
        model=network,
        args=Seq2SeqTrainingArguments(**settings, remove_unused_columns=False),
        data_collator=DataCollatorForSeq2Seq(tokenizer, model=network),
        train_dataset=_Examples(count, example, tokenizer, int(tokenizer.model_max_length)),
        optimizers=(optimizer, schedule),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    report.progress("training")
    trainer.train()
    network.cpu().eval()
    training.check_weights(network, trainer.state.global_step)
    return {"steps": trainer.state.global_step, "last_loss": watch.loss}


def _resting(network: Any, measure: Callable[[], float]) -> Callable[[], float]:
    """Measures a network without what is random about it while it learns."""

    def rest_and_measure() -> float:
        was_training = network.training
        network.eval()
        try:
            return measure()
        finally:
            network.train(was_training)

    return rest_and_measure


def _groups(network: Any, weight_decay: float) -> list[dict[str, Any]]:
    """What is trained; biases and the scales of normalisations are not pulled towards zero."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]
