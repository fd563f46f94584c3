"""BANKING77: a classifier, its student with fewer layers, and both in 8 bits."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator

from report import Figure, at_least, at_most
from server import Connection
from training import VERSION, Plan, call, compare_quantized, latencies_ms, load, model_bytes, quantize

_PART = "2. Classification: BANKING77, 77 labels; accuracy on dev through classify()"
_QUERY = "SELECT content, label FROM intent WHERE part = '{part}' ORDER BY number"
_ACCURACY = (
    "SELECT 100.0 * avg((c.label = i.label)::integer)::double precision"
    " FROM intent AS i CROSS JOIN LATERAL classify(i.content, %s) AS c WHERE i.part = 'dev'"
)
_ONE_BY_ONE = (
    "SELECT count(c.label) FROM intent AS i CROSS JOIN LATERAL classify(i.content, %s) AS c"
    " WHERE i.part = 'dev' AND i.number %% 12 = %s"
)
_STUDENT = "layers:2"


def measure(connection: Connection, plan: Plan) -> Iterator[Figure]:
    load(
        connection,
        "intent",
        "part text, number integer, content text, label text",
        ((part, number, *row) for part in ("train", "dev") for number, row in enumerate(_rows(plan, part))),
    )
    train, dev = (_QUERY.format(part=part) for part in ("train", "dev"))
    taught = call(
        connection, "finetune_classifier", model=VERSION, train_query=train, new_model="banking", eval_query=dev
    )
    teacher = taught.version
    points = {teacher: _accuracy(connection, teacher)}
    yield at_least(_PART, "finetune_classifier: accuracy", points[teacher], "%", 90, teacher)
    yield Figure(_PART, "finetune_classifier: the whole CALL", taught.seconds, "s")
    distilled = call(
        connection, "distill_model", teacher=teacher, student=_STUDENT, train_query=train, eval_query=dev
    )
    student = distilled.version
    points[student] = _accuracy(connection, student)
    times = latencies_ms(connection, _ONE_BY_ONE, (teacher, student))
    kept, slower = (100 * values[student] / values[teacher] for values in (points, times))
    sizes = " of ".join(f"{model_bytes(connection, plan, version) / 1e6:.1f}" for version in (student, teacher))
    note = f"{times[student]:.2f} of {times[teacher]:.2f} ms; files {sizes} MB"
    yield Figure(_PART, f"distill_model, {_STUDENT}: accuracy", points[student], "%", note=student)
    yield at_least(_PART, f"distill_model, {_STUDENT}: of the teacher's accuracy", kept, "%", 97)
    yield at_most(_PART, f"distill_model, {_STUDENT}: of the teacher's latency", slower, "%", 50, note)
    yield Figure(_PART, "distill_model: the whole CALL", distilled.seconds, "s")
    for version in (teacher, student):
        quantized = quantize(connection, version, dev)
        lost = points[version] - _accuracy(connection, quantized)
        yield from compare_quantized(connection, plan, _PART, _ONE_BY_ONE, version, quantized, lost)


def _rows(plan: Plan, part: str) -> list[tuple[str, str]]:
    """Messages with their labels; in a quick run only those of a few labels."""
    file = plan.data_dir / "intents" / f"banking77_{part}.csv.gz"
    with gzip.open(file, "rt", encoding="utf-8", newline="") as lines:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(lines)]
    kept = set(sorted({label for _, label in rows})[: plan.pick(len(rows), 4)])
    return list(plan.some([row for row in rows if row[1] in kept], 100))


def _accuracy(connection: Connection, version: str) -> float:
    row = connection.execute(_ACCURACY, (version,)).fetchone()
    assert row is not None
    return float(row[0])
