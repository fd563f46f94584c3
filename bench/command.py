"""The command line that both benchmarks have."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from places import CHECKOUT


def read_command(description: str | None, file_name: str, parts: Sequence[str]) -> tuple[Path, list[str]]:
    """Where the figures go, and which parts are measured, in their order."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("result", nargs="?", type=Path, default=CHECKOUT / ".dev" / file_name)
    parser.add_argument("--only", action="append", choices=parts, help="measure this part only; may be repeated")
    arguments = parser.parse_args()
    chosen = arguments.only or os.environ.get("BENCH_ONLY", "").split() or parts
    if not set(chosen) <= set(parts):
        parser.error(f"the parts are {', '.join(parts)}")
    return arguments.result, [part for part in parts if part in chosen]


def is_quick() -> bool:
    """Whether to take few texts and rounds, to see that it runs."""
    return os.environ.get("BENCH_QUICK", "") not in ("", "0")
