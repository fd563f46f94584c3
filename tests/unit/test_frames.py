"""Frames as they are cut and put together, by peers of any kind."""

import random

import pytest

from pgml_tune.ipc.frames import (
    MAX_REQUEST_BYTES,
    BrokenFrame,
    Frame,
    FrameReader,
    Kind,
    pack,
    request,
    unpack,
)

DIGEST = "ab" * 32
HEADER_BYTES = 48
VALUES = {"op": "embed", "kind": "query"}


@pytest.mark.parametrize("cut", [1, 2, 7, 47, 48, 49, 1000])
def test_frames_are_found_however_they_are_cut(cut):
    frames = [Frame(Kind.REQUEST, number, DIGEST, bytes([number]) * number) for number in (0, 1, 200)]
    sent = b"".join(frame.to_bytes() for frame in frames)
    reader, found = FrameReader(1000), []
    for start in range(0, len(sent), cut):
        found += reader.feed(sent[start : start + cut])
    assert found == frames
    assert not reader.is_amid


def test_a_frame_that_has_begun_is_waited_for():
    reader = FrameReader(1000)
    assert list(reader.feed(Frame(Kind.REPLY, 1, DIGEST, b"abc").to_bytes()[:-1])) == []
    assert reader.is_amid


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_another_magic_version_or_kind_is_refused(place):
    sent = bytearray(Frame(Kind.REQUEST, 1, DIGEST).to_bytes())
    sent[place] = 0xFF
    with pytest.raises(BrokenFrame):
        list(FrameReader(1000).feed(bytes(sent)))


@pytest.mark.parametrize("length", [1001, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(length):
    header = Frame(Kind.REQUEST, 1, DIGEST).to_bytes()[:-4] + length.to_bytes(4)
    with pytest.raises(BrokenFrame):
        list(FrameReader(1000).feed(header))


@pytest.mark.parametrize("size", [0, 1, MAX_REQUEST_BYTES, MAX_REQUEST_BYTES + 1, 3 * MAX_REQUEST_BYTES])
def test_a_long_request_comes_in_parts_that_each_fit(size):
    payload = random.Random(7).randbytes(size)
    frames = list(request(5, DIGEST, payload))
    assert b"".join(frame.payload for frame in frames) == payload
    assert [frame.kind for frame in frames] == [Kind.PART] * (len(frames) - 1) + [Kind.REQUEST]
    assert max(len(frame.payload) for frame in frames) <= MAX_REQUEST_BYTES


@pytest.mark.parametrize("pieces", [[], [b""], ["äöü".encode(), b"", b"\0" * 9]])
def test_a_payload_comes_back(pieces):
    assert unpack(pack(VALUES, pieces)) == (VALUES, pieces)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\0\0\0", b"\0\0\0\x02{}", b"\xff\xff\xff\xff{}", pack(VALUES, [b"abc"])[:-1], pack(VALUES) + b"x",
        b"\0\0\0\x04null", b'\0\0\0\x0e{"sizes":[-1]}', b'\0\0\0\x0e{"sizes":["a"]', b'\0\0\0\x0f{"sizes":[1e9]}',
        b"\0\1\0\0" + b"[" * 65536,
    ],
)  # fmt: skip
def test_a_payload_that_is_none_is_refused(payload):
    with pytest.raises(BrokenFrame):
        unpack(payload)


def test_random_and_mutated_bytes_never_raise_anything_else():
    chance = random.Random(1)
    sound = Frame(Kind.REQUEST, 7, DIGEST, pack(VALUES, [b"text"])).to_bytes()
    for _ in range(20_000):
        sent = bytearray(sound if chance.random() < 0.8 else chance.randbytes(chance.randrange(200)))
        for _ in range(chance.randrange(4)):
            if sent:
                sent[chance.randrange(len(sent))] = chance.randrange(256)
        try:
            for frame in FrameReader(1000).feed(bytes(sent)):
                unpack(frame.payload)
        except BrokenFrame:
            pass
