"""On what the figures were measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psycopg

_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "tokenizers", "ctranslate2", "numpy", "torch",
    "sentence-transformers", "transformers", "fastembed",
)  # fmt: skip
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "i8mm", "bf16")


def conditions(connection: psycopg.Connection[Any] | None = None) -> dict[str, Any]:
    """Versions and hardware, and how busy the machine is at the start; no connection where no server is measured."""
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            **({} if connection is None else _server_versions(connection)),
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "hardware": {
            "processor": _processor(),
            "instructions": [flag for flag in _INSTRUCTIONS if flag in _cpu_field("flags", "Features").split()],
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
            "system": platform.platform(),
        },
        "load_average_before": os.getloadavg(),
    }


def _server_versions(connection: psycopg.Connection[Any]) -> dict[str, str]:
    row = connection.execute(
        "SELECT current_setting('server_version'),"
        " (SELECT extversion FROM pg_extension WHERE extname = 'vector'),"
        " (SELECT extversion FROM pg_extension WHERE extname = 'pgml_tune')"
    ).fetchone()
    assert row is not None
    return dict(zip(("postgresql", "pgvector", "pgml_tune"), row, strict=True))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpu_field("model name") or platform.machine()


def _cpu_field(*names: str) -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in names:
            return value.strip()
    return ""
