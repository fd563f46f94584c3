"""Loads the server as many sessions do, with models in each of them and in the worker: see README.md in this folder."""

from __future__ import annotations

import os
import time

import load_clients
import load_memory
import load_single
import machine
from command import is_quick, read_command
from places import CHECKOUT, data_dir, model_root, source_folder
from plan import Plan
from report import Figure, publish
from server import add_contestants, connect, create_database
from serving import serving
from texts import Texts

_PARTS = {"single": load_single, "clients": load_clients, "memory": load_memory}
_MOST_SESSIONS = "1000"  # of those that load models of their own


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    result, parts = read_command(__doc__, "bench-load-result.json", list(_PARTS))
    started = time.monotonic()
    folder = source_folder()
    create_database()
    versions = add_contestants(folder)
    with connect() as connection:
        connection.execute("SELECT configure('in_process_max_sessions', %s)", (_MOST_SESSIONS,))
        texts = Texts(connection, data_dir())
        plan = Plan(is_quick(), str(CHECKOUT / "python"), folder, model_root(), versions, texts)
        conditions = machine.conditions(connection)
    figures: list[Figure] = []
    with serving():
        for part in parts:
            print(f"==> measuring: {part}", flush=True)
            figures += _PARTS[part].measure(plan)
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": "short ones, each another",
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)


if __name__ == "__main__":
    main()
