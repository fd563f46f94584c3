"""Measures what the documentation claims, side by side on this machine: see README.md in this folder."""

from __future__ import annotations

import os
import time

import bulk
import caches
import clients
import cold
import keeping
import logs
import machine
import quality
import queueing
import search
import single
from command import is_quick, read_command
from places import CHECKOUT, data_dir, model_root, source_folder
from plan import Plan
from report import Figure, publish
from server import add_contestants, connect, create_database
from texts import Texts

_SIMPLE = {
    "cold": cold, "single": single, "caches": caches, "clients": clients, "keeping": keeping, "search": search,
    "logs": logs, "queueing": queueing,
}  # fmt: skip
PARTS = ("cold", "single", "caches", "quality", "bulk", "clients", "keeping", "search", "logs", "queueing")


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    result, parts = read_command(__doc__, "bench-result.json", PARTS)
    started = time.monotonic()
    folder = source_folder()
    create_database()
    versions = add_contestants(folder)
    with connect() as connection:
        plan = Plan(
            is_quick=is_quick(),
            package_folder=str(CHECKOUT / "python"),
            source_folder=folder,
            model_root=model_root(),
            versions=versions,
            texts=Texts(connection, data_dir()),
        )
        conditions = machine.conditions(connection)
    figures = _measure(plan, parts)
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": plan.texts.source,
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)


def _measure(plan: Plan, parts: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    losses: dict[str, float] = {}
    for part in parts:
        print(f"==> measuring: {part}", flush=True)
        if part == "quality":
            found, losses = quality.measure(plan)
            figures += found
        elif part == "bulk":
            figures += bulk.measure(plan, losses)
        else:
            figures += _SIMPLE[part].measure(plan)
    return sorted(figures, key=lambda figure: int(figure.part.partition(".")[0]))


if __name__ == "__main__":
    main()
