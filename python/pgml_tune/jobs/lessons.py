"""What a student learns from its teacher, and how well it has learned it: one class for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from pgml_tune.engine.artifact import Artifact
from pgml_tune.engine.tokenizer import Tokens
from pgml_tune.errors import InvalidArgument
from pgml_tune.jobs import training
from pgml_tune.jobs.finetune_classifier import measure_accuracy
from pgml_tune.jobs.job import Job
from pgml_tune.jobs.label_metrics import measure_labels
from pgml_tune.jobs.label_rows import read_labelled
from pgml_tune.jobs.measuring import measure_artifact
from pgml_tune.jobs.model import Model
from pgml_tune.jobs.parity import Vectors, cosines
from pgml_tune.jobs.quality import main_figure
from pgml_tune.jobs.reports import Reporter
from pgml_tune.jobs.runner import Runner
from pgml_tune.jobs.shares import DEFAULT_SHARE, hold_out
from pgml_tune.jobs.tokens import tokenize

Figures = dict[str, float]
_AT_ONCE = 2048  # texts that the teacher answers before its answers are written
_SAMPLE = 256
_K = 10
_FULL = 100.0


class Lessons(Protocol):
    """Examples, the loss on them, and the measurements."""

    examples: list[Tokens]
    part: str  # of the job's rows that are measured with: "eval", or "train" where a share of it is held out
    evaluated: int  # how many they are
    metric: str  # the figure that matters most

    def texts_with(self, prompt_passage: str, prompt_query: str) -> Iterable[str]:
        """The texts to learn from, as a student with these prompts reads them."""
        ...

    def prepare(self, student: Model, report: Reporter) -> int:
        """Ask the teacher and make the examples; says how many texts are longer than the student reads."""
        ...

    def loss(self, output: Any, rows: Any) -> Any:
        """How far the student's output is from what it should be."""
        ...

    def measure_with(self, network: Any) -> tuple[str, Callable[[], float]] | None:
        """The name of a figure and what measures it while the student learns."""
        ...

    def quality(self, role: str, artifact: Artifact) -> tuple[Figures, Figures]:
        """The figures of an exported model, and its details."""
        ...

    def sample(self) -> list[str]:
        """Some of the texts, to measure the speed on."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the result of the job says of the rows."""
        ...


class ClassifierLessons:
    """The teacher's probabilities at a temperature, and the labels of the rows (Hinton, Vinyals & Dean 2015)."""

    metric = "accuracy"

    def __init__(self, job: Job, teacher: Artifact) -> None:
        self._job, self._teacher, self._config = job, teacher, teacher.config()
        self._rows = read_labelled(job)
        self.part, self.evaluated = self._rows.part, len(self._rows.evaluation.texts)
        self.examples: list[Tokens] = []
        places = {label: place for place, label in enumerate(self._config.labels)}
        unknown = sorted(set(self._rows.train.labels) - set(places))
        if unknown:
            raise InvalidArgument(
                f'the teacher does not know label "{unknown[0]}" of the train query',
                detail=f"{len(unknown)} labels of the rows are none of its {len(places)}.",
                hint="Fine-tune the teacher on these rows first.",
            )
        self._targets = torch.tensor([places[label] for label in self._rows.train.labels])
        self._answers: Any = None
        self._prompt = ""  # the student's
        self._temperature, self._alpha = float(job.parameters["temperature"]), float(job.parameters["alpha"])

    def texts_with(self, prompt_passage: str, prompt_query: str) -> Iterable[str]:
        return (prompt_passage + text for text in self._rows.train.texts)

    def prepare(self, student: Model, report: Reporter) -> int:
        self._prompt = student.prompt_passage
        prompted = [self._config.prompt_passage + text for text in self._rows.train.texts]
        self._answers = _answers(self._job, self._teacher, prompted, report)
        parts = [self._rows.train.texts, self._rows.evaluation.texts]
        tokenized = tokenize(
            _tokenizer_file(self._job, student),
            training.token_limit(self._job, student.max_tokens),
            student.prompt_passage,
            parts,
        )
        self.examples = tokenized.parts[0]
        return tokenized.report_cut(report)

    def loss(self, output: Any, rows: Any) -> Any:
        answers, labels = _rows_of(self._answers, rows), self._targets[rows.cpu()]
        device = output.device
        return distillation_loss(
            output.float(), answers.to(device), labels.to(device), self._temperature, self._alpha
        )

    def measure_with(self, network: Any) -> tuple[str, Callable[[], float]] | None:
        return measure_accuracy(network, self._rows.evaluation, self._config.labels, self._prompt)

    def quality(self, role: str, artifact: Artifact) -> tuple[Figures, Figures]:
        rows = self._rows.evaluation
        if not rows.texts:
            return {}, {}
        config = artifact.config()
        runner = Runner(artifact.folder, config, self._job.thread_count)
        found = measure_labels(runner, config, rows)
        return found.figures(), found.all_figures()

    def sample(self) -> list[str]:
        return self._rows.train.texts[:_SAMPLE]

    def facts(self) -> dict[str, Any]:
        return {
            "train_rows": len(self._rows.train.texts),
            "eval_rows": self.evaluated,
            "held_out": self._rows.is_held_out,
            "label_count": len(self._config.labels),
        }


class EmbedderLessons:
    """The teacher's vectors, to be met as closely as possible (Reimers & Gurevych 2020)."""

    def __init__(self, job: Job, teacher: Artifact) -> None:
        self._job, self._teacher, self._config = job, teacher, teacher.config()
        rows, given = list(job.rows["train"].read()), job.rows.get("eval")
        share = job.parameters["eval_share"]
        if share is None:
            share = DEFAULT_SHARE if given is None else 0.0
        train, held_out = hold_out(rows, share, job.parameters["seed"])
        self._texts = [str(row[0]) for row in train]
        self._held_out = [] if given else [str(row[0]) for row in held_out]
        self._pairs = list(given.read()) if given else []
        self._shape = given.shape if given else ""
        self.part, self.evaluated = ("eval", len(self._pairs)) if given else ("train", len(self._held_out))
        self.metric = main_figure(self._shape, _K) if given else "teacher_cosine"
        self.examples: list[Tokens] = []
        self._answers: Any = None
        self._prompt = ""  # the student's

    def texts_with(self, prompt_passage: str, prompt_query: str) -> Iterable[str]:
        prompts = dict.fromkeys((prompt_passage, prompt_query))
        return (prompt + text for prompt in prompts for text in self._texts)

    def prepare(self, student: Model, report: Reporter) -> int:
        self._prompt = student.prompt_passage
        # As a query and as a passage, where these differ for one of the two.
        config = self._config
        kinds = dict.fromkeys(
            [(config.prompt_passage, student.prompt_passage), (config.prompt_query, student.prompt_query)]
        )
        prompted = [prompt + text for prompt, _ in kinds for text in self._texts]
        self._answers = _answers(self._job, self._teacher, prompted, report)
        file, limit = _tokenizer_file(self._job, student), training.token_limit(self._job, student.max_tokens)
        truncated = []
        for _, prompt in kinds:
            tokenized = tokenize(file, limit, prompt, [self._texts])
            self.examples += tokenized.parts[0]
            truncated.append(tokenized)
        return truncated[0].report_cut(report)

    def loss(self, output: Any, rows: Any) -> Any:
        vectors = output.float()
        return (vectors - _rows_of(self._answers, rows).to(vectors.device)).square().sum(dim=1).mean()

    def measure_with(self, network: Any) -> tuple[str, Callable[[], float]] | None:
        if not self._held_out:
            return None
        wanted = self._held_out_vectors(self._teacher)

        def compute() -> float:
            found = network.encode(self._held_out, prompt=self._prompt, show_progress_bar=False)
            return _FULL * float(cosines(wanted, found).mean())

        return self.metric, compute

    def quality(self, role: str, artifact: Artifact) -> tuple[Figures, Figures]:
        if self._pairs:
            return measure_artifact(artifact, self._pairs, self._shape, _K, self._job.thread_count), {}
        if role == "teacher" or not self._held_out:
            return {}, {}
        nearness = cosines(self._held_out_vectors(self._teacher), self._held_out_vectors(artifact))
        return {self.metric: round(_FULL * float(nearness.mean()), 4)}, {}

    def sample(self) -> list[str]:
        return self._texts[:_SAMPLE]

    def facts(self) -> dict[str, Any]:
        return {
            "train_rows": len(self._texts),
            "eval_rows": self.evaluated,
            "held_out": bool(self._held_out),
            "dimensions": self._config.dimensions,
        }

    def _held_out_vectors(self, artifact: Artifact) -> Vectors:
        config = artifact.config()
        runner = Runner(artifact.folder, config, self._job.thread_count)
        vectors: Vectors = runner.embed_sorted([config.prompt_passage + text for text in self._held_out])
        return vectors


def distillation_loss(student: Any, teacher: Any, labels: Any, temperature: float, alpha: float) -> Any:
    """alpha * temperature^2 * KL(teacher || student) of the softened probabilities + (1 - alpha) * cross entropy."""
    softened, wanted = (functional.log_softmax(logits / temperature, dim=1) for logits in (student, teacher))
    divergence = functional.kl_div(softened, wanted, reduction="batchmean", log_target=True)
    # The gradients of softened probabilities shrink with the square of the temperature.
    return alpha * temperature**2 * divergence + (1 - alpha) * functional.cross_entropy(student, labels)


def _answers(job: Job, teacher: Artifact, prompted: list[str], report: Reporter) -> Any:
    """What the teacher says to each text; in a file, because they may be many and long."""
    config = teacher.config()
    runner = Runner(teacher.folder, config, job.thread_count)
    file = job.scratch("answers") / "answers"
    with file.open("xb") as stream:
        for start in range(0, len(prompted), _AT_ONCE):
            report.progress("asking the teacher", step=start, steps=len(prompted))
            stream.write(runner.embed_sorted(prompted[start : start + _AT_ONCE]).tobytes())
    return np.memmap(file, np.float32, "r", shape=(len(prompted), config.dimensions))


def _rows_of(answers: Any, rows: Any) -> Any:
    return torch.from_numpy(np.array(answers[rows.cpu().numpy()]))


def _tokenizer_file(job: Job, student: Model) -> Path:
    file = job.scratch("tokenizer") / "tokenizer.json"
    file.write_text(student.tokenizer_json, encoding="utf-8")
    return file
