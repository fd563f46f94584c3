"""What every training has: settings of the trainer, and callbacks that report, stop early and refuse a wrong loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.reports import Reporter

_ALL_WARMUP = 0.999999  # the trainer takes 1 for one step


def prepare(job: Job) -> None:
    """Make what follows depend on the seed alone, and use the threads that the job may."""
    torch.set_num_threads(job.thread_count)
    set_seed(job.parameters["seed"])


def token_limit(job: Job, max_tokens: int) -> int:
    """The tokens that are read of each text while training: as many as the model reads, or as the caller says."""
    wanted: int | None = job.parameters["max_seq_length"]
    if wanted is not None and wanted > max_tokens:
        raise InvalidArgument(f'option "max_seq_length" is {wanted}, the model reads {max_tokens} tokens')
    return wanted or max_tokens


def settings(job: Job, device: str, learning_rate: float, folder: Path) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments; the trainer neither prints nor sends nor saves anything."""
    parameters = job.parameters
    return {
        "output_dir": str(folder),
        "num_train_epochs": parameters["epochs"],
        "per_device_train_batch_size": parameters["batch_size"],
        "learning_rate": learning_rate,
        "warmup_steps": min(parameters["warmup"], _ALL_WARMUP),
        "weight_decay": parameters["weight_decay"],
        "seed": parameters["seed"],
        "data_seed": parameters["seed"],
        "bf16": parameters["precision"] == "bf16",
        "fp16": parameters["precision"] == "fp16",
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "eval_strategy": "no",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # which would show the mean of the steps before
    }


class Watch(TrainerCallback):  # type: ignore[misc]
    """Reports each step, and ends a training whose loss is no number any more."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._metric: str | None = None
        self._value: float | None = None
        self.loss: float | None = None

    def measured(self, metric: str, value: float | None) -> None:
        """Show this figure from now on."""
        self._metric, self._value = metric, value

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **rest: Any) -> None:
        if logs is None or "loss" not in logs:
            return
        self.loss = float(logs["loss"])
        if not math.isfinite(self.loss):
            refuse_loss(state.global_step)
        self._report.progress(
            "training",
            step=state.global_step,
            steps=state.max_steps,
            loss=self.loss,
            metric=self._metric,
            value=self._value,
        )


def check_weights(network: Any, step: int) -> None:
    """Refuse a network whose weights are no numbers any more, which the last step may have done."""
    if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
        refuse_loss(step)


def refuse_loss(step: int) -> None:
    """Say that training went astray."""
    raise InvalidArgument(
        f"the loss is not a number after step {step}",
        detail="The weights have grown beyond all bounds.",
        hint="Use a smaller learning_rate, more warmup, or the precision fp32.",
    )


class EarlyStopping(TrainerCallback):  # type: ignore[misc]
    """Measures during training, stops when nothing is gained any more, and takes the best weights in the end."""

    def __init__(
        self, network: Any, measure: Callable[[], float], show: Callable[[float], None], patience: int, every: int
    ) -> None:
        self._network = network
        self._measure = measure
        self._show = show
        self._patience = patience
        self._every = every
        self._best = -math.inf
        self._misses = 0
        self._weights: dict[str, torch.Tensor] = {}
        self.best_step = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self._every and state.global_step != state.max_steps:
            return
        value = self._measure()
        self._show(value)
        if value > self._best:
            self._best, self._misses, self.best_step = value, 0, state.global_step
            self._weights = {name: weight.detach().cpu().clone() for name, weight in self._trained()}
        else:
            self._misses += 1
            control.should_training_stop = self._misses >= self._patience

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        with torch.no_grad():
            for name, weight in self._trained():
                weight.copy_(self._weights.get(name, weight))

    def _trained(self) -> list[tuple[str, Any]]:
        return [(name, weight) for name, weight in self._network.named_parameters() if weight.requires_grad]
