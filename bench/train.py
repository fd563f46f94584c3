"""Trains through CALL, as a DBA would, and measures what comes of it: see README.md in this folder."""

from __future__ import annotations

import os
import sys
import time

import machine
import psycopg
import train_intents
import train_retrieval
import train_similarity
from command import is_quick, read_command
from places import data_dir, model_root
from report import Figure, failed, publish
from server import Connection, create_database
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
            figures += _measure(part, connection, plan)
            figures.append(Figure(figures[-1].part, "this part in all", time.monotonic() - began, "s"))
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": "STS-B, BANKING77 and the retrieval corpus, " + " ".join(parts),
        "seconds": round(time.monotonic() - started),
    }
    publish(result, conditions, figures)
    if any(figure.verdict == "failed" for figure in figures):
        raise SystemExit(1)


def _measure(part: str, connection: Connection, plan: Plan) -> list[Figure]:
    """The figures of a part, up to the first error: what others have taken half an hour for is not lost."""
    figures: list[Figure] = []
    try:
        figures += _PARTS[part].measure(connection, plan)
    except psycopg.Error as error:
        print(f"bench: {error}", file=sys.stderr)
        figures.append(failed(figures[-1].part if figures else part, "the rest", str(error).partition("\n")[0]))
    return figures


if __name__ == "__main__":
    main()
