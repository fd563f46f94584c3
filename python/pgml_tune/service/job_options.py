"""The options of the procedures that start jobs: each declared once, with its default and its range."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pgml_tune.engine.way import ENGINES
from pgml_tune.errors import InvalidArgument
from pgml_tune.records import is_valid_name
from pgml_tune.service.options import parse_options

_LONGEST_TEXT = 10_000


@dataclass(frozen=True, slots=True)
class Option:
    """One key of `options`: a value that does not fit is refused with what would."""

    name: str
    default: Any
    valid: str
    meaning: str
    fits: Callable[[Any], bool]

    def check(self, value: Any) -> Any:
        """`value` itself, if it fits; null means the default."""
        if value is None:
            return self.default
        if not self.fits(value):
            raise InvalidArgument(f'invalid value for option "{self.name}"', detail=f"Valid are: {self.valid}.")
        return value


def _is_integer(value: Any, lowest: int, highest: int) -> bool:
    return type(value) is int and lowest <= value <= highest


def _is_number(value: Any, lowest: float, highest: float) -> bool:
    return type(value) in (int, float) and lowest <= value <= highest and math.isfinite(value)


def _integer(name: str, default: int | None, lowest: int, highest: int, meaning: str) -> Option:
    return Option(name, default, f"{lowest} .. {highest}", meaning, lambda value: _is_integer(value, lowest, highest))


def _number(name: str, default: float | None, lowest: float, highest: float, meaning: str) -> Option:
    return Option(
        name, default, f"{lowest:g} .. {highest:g}", meaning, lambda value: _is_number(value, lowest, highest)
    )


def _word(name: str, default: str | None, words: tuple[str, ...], meaning: str) -> Option:
    return Option(name, default, " | ".join(words), meaning, lambda value: type(value) is str and value in words)


def _flag(name: str, default: bool, meaning: str) -> Option:
    return Option(name, default, "true | false", meaning, lambda value: type(value) is bool)


def _text(name: str, meaning: str) -> Option:
    valid = f"a text of at most {_LONGEST_TEXT} characters"
    return Option(name, None, valid, meaning, lambda value: type(value) is str and len(value) <= _LONGEST_TEXT)


def _name(name: str, meaning: str) -> Option:
    return Option(name, None, "a name", meaning, lambda value: type(value) is str and is_valid_name(value))


def _query(name: str, meaning: str) -> Option:
    return Option(name, None, "a query", meaning, lambda value: type(value) is str and bool(value.strip()))


def _list(
    name: str, valid: str, meaning: str, is_item: Callable[[Any], bool], longest: int, default: Any = None
) -> Option:
    def fits(value: Any) -> bool:
        return type(value) is list and 1 <= len(value) <= longest and all(map(is_item, value))

    return Option(name, default, valid, meaning, fits)


_LORA = {
    "r": lambda value: _is_integer(value, 1, 256),
    "alpha": lambda value: _is_number(value, 1e-3, 1024),
    "dropout": lambda value: _is_number(value, 0, 0.9),
    "target_modules": lambda value: (
        type(value) is list
        and 1 <= len(value) <= 64
        and all(type(item) is str and 1 <= len(item) <= 200 for item in value)
    ),
}


def _is_lora(value: Any) -> bool:
    return type(value) is dict and set(value) <= set(_LORA) and all(_LORA[key](entry) for key, entry in value.items())


def _is_shape(value: Any) -> bool:
    bounds = {"min", "opt", "max"}
    if type(value) is not dict or set(value) != bounds:
        return False
    if not all(type(value[bound]) is list and len(value[bound]) == 2 for bound in bounds):
        return False
    pairs = zip(value["min"], value["opt"], value["max"], strict=True)
    return all(
        all(_is_integer(size, 1, 65536) for size in sizes) and sizes[0] <= sizes[1] <= sizes[2] for sizes in pairs
    )


_REFINE = {
    "rounds": lambda value: _is_integer(value, 1, 10),
    "samples": lambda value: _is_integer(value, 1, 64),
    "temperature": lambda value: _is_number(value, 0.05, 5),
}
_PROMPT = {
    "schema": lambda value: value in ("full", "linked", "none"),
    "values": lambda value: value in ("placeholder", "hint", "none"),
}


def _fits(keys: dict[str, Callable[[Any], bool]]) -> Callable[[Any], bool]:
    """Whether a value is an object with some of these keys, each with what fits it."""
    return lambda value: (
        type(value) is dict
        and set(value) <= set(keys)
        and all(type(entry) is not list and keys[key](entry) for key, entry in value.items())
    )


_SCRATCH = ("scratch:tiny", "scratch:small", "scratch:base")


def _is_base(value: Any) -> bool:
    if type(value) is not str:
        return False
    name, _, version = value.partition("@")
    return value in _SCRATCH or (is_valid_name(name) and is_valid_name(version))


_THREADS = _integer("threads", 0, 0, 1024, "Cores to use; 0 means the setting job_threads.")
_DESCRIPTION = _text("description", "A line about the new version, for people.")
_NEW_VERSION = _name("new_version", "Name of the new version; by default the next of v1, v2, ...")
_TRAINING = (
    _integer("seed", 42, 0, 2**32 - 1, "The same seed and rows give the same order and the same start."),
    _integer("max_seq_length", None, 8, 8192, "Tokens read of each text, at most what the model reads."),
    _number("warmup", 0.1, 0, 1, "Share of the steps in which the learning rate grows to its height."),
    _number("weight_decay", 0.01, 0, 1, "Pull of the weights towards zero (AdamW)."),
    _number(
        "eval_share",
        None,
        0,
        0.5,
        "Share of the rows held out for measuring; 0.1 by default, unless there is an eval_query.",
    ),
    _integer("early_stopping", 0, 0, 100, "Measurements without gain after which training ends; 0 means never."),
    _word("precision", "fp32", ("fp32", "bf16", "fp16"), "Arithmetic of the training."),
    _word("device", "auto", ("auto", "cpu", "cuda"), "Where to train; auto takes a GPU where there is one."),
    _THREADS,
    _DESCRIPTION,
)
OPTIONS: dict[str, tuple[Option, ...]] = {
    "import_model": (
        _list(
            "quantize",
            "a list of int8_dynamic, int8_block",
            "Also add these 8-bit versions, VERSION-int8 and VERSION-int8-block.",
            lambda value: value in ("int8_dynamic", "int8_block"),
            2,
            [],
        ),
        _THREADS,
        _DESCRIPTION,
    ),
    "finetune_sbert": (
        _word(
            "loss",
            None,
            ("cosine", "cosent", "mnrl", "cached_mnrl", "triplet", "contrastive"),
            "By default the first of those that fit the rows.",
        ),
        _integer("epochs", 1, 1, 100, "Times that all rows are seen."),
        _integer("batch_size", 16, 2, 4096, "Rows per step."),
        _number("learning_rate", None, 1e-8, 1, "Peak learning rate; 2e-5, or 1e-3 with lora."),
        Option(
            "lora",
            None,
            '{"r": 1 .. 256, "alpha": 0.001 .. 1024, "dropout": 0 .. 0.9, "target_modules": [names]}; any of them',
            "Train low-rank additions instead of the weights; merged before export.",
            _is_lora,
        ),
        _list(
            "matryoshka",
            "a list of 1 to 16 dimensions",
            "Also train these first dimensions of the vectors to be of use alone.",
            lambda value: _is_integer(value, 1, 16000),
            16,
        ),
        _integer("hard_negatives", 0, 0, 20, "Near but wrong answers mined for each row (anchor, positive)."),
        *_TRAINING,
    ),
    "finetune_classifier": (
        _integer("epochs", 4, 1, 100, "Times that all rows are seen."),
        _integer("batch_size", 32, 2, 4096, "Rows per step."),
        _number("learning_rate", None, 1e-8, 1, "Peak learning rate; 1e-4, or 2e-3 with freeze_encoder."),
        _flag("freeze_encoder", False, "Train the head alone: fast, and less accurate."),
        _NEW_VERSION,
        *_TRAINING,
    ),
    "finetune_text_to_sql": (
        Option(
            "base",
            None,
            f"{' | '.join(_SCRATCH)} | name@version",
            "What to start from; by default the model's own version, and scratch:small where there is no such model.",
            _is_base,
        ),
        _integer("epochs", None, 1, 1000, "Times that all rows are seen; 60 from scratch, else 10."),
        _integer("batch_size", 16, 2, 4096, "Rows per step."),
        _number("learning_rate", None, 1e-8, 1, "Peak learning rate; 2e-3 from scratch, else 3e-4."),
        _integer(
            "max_seconds", None, 10, 10_000_000, "Training ends after so long, the learning rate having run down."
        ),
        _integer("vocabulary_size", 1200, 300, 64_000, "Most tokens of a model from scratch; few rows need fewer."),
        _flag(
            "augment",
            True,
            "Vary the questions: other values of the column, synonyms learnt from the rows, words left out.",
        ),
        Option(
            "refine",
            None,
            '{"rounds": 1 .. 10, "samples": 1 .. 64, "temperature": 0.05 .. 5}; any of them',
            "Train on with what the model itself writes and what gives the right rows; 1, 8 and 0.8 where left out.",
            _fits(_REFINE),
        ),
        Option(
            "prompt",
            None,
            '{"schema": "full" | "linked" | "none", "values": "placeholder" | "hint" | "none"}; any of them',
            "What the model is shown; by default as its base was, none and placeholder from scratch.",
            _fits(_PROMPT),
        ),
        *_TRAINING,
    ),
    "distill_model": (
        _number("temperature", 4.0, 0.1, 100, "Softens the probabilities of both models."),
        _number("alpha", 0.7, 0, 1, "Share of the teacher in the loss; the rest is the label's."),
        _word("vocabulary", "full", ("full", "rows"), "rows keeps only the tokens of the training rows."),
        _name("new_model", "Name of the student; TEACHER-distilled by default."),
        _NEW_VERSION,
        _integer("epochs", 5, 1, 100, "Times that all rows are seen."),
        _integer("batch_size", 32, 2, 4096, "Rows per step."),
        _number("learning_rate", 1e-4, 1e-8, 1, "Peak learning rate."),
        *_TRAINING,
    ),
    "quantize_model": (
        _name("new_version", "Name of the new version; VERSION-int8 and the like by default."),
        _query("eval_query", "Rows to measure the loss on."),
        _number("max_loss", 0.5, 0, 100, "Points that the metric of eval_query may lose."),
        _word(
            "calibration_method",
            "minmax",
            ("minmax", "percentile", "entropy"),
            "How int8_static finds ranges of values.",
        ),
        _THREADS,
        _DESCRIPTION,
    ),
    "export_onnx": (
        _integer("opset", None, 18, 23, "Version of ONNX's operators; by default the latest that runs."),
        _word("optimize", "none", ("none", "basic", "extended", "all"), "Rewriting of the graph ahead of its use."),
        _name("new_version", "Name of the new version; VERSION-opsetN by default."),
        _THREADS,
        _DESCRIPTION,
    ),
    "export_tensorrt": (
        Option(
            "shapes",
            {"min": [1, 8], "opt": [16, 64], "max": [64, 256]},
            '{"min": [texts, tokens], "opt": [...], "max": [...]}, none above the next',
            "Shapes of batches that the engine takes, and the one that it is tuned for.",
            _is_shape,
        ),
        _integer("workspace_bytes", 1 << 30, 1 << 20, 1 << 40, "Memory of the GPU that building may use."),
        _word("builder", "auto", ("auto", "tensorrt", "tensorrt_rtx"), "The library that builds and runs it."),
        _flag("timing_cache", True, "Keep the timings of kernels for the next build."),
        _name("new_version", "Name of the new version; VERSION-trt-DTYPE by default."),
        _DESCRIPTION,
    ),
    "evaluate_model": (
        _integer("k", 10, 1, 1000, "How many of the nearest count in ndcg@k, recall@k and mrr@k."),
        _integer("batch_size", 32, 1, 4096, "Texts per run of the model."),
        _THREADS,
    ),
    "tune_engine": (
        _number("min_cosine", 0.99999, 0.9, 1, "How well its vectors must agree with those of a session."),
        _list(
            "engines",
            f"a list of {', '.join(ENGINES)}",
            "What to try; by default all that the machine has.",
            lambda value: type(value) is str and value in ENGINES,
            len(ENGINES),
        ),
        _number("seconds", 30, 1, 3600, "Time for the measurements of speed together."),
        _integer("texts", 256, 32, 4096, "Texts that are measured on, out of Python's documentation."),
    ),
}


def parse_job_options(kind: str, text: str | None) -> dict[str, Any]:
    """Every option of a kind of job: as given, or its default."""
    options = OPTIONS[kind]
    example = "'threads', 2" if _THREADS in options else "'description', 'a text'"
    given = parse_options(text, [option.name for option in options], example)
    return {option.name: option.check(given.get(option.name)) for option in options}


def check_parameters(kind: str, parameters: dict[str, Any]) -> None:
    """Refuse parameters whose options the procedure would have refused: whoever may CALL may also add a job by hand."""
    options = OPTIONS.get(kind, ())
    if not options or not {option.name for option in options} <= set(parameters):
        raise InvalidArgument("the parameters of the job are not those of its procedure")
    for option in options:
        if parameters[option.name] != option.default:
            option.check(parameters[option.name])
