import pytest

from pgml_tune.engine.batching import (
    CHUNK_CHARACTERS,
    CHUNK_TEXTS,
    MAX_BATCH_TOKENS,
    MAX_TEXTS,
    MIN_BATCH_TOKENS,
    batch_size,
    chunks,
    token_budget,
)


@pytest.mark.parametrize(
    ("longest", "max_tokens", "size"),
    [(10, 100, 10), (10, 99, 9), (1, 10_000, MAX_TEXTS), (500, 100, 1), (0, 100, MAX_TEXTS)],
)
def test_a_batch_holds_as_many_texts_as_its_longest_lets_fit(longest, max_tokens, size):
    assert batch_size(longest, max_tokens) == size


def test_a_slow_model_gets_small_batches_and_a_fast_one_no_endless_ones():
    assert token_budget(0) == MIN_BATCH_TOKENS
    assert token_budget(10_000) == 2000
    assert token_budget(1e12) == MAX_BATCH_TOKENS


def test_chunks_keep_every_text_in_order():
    texts = [str(number) for number in range(3 * CHUNK_TEXTS + 1)]
    parts = list(chunks(texts))
    assert [text for part in parts for text in part] == texts
    assert max(map(len, parts)) == CHUNK_TEXTS


def test_chunks_are_bounded_in_characters_but_never_empty():
    long = "x" * (CHUNK_CHARACTERS + 1)
    assert [len(part) for part in chunks([long, "a", long, long])] == [1, 1, 1, 1]
    assert list(chunks([])) == []
