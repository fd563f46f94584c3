"""Searching the PostgreSQL manual, before and after training on its section titles with their paragraphs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from corpus import MANUAL, Corpus, training_pairs
from report import Figure, at_least
from server import Connection
from training import VERSION, Plan, call, load

_SETS = ("pgdoc_title_en", "pgdoc_index_en")  # none of their questions is trained on
_TABLES = {
    "paragraph": "document_id text PRIMARY KEY, body text",
    "section": "title text, document_id text",
    "question": "set_name text, content text, document_id text, grade integer",
}
# At most two paragraphs of each section: the others would add time before they add much.
_TRAIN = """
SELECT p.title AS anchor, d.body AS positive
FROM (SELECT s.*, row_number() OVER (PARTITION BY s.title ORDER BY s.document_id) AS place FROM section AS s) AS p
JOIN paragraph AS d USING (document_id) WHERE p.place <= 2 ORDER BY p.place, p.document_id
"""
# A row without a question is a document that must not be found instead.
_EVAL = """
SELECT q.content AS question, d.body AS document, q.grade
FROM question AS q JOIN paragraph AS d USING (document_id) WHERE q.set_name = '{name}'
UNION ALL
SELECT NULL, d.body, NULL FROM paragraph AS d
WHERE NOT EXISTS (SELECT FROM question AS q WHERE q.set_name = '{name}' AND q.document_id = d.document_id)
"""
_METRIC = "ndcg@10"
_SEARCHED = 10_000  # paragraphs; all 24,809 would take twice as long to embed four times


def measure(connection: Connection, plan: Plan) -> Iterator[Figure]:
    count = _load(connection, plan)
    part = f"3. Search: finetune_sbert on section titles of the manual; evaluate_model over {count:,} paragraphs"
    before = _evaluated(connection, VERSION)
    job = call(
        connection,
        "finetune_sbert",
        model=VERSION,
        train_query=_TRAIN,
        options={"batch_size": 32, "max_seq_length": 128, "eval_share": 0},
    )
    after = _evaluated(connection, job.version)
    yield Figure(part, "finetune_sbert: the whole CALL", job.seconds, "s", note=job.version)
    for name in _SETS:
        note = f"{before[name]:.2f} to {after[name]:.2f}"
        yield at_least(part, f"{name}: nDCG@10 gained", after[name] - before[name], "points", 0.1, note)


def _evaluated(connection: Connection, version: str) -> dict[str, float]:
    points = {}
    for name in _SETS:
        job = call(
            connection, "evaluate_model", model=version, eval_query=_EVAL.format(name=name), metrics=[_METRIC]
        )
        points[name] = job.result["figures"][_METRIC]
    return points


def _load(connection: Connection, plan: Plan) -> int:
    """Sections, questions, and of the manual's paragraphs those that belong to one of them, and others."""
    folder = plan.data_dir / "retrieval"
    corpus = Corpus(folder)
    sections = plan.some(training_pairs(folder, "title_en"), 60)
    asked = [
        question
        for name, questions in corpus.asked({MANUAL}, corpus.set_size("pgdoc_index_en")).items()
        if name in _SETS
        for question in plan.some(questions, 10)
    ]
    judged: list[tuple[object, ...]] = [
        (question.set_name, question.text, document_id, grade)
        for question in asked
        for document_id, grade in question.grades.items()
    ]
    needed = {document_id for _, document_id in sections} | {row[2] for row in judged}
    manual = corpus.manual(corpus.sizes[MANUAL])
    others = [document for document in manual if document.document_id not in needed]
    paragraphs = [document for document in manual if document.document_id in needed]
    paragraphs += others[: max(0, plan.pick(_SEARCHED, 0) - len(paragraphs))]
    rows: dict[str, Iterable[Sequence[object]]] = {
        "paragraph": [(document.document_id, document.text) for document in paragraphs],
        "section": sections,
        "question": judged,
    }
    for table, columns in _TABLES.items():
        load(connection, table, columns, rows[table])
    return len(paragraphs)
