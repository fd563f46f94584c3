"""BANKING77: a classifier, its student with fewer layers, and both in 8 bits."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from report import Figure, at_least, at_most
from server import Connection
from training import VERSION, Plan, call, compare_quantized, latencies_ms, load, model_bytes

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


def measure(connection: Connection, plan: Plan) -> list[Figure]:
    load(
        connection,
        "intent",
        "part text, number integer, content text, label text",
        (
            (part, number, *row)
            for part in ("train", "dev")
            for number, row in enumerate(plan.some(_rows(plan.data_dir, part), 1000))
        ),
    )
    train, dev = (_QUERY.format(part=part) for part in ("train", "dev"))
    options = {"epochs": 1} if plan.is_quick else {}
    taught = call(
        connection,
        "finetune_classifier",
        model=VERSION,
        train_query=train,
        new_model="banking",
        eval_query=dev,
        options=options,
    )
    teacher = taught.version
    distilled = call(
        connection,
        "distill_model",
        teacher=teacher,
        student=_STUDENT,
        train_query=train,
        eval_query=dev,
        options=options,
    )
    student = distilled.version
    points = {version: _accuracy(connection, version) for version in (teacher, student)}
    times = latencies_ms(connection, _ONE_BY_ONE, (teacher, student))
    sizes = {version: model_bytes(connection, plan, version) for version in (teacher, student)}
    kept, slower = (100 * values[student] / values[teacher] for values in (points, times))
    megabytes = " of ".join(f"{sizes[version] / 1e6:.1f}" for version in (student, teacher))
    note = f"{times[student]:.2f} of {times[teacher]:.2f} ms; files {megabytes} MB"
    figures = [
        at_least(_PART, "finetune_classifier: accuracy", points[teacher], "%", 90, teacher),
        Figure(_PART, "finetune_classifier: the whole CALL", taught.seconds, "s"),
        Figure(_PART, f"distill_model, {_STUDENT}: accuracy", points[student], "%", note=student),
        at_least(_PART, f"distill_model, {_STUDENT}: of the teacher's accuracy", kept, "%", 97),
        at_most(_PART, f"distill_model, {_STUDENT}: of the teacher's latency", slower, "%", 50, note),
        Figure(_PART, "distill_model: the whole CALL", distilled.seconds, "s"),
    ]
    for version in (teacher, student):
        quantized = call(
            connection,
            "quantize_model",
            model=version,
            method="int8_dynamic",
            options={"eval_query": dev, "max_loss": 0.5},
        ).version
        lost = points[version] - _accuracy(connection, quantized)
        figures += compare_quantized(connection, plan, _PART, _ONE_BY_ONE, version, quantized, lost)
    return figures


def _rows(data_dir: Path, part: str) -> list[tuple[str, str]]:
    with gzip.open(data_dir / "intents" / f"banking77_{part}.csv.gz", "rt", encoding="utf-8", newline="") as lines:
        return [(row["text"], row["label"]) for row in csv.DictReader(lines)]


def _accuracy(connection: Connection, version: str) -> float:
    row = connection.execute(_ACCURACY, (version,)).fetchone()
    assert row is not None
    return float(row[0])
