"""When two questions are the same one.

A verified answer is given at once, so this has to be sure rather than generous. The cosine of two questions is not: to
a small model "before 2024" and "after 2024" are nearly the same, and so are any two short questions in a language that
it was not trained on. What is asked for must be the same words in the same order; only how it is asked may differ.
"""

from __future__ import annotations

import re
import unicodedata

_SPACES = re.compile(r"\s+")
_ENDS = " \t.,;:!?…\"'`´‘’“”„«»()（）。，、；：！？"
_WORDS = re.compile(rf"[^\W_]+|[^\w\s{re.escape(_ENDS)}]")  # a sign says something, too: -5 is not 5
# Scripts that put no spaces between words: each character is a word.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_AROUND_UNSPACED = re.compile(rf"(?<={_UNSPACED.pattern})\s+|\s+(?={_UNSPACED.pattern})")
# How one asks, not what for. No preposition, no negation, no comparison, no quantity.
_ASKING = frozenset(
    "a an the please kindly show list give tell find display get print return me us i we you have can could would want"
    " like to know see is are was were do does did there what which".split()
)
_ALL = "all"  # says something but where a list of all is asked for: "who has bought all products"
# The longer ones first: they are taken away in this order.
_ASKING_UNSPACED = (
    "我想知道", "告诉我", "请告诉", "能不能", "帮我", "给我", "请问", "一下", "列出", "显示", "查询", "查找", "找出",
    "哪些", "什么", "请", "吗", "呢", "的", "了", "是", "都",
)  # fmt: skip
_ALL_UNSPACED = ("所有", "全部")


def normal_form(question: str) -> str:
    """A question as all read that differ in width, case, spaces and marks around them; empty if nothing is left."""
    text = unicodedata.normalize("NFKC", question).casefold()
    return _AROUND_UNSPACED.sub("", _SPACES.sub(" ", text)).strip(_ENDS)


def content(question: str) -> tuple[str, ...]:
    """The words that say what is asked for, in their order, without endings that tell one from many."""
    text = normal_form(question)
    for phrase in _ASKING_UNSPACED:
        text = text.replace(phrase, " ")
    for phrase in _ALL_UNSPACED:
        text = text.replace(phrase, f" {_ALL} ")
    words = [word for word in _WORDS.findall(_UNSPACED.sub(r" \g<0> ", text)) if word not in _ASKING]
    return tuple(_stem(word) for word in (words[1:] if words[:1] == [_ALL] else words))


def ask_the_same(a: str, b: str) -> bool:
    """Whether two questions ask for the same in the same words, however they put it."""
    wanted = content(a)
    return bool(wanted) and wanted == content(b)


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
