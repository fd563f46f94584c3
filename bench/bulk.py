"""Many texts in one call, two threads for everybody."""

from __future__ import annotations

from statistics import median

import numpy as np
from contenders import Contender, Vectors, fastembed, sentence_transformers
from plan import STORAGES, Plan, in_turns
from report import Figure, at_least, ratio, skipped, spread
from server import FP32, INT8_DYNAMIC, Connection, add_samples, configured, connect, seconds, set_cache

_THREADS = 2
_TORCH, _FAST, _FAST_INT8, _RIVAL = (
    "sentence-transformers",
    "fastembed, fp32 file",
    "fastembed, int8_dynamic file",
    "sentence-transformers in PL/Python, per row",
)
_EMBED = "SELECT cardinality(embed(%s::text[], %s))"
_ROWS = "SELECT count(rival_embed(s.content)) FROM sample AS s WHERE s.purpose = 'bulk'"
_VECTORS = "SELECT v::real[] FROM unnest(embed(%s::text[], %s)) WITH ORDINALITY AS t (v, n) ORDER BY n"
_LARGEST_LOSS = 0.5  # points of Spearman that the fastest precision may lose
_RIVAL_TEXTS = 48


def measure(plan: Plan, losses: dict[str, float]) -> list[Figure]:
    texts = plan.texts.mixed(plan.pick(768, 192))
    rounds = plan.pick(5, 3)
    contenders, failures = _contenders(plan)
    with connect() as connection, configured(connection, "threads", str(_THREADS)):
        set_cache(connection, "off")
        counts = connection.execute(
            "SELECT token_count(t, %s) FROM unnest(%s::text[]) AS t", (plan.reference(FP32), texts)
        )
        tokens = [min(row[0], 256) for row in counts]
        part = (
            f"4. Bulk: {len(texts)} texts of {plan.texts.source}, tokens mean {np.mean(tokens):.0f},"
            f" median {np.median(tokens):.0f}, largest {max(tokens)}; {_THREADS} threads"
        )
        add_samples(connection, "bulk", 0, texts[:: max(1, len(texts) // _RIVAL_TEXTS)][:_RIVAL_TEXTS])
        for storage in STORAGES:
            seconds(connection, _EMBED, texts[:64], plan.reference(storage))
        seconds(connection, "SELECT rival_embed('a first text')")

        def run(name: str, _: int) -> float:
            if name in contenders:
                return len(texts) / contenders[name].run(texts)[0].wall
            if name == _RIVAL:
                return _RIVAL_TEXTS / seconds(connection, _ROWS)
            return len(texts) / seconds(connection, _EMBED, texts, plan.reference(name))

        speeds = in_turns([*STORAGES, *contenders, _RIVAL], rounds, run)
        cosine = _smallest_cosine(connection, texts, plan.reference(FP32), contenders[_TORCH].run(texts)[1])
    for contender in contenders.values():
        contender.close()
    figures = []
    for name, values in speeds.items():
        what = f"embed(text[]) {name}" if name in STORAGES else name
        figures.append(Figure(part, what, median(values), "texts/s", note=spread(values)))
    figures += [skipped(part, name, why) for name, why in failures.items()]
    return figures + _comparisons(part, speeds, losses) + [at_least(part, "fp32: smallest cosine", cosine, "", 0.9999)]


def _contenders(plan: Plan) -> tuple[dict[str, Contender], dict[str, str]]:
    contenders = {_TORCH: Contender(sentence_transformers, plan.source_folder, _THREADS)}
    failures = {}
    for name, storage in ((_FAST, FP32), (_FAST_INT8, INT8_DYNAMIC)):
        try:
            contenders[name] = Contender(fastembed, plan.source_folder, plan.artifact(storage), _THREADS)
        except EOFError:
            failures[name] = "fastembed is not installed or did not load the local files: see its error above"
    return contenders, failures


def _comparisons(part: str, speeds: dict[str, list[float]], losses: dict[str, float]) -> list[Figure]:
    kept = [storage for storage in STORAGES if losses.get(storage, 0.0) <= _LARGEST_LOSS]
    fastest = max(kept, key=lambda storage: median(speeds[storage]))
    note = f"loses {losses[fastest]:.2f} points of Spearman" if losses else "Spearman was not measured"
    figures = []
    for rival in (_TORCH, _FAST):
        if rival in speeds:
            times_faster = ratio(speeds[fastest], speeds[rival])
            figures.append(at_least(part, f"fastest, {fastest} / {rival}", times_faster, "x", 3.5, note))
    figures.append(at_least(part, f"fp32 / {_TORCH}", ratio(speeds[FP32], speeds[_TORCH]), "x", 1.9))
    if _FAST in speeds:
        figures.append(Figure(part, f"fp32 / {_FAST}", ratio(speeds[FP32], speeds[_FAST]), "x", note="the same file"))
    return figures


def _smallest_cosine(connection: Connection, texts: list[str], reference: str, expected: Vectors) -> float:
    rows = connection.execute(_VECTORS, (texts, reference)).fetchall()
    found = np.array([row[0] for row in rows])
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    return float((np.einsum("ij,ij->i", found, expected) / norms).min())
