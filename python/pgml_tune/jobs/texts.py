"""Texts that measurements run on; they come with the code or with Python, so no data set is needed."""

from __future__ import annotations

import builtins
import itertools
import math
import re

_ENGLISH = """How do I remove spaces from both ends of a string?
The quick brown fox jumps over the lazy dog.
A man is playing a guitar on a stage.
Interest rates rose by a quarter of a percentage point.
The court dismissed the appeal on procedural grounds.
Patients received 20 mg of the drug twice daily for six weeks.
My parcel has not arrived yet, where is it?
Please refund the second charge on my card.
SELECT name, count(*) FROM orders GROUP BY name HAVING count(*) > 10;
CREATE INDEX ON items USING hnsw (embedding vector_cosine_ops);
def embed(text): return model.encode(text, normalize=True)
{"id": 42, "tags": ["a", "b"], "active": true, "price": 9.99}
https://example.org/path/to/page?query=value&other=%20x#fragment
ERROR:  duplicate key value violates unique constraint "users_email_key"
Machine learning models map words to points in space.
It rained all night and the river broke its banks.
The committee will meet again in two weeks.
She sells sea shells by the sea shore.
Is there life on Mars?
Two children throw a ball to each other in the park.""".splitlines()
_CHINESE = """如何删除字符串两端的空格?
一个男人在舞台上弹吉他。
央行宣布将利率上调二十五个基点。
请问我的包裹什么时候能送到?
机器学习模型把词语映射到向量空间。
昨晚下了一整夜的雨,河水漫过了堤岸。
查询每个客户的订单总数,并按金额排序。
這家餐廳的牛肉麵非常好吃。
天気がいいから、散歩しましょう。
오늘 회의는 세 시에 시작합니다.""".splitlines()
_OTHER = """Где находится ближайшая станция метро?
¿Cuánto cuesta el envío a domicilio?
Die Übertragungsgeschwindigkeit überschreitet den Grenzwert.
Où est la bibliothèque la plus proche ?
أين تقع أقرب محطة قطار؟
दिल्ली में आज मौसम कैसा है?
Ποια είναι η πρωτεύουσα της Ελλάδας;
Tiếng Việt có nhiều dấu thanh.
ภาษาไทยไม่มีช่องว่างระหว่างคำ
e\u0301cole, na\u00efve, \ufb01ligree, \u212b, \u1e9e""".splitlines()
_SHORT = ["a", "I", "?", "42", "no", "ok!", "é", "字", "3.14159", "NULL", "...", "😀", "hello", "UPPER case"]
_EDGES = [
    "",
    "  leading and trailing blanks  ",
    "tabs\tand\nnew lines\r\nin between",
    "-" * 40,
    "supercalifragilisticexpialidocious" * 3,
]
_LONG = [
    " ".join(_ENGLISH),
    "".join(_CHINESE),
    " ".join(_ENGLISH[:5] * 20),  # beyond the length of most models
    "".join(_CHINESE[:5] * 20),
    " ".join(str(number) for number in range(150)),
]
PARITY_TEXTS = (*_ENGLISH, *_CHINESE, *_OTHER, *_SHORT, *_EDGES, *_LONG)

_SENTENCE_END = re.compile(r"(?<=[.!?])\s")
_FEWEST_CHARACTERS, _MOST_CHARACTERS = 30, 400
_EVERY = 2  # half of them tell as much in half the time


def retrieval_texts() -> tuple[list[str], list[str]]:
    """Questions and documents out of Python's own documentation: real prose, though English and technical.

    The documents are paragraphs of the language reference, the questions what built-in methods say of themselves.
    """
    from pydoc_data.topics import topics

    documents = dict.fromkeys(
        paragraph
        for topic in sorted(topics)
        for paragraph in (" ".join(block.split()) for block in topics[topic].split("\n\n"))
        if _FEWEST_CHARACTERS <= len(paragraph) <= _MOST_CHARACTERS
    )
    holders = (str, list, dict, set, bytes, int, float, tuple, memoryview, builtins, math, itertools)
    questions = dict.fromkeys(
        sentence
        for holder in holders
        for name in sorted(vars(holder))
        if (sentence := _first_sentence(getattr(holder, name))) and len(sentence) >= _FEWEST_CHARACTERS
    )
    return list(questions)[::_EVERY], list(documents)[::_EVERY]


def _first_sentence(documented: object) -> str:
    paragraphs = [" ".join(block.split()) for block in (documented.__doc__ or "").split("\n\n")]
    prose = (paragraph for paragraph in paragraphs if " " in paragraph and "->" not in paragraph)
    return _SENTENCE_END.split(next(prose, ""))[0]
