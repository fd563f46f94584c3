"""Where texts are cut, by tokenizers of three families."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgml_tune.engine import tokenizer as tokenizer_module
from pgml_tune.engine.spans import Spans
from pgml_tune.engine.tokenizer import TextTokenizer
from pgml_tune.errors import InvalidArgument
from pgml_tune.service.chunking import check_sizes, cut
from tests.unit.test_tokenizer import LETTERS, SPECIAL, WORDS, byte_pairs, unigram, word_piece

MAX_TOKENS = 32
BREAKS = [" ", " ", "\n", "\n\n", ". ", "。", "？”", "!) ", "\r\n", "\t"]
PIECES = [*WORDS[:6], *LETTERS, *BREAKS, "e\u0301", "🤖", "\x01", "x" * 120]


@pytest.fixture(scope="module", params=[word_piece, byte_pairs, unigram], ids=lambda make: make.__name__)
def tokenizer(request, tmp_path_factory):
    file = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    raw = request.param()
    raw.post_processor = SPECIAL
    raw.save(str(file))
    return TextTokenizer(file, MAX_TOKENS)


texts = st.lists(st.sampled_from(PIECES), max_size=80).map("".join) | st.text(max_size=60)
sizes = st.integers(1, 20).flatmap(lambda tokens: st.tuples(st.just(tokens), st.integers(0, tokens // 2)))


def words(text):
    """Spans as a tokenizer would give them that knows every word."""
    found = [match.span() for match in re.finditer(r"\S+", text)]
    return Spans([start for start, _ in found], [end for _, end in found])


def chunks(text, tokens, overlap=0):
    return [text[begin:end].strip() for begin, end in cut(text, words(text), tokens, overlap)]


def tokens_in(spans, begin, end):
    return sum(begin < stop <= end for stop in spans.ends)


@settings(max_examples=100, deadline=None)
@given(text=texts, size=sizes)
def test_chunks_hold_the_text_in_order_and_none_is_blank(tokenizer, text, size):
    ranges = cut(text, tokenizer.spans(text), *size)
    assert ranges == [(0, len(text))] or all(text[begin:end].strip() for begin, end in ranges)
    assert ranges == sorted(set(ranges))
    held = {place for begin, end in ranges for place in range(begin, end)}
    assert not "".join(letter for place, letter in enumerate(text) if place not in held).strip()


@settings(max_examples=100, deadline=None)
@given(text=texts, size=sizes)
def test_a_chunk_has_no_more_tokens_than_asked(tokenizer, text, size):
    tokens, overlap = size[0] + 8, size[1]  # letters that share tokens stay together, so very small chunks may not do
    spans = tokenizer.spans(text)
    for begin, end in cut(text, spans, tokens, overlap):
        assert tokens_in(spans, begin, end) <= tokens


@settings(max_examples=100, deadline=None)
@given(text=texts, size=sizes)
def test_neighbours_share_no_more_tokens_than_asked(tokenizer, text, size):
    spans = tokenizer.spans(text)
    ranges = cut(text, spans, *size)
    for (_, end), (begin, _) in zip(ranges, ranges[1:], strict=False):
        assert tokens_in(spans, begin, end) <= size[1]
        assert begin >= end or size[1] > 0


@settings(max_examples=100, deadline=None)
@given(text=texts, size=sizes)
def test_the_same_text_is_cut_the_same_way(tokenizer, text, size):
    assert cut(text, tokenizer.spans(text), *size) == cut(text, tokenizer.spans(text), *size)


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_spans_are_ordered_and_hold_every_letter(tokenizer, text):
    spans = tokenizer.spans(text)
    assert list(spans.starts) == sorted(spans.starts) and list(spans.ends) == sorted(spans.ends)
    held = {place for start, end in zip(spans.starts, spans.ends, strict=True) for place in range(start, end)}
    assert not [place for place, letter in enumerate(text) if letter.isalnum() and place not in held]


def test_a_chunk_of_words_is_tokenized_alone_as_it_was_counted(tokenizer):
    chance = random.Random(3)
    for _ in range(100):
        text = " ".join(chance.choices(["the", "query", "string", "embedding", "naïve", "a,b.", "q! "], k=60))
        for begin, end in cut(text, tokenizer.spans(text), tokenizer.longest_text(""), 5):
            assert not tokenizer.encode([text[begin:end]])[0].is_truncated


@pytest.mark.parametrize("piece", ["the query. ", "如何删除字符串。", "x", " ", "ab\n", "e\u0301"])
def test_a_long_text_is_located_in_parts_and_as_a_whole_alike(tokenizer, monkeypatch, piece):
    text = (piece * 9000)[:9000]
    whole = tokenizer.spans(text)
    seen = []
    monkeypatch.setattr(tokenizer_module, "PIECE_CHARACTERS", 1000)
    parts = tokenizer.spans(text, lambda: seen.append(None))
    assert len(seen) in range(8, 20)
    # A word without end is one token, or one in each part; all else is the same.
    assert abs(len(parts.starts) - len(whole.starts)) <= (200 if piece == "x" else 20)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "a", "a b c"])
def test_a_short_or_blank_text_is_one_chunk(tokenizer, text):
    assert cut(text, tokenizer.spans(text), 8, 4) == [(0, len(text))]


def test_a_paragraph_end_is_better_than_a_line_and_a_line_than_a_sentence():
    text = "a b c d e f\n\ng\nh. i j k"
    assert chunks(text, 9)[0] == "a b c d e f"
    assert chunks(text.replace("\n\n", " "), 9)[0] == "a b c d e f g"
    assert chunks(text.replace("\n\n", " ").replace("\n", " "), 9)[0] == "a b c d e f g h."


def test_a_break_far_from_the_end_of_the_window_is_not_taken():
    assert chunks("a. b c d e f g h i j", 9)[0] == "a. b c d e f g h i"


@pytest.mark.parametrize("end", [". ", "! ", '." ', "?) ", "… ", "。", "！", "？」", "。”"])
def test_a_sentence_end_is_found(end):
    text = "one two three four five six" + end + "seven eight nine ten"
    starts = [text.index(word) for word in "one two three four five six seven eight nine ten".split()]
    ends = [start + len(word) for start, word in zip(starts, "one two three four five six".split(), strict=False)]
    ends[-1] += len(end.rstrip())
    ends += [start + len(word) for start, word in zip(starts[6:], "seven eight nine ten".split(), strict=True)]
    assert text[slice(*cut(text, Spans(starts, ends), 8, 0)[0])] == "one two three four five six" + end.rstrip()


def test_a_number_or_a_closing_mark_is_not_the_end_of_a_sentence():
    spans = Spans(range(12), range(1, 13))
    assert cut("abcdefg3.14x", spans, 10, 0)[0] == (0, 10)
    assert cut("如何删除字符。”串两", Spans(range(10), range(1, 11)), 8, 0)[0] == (0, 8)
    assert cut("如何删除字符。”串两", Spans(range(10), range(1, 11)), 7, 0)[0] == (0, 5)


def test_words_are_kept_whole_where_they_are_not_longer_than_half_a_chunk(tokenizer):
    text = "naïve Übertragung " * 40
    spans = tokenizer.spans(text)
    longest = max(tokens_in(spans, 0, 5), tokens_in(spans, 6, 17))
    for begin, end in cut(text, spans, 2 * longest + 2, 0):
        assert not {text[begin:end].split()[0], text[begin:end].split()[-1]} - {"naïve", "Übertragung"}


def test_an_overlap_begins_with_a_word():
    assert chunks("a b c d e f g h i j k l", 6, 2) == ["a b c d e f", "e f g h i j", "i j k l"]
    assert chunks("a b c. d e f g h i j k l", 6, 3)[1] == "d e f g h i"
    assert cut("abc defghijkl", Spans([0, 2, 4, 6, 8], [2, 3, 6, 8, 10]), 3, 1)[1][0] == 3


@pytest.mark.parametrize("size", [(0, 0), (-1, 0), (31, 0), (2**31 - 1, 0), (10, 6), (10, -1), (1, 1)])
def test_sizes_that_the_model_cannot_read_or_that_hardly_get_on_are_refused(size):
    with pytest.raises(InvalidArgument) as caught:
        check_sizes(*size, longest=30)
    assert caught.value.detail


@pytest.mark.parametrize("size", [(1, 0), (30, 15), (2, 1)])
def test_sizes_within_bounds_pass(size):
    check_sizes(*size, longest=30)
