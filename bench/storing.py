"""How fast vectors come into a side table: as the worker stores them, and by COPY BINARY, which checks nothing."""

from __future__ import annotations

import hashlib
import random
import struct
import time
from statistics import median

from psycopg.conninfo import make_conninfo
from server import Connection

_ROWS, _DIMENSIONS, _ROUNDS = 10000, 384, 5
_ADD = "INSERT INTO public.stored SELECT g, 'text number ' || g FROM generate_series(0, $1::int4 - 1) AS g"
_HEADER, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), struct.pack("!h", -1)
_ROW = struct.Struct("!hiiii")  # columns; of both integers: bytes, number
_HASH = struct.Struct("!i32s")
_VECTOR = struct.Struct(f"!ihh{_DIMENSIONS}f")


def storing_rates(connection: Connection, reference: str) -> tuple[float, float]:
    """Rows per second of the one and the other; both are rolled back."""
    from pgml_tune.db.connection import ConnectionDatabase
    from pgml_tune.store import queue

    connection.execute("CREATE TABLE stored (n integer PRIMARY KEY, body text NOT NULL)")
    options = '{"index": "none", "text_search": "none"}'
    connection.execute("CALL auto_embed('stored', 'body', %s, mode => 'queue', options => %s)", (reference, options))
    (collection_id, side) = connection.execute(
        "SELECT collection_id, embeddings::text FROM pgml_tune.collection WHERE source = 'stored'::regclass"
    ).fetchone() or (0, "")
    chance = random.Random(1)
    vectors = [[chance.random() for _ in range(_DIMENSIONS)] for _ in range(_ROWS)]
    raws = [struct.pack(f"{_DIMENSIONS}f", *vector) for vector in vectors]
    hashes = [hashlib.sha256(f"text number {number}".encode()).digest() for number in range(_ROWS)]
    info = connection.info
    db = ConnectionDatabase.connect(
        make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname), "bench", prepares=False
    )
    spent: dict[str, list[float]] = {"worker": [], "copy": []}
    for _ in range(_ROUNDS):
        with db.undone():
            db.fetch(_ADD, _ROWS)
            started = time.perf_counter()
            passages = [(number + 1, 1, raw) for number, raw in enumerate(raws)]
            keys = [(str(number),) for number in range(_ROWS)]
            assert queue.store_vectors(db, collection_id, keys, hashes, passages) == _ROWS
            spent["worker"].append(time.perf_counter() - started)
        with connection.transaction(force_rollback=True), connection.cursor() as cursor:
            started = time.perf_counter()
            copied = f"COPY {side} (key_1, chunk_no, text_sha256, embedding) FROM STDIN (FORMAT BINARY)"
            with cursor.copy(copied) as copy:
                copy.write(_HEADER)
                for number, (digest, vector) in enumerate(zip(hashes, vectors, strict=True)):
                    copy.write(_ROW.pack(4, 4, number, 4, 1) + _HASH.pack(32, digest)
                               + _VECTOR.pack(4 * _DIMENSIONS + 4, _DIMENSIONS, 0, *vector))  # fmt: skip
                copy.write(_END)
            spent["copy"].append(time.perf_counter() - started)
    db.close()
    connection.execute("SELECT drop_auto_embed('public.stored.body')")
    return _ROWS / median(spent["worker"]), _ROWS / median(spent["copy"])
