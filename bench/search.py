"""Search through SQL: the English manual of PostgreSQL in one collection, the whole corpus in another."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType

import search_latency
import search_quality
from corpus import Collection, Corpus, Document
from plan import Plan
from report import Figure, skipped
from server import FP32, Connection, configured, connect, set_cache

_PART = "9. Search: making the collections; fp32, 2 threads"
_POLL_SECONDS = 0.1
_TENTHS = 10


def measure(plan: Plan) -> list[Figure]:
    if plan.texts.data_dir is None:
        return [skipped(_PART, "search", "DATA_DIR is not set")]
    corpus = Corpus(plan.texts.data_dir / "retrieval")
    manual = Collection("manual", corpus.manual(plan.size("MANUAL", 25000, 1000)))
    mixture = Collection("mixture", corpus.mixture(plan.size("DOCUMENTS", 126662, 1000)))
    figures = []
    with connect() as connection:
        set_cache(connection, "off")
        with configured(connection, "threads", "2"):
            for collection in (manual, mixture):
                figures += _make(connection, collection, plan.reference(FP32))
            figures += search_quality.measure(connection, plan, corpus, manual, mixture)
    return figures + search_latency.measure(plan, corpus, (manual, mixture))


def _make(connection: Connection, collection: Collection, reference: str) -> list[Figure]:
    """Load a table, embed it, and say how long its parts took."""
    name, count = collection.name, len(collection.documents)
    connection.execute(
        f"CREATE TABLE {name}"
        " (id text PRIMARY KEY, source text NOT NULL, lang text NOT NULL, tenth integer NOT NULL, body text NOT NULL)"
    )
    _load(connection, name, collection.documents)
    with IndexClock() as clock:
        started = time.perf_counter()
        connection.execute(
            """CALL auto_embed(%s, 'body', %s, collection => %s, options => '{"text_search": "english"}')""",
            (name, reference, name),
        )
        elapsed = time.perf_counter() - started
    characters = sum(len(document.text) for document in collection.documents) / count
    building = clock.seconds()
    row = connection.execute(
        "SELECT c.index_state, c.is_complete, pg_size_pretty(c.bytes), current_setting('maintenance_work_mem')"
        " FROM pgml_tune.embedding_collections AS c WHERE c.collection = %s",
        (name,),
    ).fetchone()
    if row is None or not row[1]:
        raise SystemExit(f"bench: the collection {name} is not complete")
    rate = count / (elapsed - sum(building.values()))
    indexes = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in building.items())
    size = f"mean {characters:.0f} characters; {row[2]}"
    return [
        Figure(_PART, f"{name}, {count:,} documents: backfill", rate, "rows/s", note=size),
        Figure(
            _PART,
            f"{name}, {count:,} documents: building indexes after it",
            sum(building.values()),
            "s",
            note=f"{indexes or 'none seen'}; index {row[0]}, maintenance_work_mem {row[3]}; {elapsed:.0f} s in all",
        ),
    ]


def _load(connection: Connection, name: str, documents: Sequence[Document]) -> None:
    with connection.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
        for number, document in enumerate(documents):
            copy.write_row((document.document_id, *document.scope, number % _TENTHS, document.text))
    connection.execute(f"VACUUM ANALYZE {name}")


class IndexClock:
    """How long indexes are being built in the database, as the server shows it to another session."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> IndexClock:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_ended.set()
        self._thread.join()

    def seconds(self) -> dict[str, float]:
        """Seconds by kind of index; one that is made in less than a tenth of a second may not be seen."""
        return {kind: count * _POLL_SECONDS for kind, count in sorted(self._seen.items())}

    def _watch(self) -> None:
        # The view names no index that is not there yet, but of the two kinds only HNSW tells phases of building.
        query = (
            "SELECT CASE WHEN phase LIKE 'building index: %' THEN 'hnsw' ELSE 'gin' END"
            " FROM pg_stat_progress_create_index WHERE datname = current_database()"
        )
        with connect() as connection:
            while not self._has_ended.wait(_POLL_SECONDS):
                self._seen.update(row[0] for row in connection.execute(query))
