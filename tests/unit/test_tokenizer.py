import random

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pgml_tune.engine.tokenizer import LONG_TEXT, TextTokenizer
from pgml_tune.errors import ArtifactDamaged

MAX_TOKENS = 8
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'如何删除字符串两端的空格机器学习模型把词语映射到向量间"
WORDS = ["the", "query", "string", "embedding", "Übertragung", "naïve", "如何删除", "机器学习模型", "x" * 99, "y" * 101]
SPECIAL = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)])
CORPUS = [" ".join(WORDS), LETTERS, "the query strings embed the embedding of a string"] * 3


def word_piece():
    vocabulary = {"[CLS]": 0, "[SEP]": 1, "[UNK]": 2}
    for piece in (*LETTERS, *(f"##{letter}" for letter in LETTERS), *WORDS):
        vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def byte_pairs():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(special_tokens=["[CLS]", "[SEP]"], initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(
            vocab_size=200, special_tokens=["[CLS]", "[SEP]", "[UNK]"], unk_token="[UNK]", show_progress=False
        ),
    )
    return tokenizer


@pytest.fixture(params=[word_piece, byte_pairs, unigram], ids=lambda make: make.__name__)
def file(request, tmp_path):
    tokenizer = request.param()
    tokenizer.post_processor = SPECIAL
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def long_texts():
    chance = random.Random(7)
    size = 4 * LONG_TEXT * MAX_TOKENS
    yield from (
        "x" * size,
        " " * size,
        " " * size + "the query",
        "如何删除字符串" * size,
        "a\n\t " * size,
        "e\u0301" * size,
    )
    # A giant word that begins before the first prefix ends is one unknown token, or many, depending on where it is cut.
    for before in range(LONG_TEXT * MAX_TOKENS - 120, LONG_TEXT * MAX_TOKENS + 1, 11):
        yield " " * before + "x" * size
        yield "the " * 3 + " " * (before - 12) + "abc" * size
    for _ in range(40):
        blank = " " * chance.choice((1, 1, 2, 50, 400))
        yield blank.join(chance.choices((*WORDS, *LETTERS), k=chance.randint(50, 300)))
        yield "".join(chance.choices(LETTERS + blank, k=chance.randint(300, 3000)))


def test_a_long_text_has_the_tokens_of_its_full_encoding(file):
    full = Tokenizer.from_file(str(file))
    full.enable_truncation(MAX_TOKENS)
    texts = list(long_texts())
    found = TextTokenizer(file, MAX_TOKENS).encode(texts)
    for text, tokens in zip(texts, found, strict=True):
        expected = full.encode(text)
        assert (tokens.ids, tokens.is_truncated) == (expected.ids, bool(expected.overflowing)), repr(text[:80])


def test_long_and_short_texts_keep_their_order(file):
    tokenizer = TextTokenizer(file, MAX_TOKENS)
    texts = ["the", "query " * 1000, "string", "", "x" * 9000, "embedding"]
    assert tokenizer.encode(texts) == [tokenizer.encode([text])[0] for text in texts]


def test_little_of_a_very_long_text_is_looked_at(file, monkeypatch):
    tokenizer = TextTokenizer(file, MAX_TOKENS)
    looked_at = []
    encode = tokenizer._encode
    monkeypatch.setattr(tokenizer, "_encode", lambda texts: looked_at.extend(map(len, texts)) or encode(texts))
    (tokens,) = tokenizer.encode(["the query " * 100_000])
    assert tokens.is_truncated
    assert sum(looked_at) <= 8 * LONG_TEXT * MAX_TOKENS


def test_a_count_is_of_the_whole_text(file):
    tokenizer = TextTokenizer(file, MAX_TOKENS)
    text = "the query " * 5000
    assert tokenizer.count(text) == len(Tokenizer.from_file(str(file)).encode(text))
    assert len(tokenizer.encode([text])[0].ids) == MAX_TOKENS


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"{", b"null", b"\xff\xfe", b"[" * 100_000, b'{"version":"1.0","model":{}}'],
    ids=lambda content: repr(content[:9]),
)  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_damaged(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ArtifactDamaged):
        TextTokenizer(tmp_path / "tokenizer.json", MAX_TOKENS)


def test_a_tokenizer_that_cannot_take_a_text_is_damaged(tmp_path):
    Tokenizer(models.WordPiece({"a": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json", MAX_TOKENS)
    with pytest.raises(ArtifactDamaged):
        tokenizer.encode(["b"])


def test_a_length_without_room_for_text_is_refused(file):
    with pytest.raises(ArtifactDamaged):
        TextTokenizer(file, 2)
