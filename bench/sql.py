"""Trains models that write SQL and asks them, through CALL and SELECT: see README.md in this folder."""

from __future__ import annotations

import os
import time

import machine
import sql_answers
import sql_training
from command import is_quick, read_command
from places import data_dir, model_root
from report import Figure, publish
from server import create_database
from training import Plan, connect_loudly

_PARTS = ("geography", "english", "chinese")


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    result, parts = read_command(__doc__, "bench-sql-result.json", list(_PARTS))
    folder = data_dir()
    if folder is None:
        raise SystemExit("bench: DATA_DIR names no folder with the data sets")
    plan = Plan(is_quick(), folder, model_root())
    started = time.monotonic()
    create_database()
    figures: list[Figure] = []
    with connect_loudly() as connection:
        conditions = machine.conditions(connection)
        sql_training.load_geography(connection, plan)
        for part in parts:
            print(f"==> measuring: {part}", flush=True)
            languages = {"geography": ("en", "zh"), "english": ("en",), "chinese": ("zh",)}[part]
            trained = sql_training.train(connection, plan, part, languages)
            figures += trained.figures
            figures += sql_answers.measure(connection, plan, part, trained.version, languages)
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": "GeoQuery, " + " ".join(parts),
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)


if __name__ == "__main__":
    main()
