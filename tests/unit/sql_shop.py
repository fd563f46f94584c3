"""A small shop in SQLite, questions about it, and what stands in for the database where there is none."""

from __future__ import annotations

import itertools
import json
import sqlite3
from typing import Any

from pgml_tune.jobs.caller import Outcome

SEARCH_PATH = "shop"
CITIES = ("paris", "rome", "oslo", "vienna", "new york", "lima", "cairo", "athens")
GOODS = ("chair", "table", "lamp", "desk", "sofa", "shelf")
_CHINESE = dict(zip(CITIES, ("巴黎", "罗马", "奥斯陆", "维也纳", "纽约", "利马", "开罗", "雅典"), strict=True))
_TEMPLATES = (
    ("how many customers live in {city}", "SELECT count(*) FROM customer WHERE city = '{city}'"),
    ("names of customers in {city}", "SELECT name FROM customer WHERE city = '{city}'"),
    ("what does a {good} cost", "SELECT price FROM product WHERE name = '{good}'"),
    ("products above {number}", "SELECT name FROM product WHERE price > {number}"),
)
_CHINESE_TEMPLATES = (
    ("有多少顾客住在{word}", _TEMPLATES[0][1]),
    ("{word}的顾客叫什么名字", _TEMPLATES[1][1]),
)
SCHEMA_ROWS = [
    [SEARCH_PATH, "customer", None, json.dumps([_column for _column in (
        {"name": "name", "type": "text", "comment": None, "is_key": False, "values": []},
        {"name": "city", "type": "text", "comment": "where he lives", "is_key": False, "values": ["paris"]},
    )]), "[]"],
    [SEARCH_PATH, "product", None, json.dumps([_column for _column in (
        {"name": "name", "type": "text", "comment": None, "is_key": True, "values": []},
        {"name": "price", "type": "integer", "comment": None, "is_key": False, "values": []},
    )]), "[]"],
]  # fmt: skip
VALUE_ROWS = [
    *([SEARCH_PATH, "customer", "city", city] for city in CITIES),
    *([SEARCH_PATH, "product", "name", good] for good in GOODS),
]


def pairs(chinese: bool = False) -> list[tuple[str, str]]:
    """Questions, each with its SQL."""
    found = []
    for (question, sql), city, good, number in itertools.product(
        _CHINESE_TEMPLATES if chinese else _TEMPLATES, CITIES, GOODS, (10, 25)
    ):
        words = {"city": city, "good": good, "number": number, "word": _CHINESE[city]}
        found.append((question.format(**words), sql.format(**words)))
    return list(dict.fromkeys(found))


class SqliteCaller:
    """Runs statements as Caller does, in a database of its own."""

    def __init__(self, access: Any = None) -> None:
        self._db = sqlite3.connect(":memory:")
        self._db.execute("CREATE TABLE customer (name text, city text)")
        self._db.execute("CREATE TABLE product (name text, price integer)")
        for number, city in enumerate(CITIES):
            self._db.executemany(
                "INSERT INTO customer VALUES (?, ?)", [(f"c{number}{other}", city) for other in range(number + 1)]
            )
        self._db.executemany("INSERT INTO product VALUES (?, ?)", [(good, 9 * at) for at, good in enumerate(GOODS)])
        self.runs: list[str] = []

    def run(self, statement: str, search_path: str) -> Outcome:
        assert search_path == SEARCH_PATH
        self.runs.append(statement)
        if not statement.lower().startswith("select"):
            return Outcome("it is not a SELECT")
        try:
            rows = tuple(map(tuple, self._db.execute(statement).fetchall()))
        except (sqlite3.Error, sqlite3.Warning) as error:
            return Outcome(str(error))
        return Outcome(None, "order by" in statement.lower(), rows)

    def close(self) -> None:
        self._db.close()
