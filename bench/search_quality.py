"""nDCG@10 of the judged questions: through SQL, and by comparing each vector with numpy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean

import numpy as np
from contenders import Contender, Vectors, sentence_transformers
from corpus import Collection, Corpus, Question, ndcg
from plan import Plan
from psycopg.types.json import Jsonb
from report import Figure, at_least, at_most, skipped
from server import Connection

_PART = "10. Search: nDCG@10 through SQL against exact search in numpy"
_SEARCH = "SELECT key ->> 'id' FROM {function}(%s, %s, 10, %s)"
_INDEX_ENTRIES = "pgdoc_index_en"
_LARGEST_LOSS = 0.5  # points
_NEIGHBOURS = 10
_CHECKED_DOCUMENTS = 200
_VECTOR_HEADER_BYTES = 4
Sets = dict[str, list[Question]]
Rankings = dict[str, list[list[str]]]  # by set, in the order of its questions
Search = Callable[[Question], list[str]]


def measure(
    connection: Connection, plan: Plan, corpus: Corpus, manual: Collection, mixture: Collection
) -> list[Figure]:
    count = plan.size("QUESTIONS", 250, 60)
    scopes = corpus.whole_scopes(mixture.documents)
    filtered = corpus.asked(scopes, count)
    in_manual = corpus.asked(corpus.whole_scopes(manual.documents), corpus.set_size(_INDEX_ENTRIES))
    contender = Contender(sentence_transformers, plan.source_folder, 2)
    figures = [_check_vectors(connection, contender, mixture)]
    exact = _Exact(connection, contender, mixture.name, filtered)
    figures += _compare(corpus, "in a collection of all, filter", filtered, exact, _by_sql(connection, mixture, True))
    if not in_manual:
        return [*figures, skipped(_PART, "the manual", "the collection does not hold all of it")]
    exact = _Exact(connection, contender, manual.name, in_manual)
    figures += _compare(corpus, "in a collection of its own", in_manual, exact, _by_sql(connection, manual, False))
    contender.close()
    return figures + _compare_hybrid(connection, plan, in_manual, filtered, manual, mixture)


def _compare(corpus: Corpus, where: str, sets: Sets, exact: _Exact, search: Search) -> list[Figure]:
    figures = []
    losses = []
    for name, questions in sets.items():
        found, best = _points(questions, search), _points(questions, exact.search)
        losses.append(best - found)
        note = f"{found:.2f} of {best:.2f}; {len(questions):,} of {corpus.set_size(name):,} questions"
        figures.append(at_most(_PART, f"{name} {where}: points lost", best - found, "points", _LARGEST_LOSS, note))
    what = f"mean of {len(losses)} sets {where}: points lost"
    return [*figures, at_most(_PART, what, mean(losses), "points", _LARGEST_LOSS)]


def _compare_hybrid(
    connection: Connection, plan: Plan, in_manual: Sets, filtered: Sets, manual: Collection, mixture: Collection
) -> list[Figure]:
    figures = []
    for collection, sets in ((manual, in_manual), (mixture, filtered)):
        for name, questions in sets.items():
            if (collection is manual) != (name == _INDEX_ENTRIES):
                continue
            asked = questions if collection is manual else questions[:: max(1, len(questions) // plan.pick(100, 30))]
            semantic, hybrid = (
                _points(asked, _by_sql(connection, collection, collection is mixture, function))
                for function in ("semantic_search", "hybrid_search")
            )
            what, gain = f"hybrid_search over semantic_search, {name}", hybrid - semantic
            note = f"{hybrid:.2f} over {semantic:.2f}; {len(asked):,} questions"
            if collection is manual:
                figures.append(at_least(_PART, what, gain, "points", 0, note))
            else:
                figures.append(Figure(_PART, what, gain, "points", note=note))
    return figures


def _points(questions: Sequence[Question], search: Search) -> float:
    return mean(ndcg(search(question), question.grades) for question in questions)


def _by_sql(
    connection: Connection, collection: Collection, is_filtered: bool, function: str = "semantic_search"
) -> Search:
    query = _SEARCH.format(function=function)

    def search(question: Question) -> list[str]:
        wanted = Jsonb({"source": question.scope[0], "lang": question.scope[1]}) if is_filtered else None
        return [row[0] for row in connection.execute(query, (collection.name, question.text, wanted))]

    return search


class _Exact:
    """Each question of sentence-transformers' own vector, compared with each document of its scope."""

    def __init__(self, connection: Connection, contender: Contender, table: str, sets: Sets) -> None:
        questions = [question for asked in sets.values() for question in asked]
        _, vectors = contender.run([question.text for question in questions])
        self._questions = {id(question): vector for question, vector in zip(questions, vectors, strict=True)}
        self._documents = {
            scope: _vectors(connection, table, "WHERE s.source = %s AND s.lang = %s", scope)
            for scope in {question.scope for question in questions}
        }

    def search(self, question: Question) -> list[str]:
        names, vectors = self._documents[question.scope]
        similarities = vectors @ self._questions[id(question)]
        return [names[number] for number in np.argsort(-similarities, kind="stable")[:_NEIGHBOURS]]


def _vectors(connection: Connection, table: str, condition: str, args: tuple[object, ...]) -> tuple[list[str], Vectors]:
    """The vectors of a collection as they are stored."""
    names, rows = [], []
    query = f"COPY (SELECT s.id, e.embedding FROM {table} AS s JOIN {table}_body_embedding AS e USING (id) {condition})"
    with connection.cursor() as cursor, cursor.copy(f"{query} TO STDOUT (FORMAT BINARY)", args) as copy:
        copy.set_types(["text", "bytea"])
        for name, vector in copy.rows():
            names.append(name)
            rows.append(np.frombuffer(vector[_VECTOR_HEADER_BYTES:], ">f4"))
    return names, np.array(rows, np.float32)


def _check_vectors(connection: Connection, contender: Contender, collection: Collection) -> Figure:
    """What is stored is what sentence-transformers computes; the rest of the comparison rests on it."""
    step = max(1, len(collection.documents) // _CHECKED_DOCUMENTS)
    checked = {document.document_id: document.text for document in collection.documents[::step]}
    names, stored = _vectors(connection, collection.name, "WHERE s.id = ANY (%s)", (list(checked),))
    _, expected = contender.run([checked[name] for name in names])
    cosine = float(np.einsum("ij,ij->i", stored, expected).min())
    what = "stored vectors and sentence-transformers: smallest cosine"
    return at_least(_PART, what, cosine, "", 0.9999, f"{len(names)} documents")
