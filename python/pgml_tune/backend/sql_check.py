"""Entry points of sql/functions/sql_check.sql."""

from __future__ import annotations

import json

from pgml_tune.backend import entrypoint
from pgml_tune.db import Session
from pgml_tune.service import sql_check
from pgml_tune.service.job import read_limits
from pgml_tune.service.own_settings import own_settings
from pgml_tune.settings import Limits


@entrypoint
def check_sql(db: Session, query: str | None) -> str | None:
    return None if query is None else json.dumps(sql_check.check(db, query, _limits(db)).to_json(), ensure_ascii=False)


@entrypoint
def try_sql(db: Session, query: str | None, max_rows: int | None) -> str | None:
    return None if query is None else sql_check.try_sql(db, query, max_rows, _limits(db)).to_json_text()


@entrypoint
def try_sql_as(db: Session, role: str, search_path: str, query: str, max_rows: int) -> str:
    return sql_check.try_sql_as(db, role, search_path, query, max_rows, _limits(db)).to_json_text()


def _limits(db: Session) -> Limits:
    with own_settings(db):
        return read_limits(db)
