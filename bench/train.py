"""Trains through CALL, as a DBA would, and measures what comes of it: see README.md in this folder."""

from __future__ import annotations

import os
import time

import machine
import train_intents
import train_retrieval
import train_similarity
from command import is_quick, read_command
from places import data_dir, model_root
from report import Figure, publish
from server import create_database
from training import VERSION, Plan, connect_loudly

_PARTS = {"similarity": train_similarity, "intents": train_intents, "retrieval": train_retrieval}


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    result, parts = read_command(__doc__, "bench-train-result.json", list(_PARTS))
    folder = data_dir()
    if folder is None:
        raise SystemExit("bench: DATA_DIR names no folder with the data sets")
    plan = Plan(is_quick(), folder, model_root())
    started = time.monotonic()
    create_database()
    figures: list[Figure] = []
    with connect_loudly() as connection:
        model, _, version = VERSION.partition("@")
        connection.execute("SELECT register_model(%s, %s, 'embedding', %s)", (model, VERSION, version))
        conditions = machine.conditions(connection)
        for part in parts:
            print(f"==> measuring: {part}", flush=True)
            began = time.monotonic()
            found = _PARTS[part].measure(connection, plan)
            figures += [*found, Figure(found[0].part, "this part in all", time.monotonic() - began, "s")]
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": "STS-B, BANKING77 and the retrieval corpus, " + " ".join(parts),
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)


if __name__ == "__main__":
    main()
