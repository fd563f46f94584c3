"""What tests wait for, and the errors they expect."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

POLL_SECONDS = 0.01


def wait_until(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true result of `condition`, which must come within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"nothing happened within {seconds} s"
        time.sleep(POLL_SECONDS)
    return result


@contextmanager
def refused(*states: str) -> Iterator[pytest.ExceptionInfo[psycopg.Error]]:
    """Expects an error with one of these SQLSTATEs."""
    with pytest.raises(psycopg.Error) as failure:
        yield failure
    assert failure.value.sqlstate in states, failure.value


def fetch_value(connection: psycopg.Connection[Any], sql: str, parameters: Any = None) -> Any:
    """The first column of the first row."""
    row = connection.execute(sql, parameters).fetchone()
    assert row is not None
    return row[0]
