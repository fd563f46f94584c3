"""What a sketch keeps of a vector."""

import base64

import numpy as np

from pgml_tune.engine.sketch import NUMBERS, SCALE, sketch

RANDOM = np.random.default_rng(5)


def numbers(text):
    return np.frombuffer(base64.b64decode(text), np.int8).astype(float)


def vectors(count, dimensions=384):
    return RANDOM.standard_normal((count, dimensions)).astype(np.float32)


def test_a_sketch_is_32_bytes_that_depend_on_the_direction_only():
    (vector,) = vectors(1)
    assert len(numbers(sketch(vector, "space"))) == NUMBERS == 32
    assert sketch(vector, "space") == sketch(vector * np.float32(16), "space")
    assert sketch(vector, "space") != sketch(vector, "another space")
    assert len(numbers(sketch(vector[:33], "space"))) == NUMBERS


def test_distances_of_sketches_are_those_of_the_vectors():
    pairs = [(first / np.linalg.norm(first), second / np.linalg.norm(second)) for first, second in
             zip(vectors(400), vectors(400), strict=True)]  # fmt: skip
    near = [(first, first + 0.3 * second) for first, second in pairs]
    for examples in (pairs, near):
        true, kept = [], []
        for first, second in examples:
            second = second / np.linalg.norm(second)
            true.append(np.sum((first - second) ** 2))
            kept.append(np.sum((numbers(sketch(first, "s")) - numbers(sketch(second, "s"))) ** 2) / SCALE**2 / NUMBERS)
        assert abs(np.mean(kept) / np.mean(true) - 1) < 0.1


def test_a_vector_without_a_direction_has_a_sketch_of_zeros():
    assert not numbers(sketch(np.zeros(8, np.float32), "space")).any()
