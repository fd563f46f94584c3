"""Measures what runs models on a GPU: see README.md in this folder. It needs no server."""

from __future__ import annotations

import os
import sys
import time

import machine
from command import is_quick, read_command
from gpu_measuring import Measured, Problem, apart, measure, read_texts
from gpu_models import LAYERS, Subject, make_large, make_minilm
from gpu_ways import WAYS, device_name
from places import CHECKOUT, source_folder
from report import Figure, at_least, counted, failed, publish, skipped, spread

_ROOT = CHECKOUT / ".dev" / "bench-gpu"
_MINILM, _LARGE = "minilm", "bert_large"
_TARGETS = {_MINILM: 5000, _LARGE: 1200}  # texts per second
_BEST = "the best of the worker's ways on the GPU"


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    result, parts = read_command(__doc__, "bench-gpu-result.json", [_MINILM, _LARGE])
    sys.path.insert(0, str(CHECKOUT / "python"))
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
    from pgml_tune import __version__

    started = time.monotonic()
    conditions = machine.conditions()
    conditions["versions"]["pgml_tune"] = __version__
    conditions["hardware"]["gpus"] = [device_name()]
    figures: list[Figure] = []
    for part in parts:
        figures += _measure(part)
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": is_quick(),
        "texts": "first sentences of Python's own documentation",
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)


def _measure(part: str) -> list[Figure]:
    """The figures of a model: how fast each way is, and how well it agrees with the CPU."""
    from pgml_tune.jobs.checks import SPACE_COSINE

    print(f"==> making the model: {part}", flush=True)
    name, subject = _make(part)
    if isinstance(subject, Problem):
        return [failed(name, "all ways", subject.reason)]
    texts = apart(read_texts, subject, is_quick())
    if isinstance(texts, Problem):
        return [failed(name, "all ways", texts.reason)]
    title = f"{name}: {len(texts.ids)} short texts, {texts.mean_tokens:.0f} tokens on average"
    figures = [Figure(title, "tokenizer, one thread", texts.per_second, "texts/s")]
    expected = None
    best: dict[str, Measured] = {}
    for way in WAYS:
        print(f"==> measuring: {part}, {way.name}", flush=True)
        found = apart(measure, subject, way, texts, expected, is_quick())
        if isinstance(found, Problem):
            figures.append((skipped if found.is_lack else failed)(title, way.name, found.reason))
            continue
        if expected is None:  # the first way is the one that the others are compared with
            expected = found.vectors
        figures += _figures(title, way.name, found)
        if way.is_worker and way.is_gpu and found.cosine >= SPACE_COSINE:
            best[way.name] = found
    return [*figures, _judge(part, title, best)]


def _make(part: str) -> tuple[str, Subject | Problem]:
    """A model under its name in the table."""
    if part == _MINILM:
        return "all-MiniLM-L6-v2", apart(make_minilm, _ROOT, source_folder())
    layers = LAYERS[is_quick()]
    name = f"An encoder as wide as BERT-large, {layers} layers, random weights"
    return name, apart(make_large, _ROOT, source_folder(), layers)


def _figures(title: str, name: str, found: Measured) -> list[Figure]:
    size, rates = found.best
    others = [f"of {other}: {max(rates):,.0f}" for other, rates in found.rates.items() if other != size]
    note = "; ".join([f"batches of {size}, {counted(found.lanes, 'lane')}, {spread(rates)}", *others])
    return [
        Figure(title, f"{name}: throughput", found.texts_per_second, "texts/s", note=note),
        Figure(title, f"{name}: one text alone", found.latency_ms, "ms"),
        Figure(title, f"{name}: least cosine to the CPU", found.cosine, "", note=f"{found.cosine:.7f}"),
    ]


def _judge(part: str, title: str, best: dict[str, Measured]) -> Figure:
    if not best:
        return skipped(title, _BEST, "none of them was measured, or none computes the same")
    if is_quick():
        return skipped(title, _BEST, "too few texts or layers in a quick run")
    name = max(best, key=lambda name: best[name].texts_per_second)
    note = f"{name}, batches of {best[name].best[0]}"
    return at_least(title, _BEST, best[name].texts_per_second, "texts/s", _TARGETS[part], note)


if __name__ == "__main__":
    main()
