"""The binary form of vectors."""

import struct
from array import array

from pgml_tune.db.vectors import Vectors


def test_vectors_are_written_as_pgvector_reads_them() -> None:
    raws = [array("f", numbers).tobytes() for numbers in ((1.0, -2.5), (0.0, 3.0))]
    expected = struct.pack("!iiIii", 1, 0, 4711, 2, 1)
    expected += struct.pack("!ihhff", 12, 2, 0, 1.0, -2.5) + struct.pack("!ihhff", 12, 2, 0, 0.0, 3.0)
    assert Vectors(4711, raws).to_binary() == expected


def test_no_vectors_are_an_empty_array() -> None:
    assert Vectors(4711, []).to_binary() == struct.pack("!iiI", 0, 0, 4711)
