"""What this machine is, as far as that decides how a network runs best; asked without loading a library."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

_CPU = Path("/proc/cpuinfo")
_GPUS = Path("/proc/driver/nvidia/gpus")
_DEVICE = Path("/dev/nvidiactl")
_BF16 = ("avx512_bf16", "amx_bf16")
_LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "openvino")


def has_bf16() -> bool:
    """Whether the CPU multiplies numbers of 16 bits (bfloat16) by instructions of its own."""
    return bool(_bf16(_read_cpu()))


def has_gpu() -> bool:
    """Whether a driver of NVIDIA's is there."""
    return bool(_gpus()) or _DEVICE.exists()


def fingerprint() -> str:
    """The machine in words: CPU, its instructions for bfloat16, cores, GPUs, and versions of the libraries."""
    found = _read_cpu()
    parts = [_model(found), *_bf16(found), f"{os.cpu_count()} cores", *_gpus(), *_versions()]
    return ", ".join(parts)


def _read_cpu() -> dict[str, str]:
    """What the kernel says of the first core."""
    try:
        first = _CPU.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _model(found: Mapping[str, str]) -> str:
    name = found.get("model name", platform.machine())
    numbers = [f"{part.removeprefix('cpu ')} {found[part]}" for part in ("cpu family", "model") if part in found]
    return f"{name} ({' '.join(numbers)})" if numbers else name


def _bf16(found: Mapping[str, str]) -> list[str]:
    flags = found.get("flags", "").split()
    return [flag for flag in _BF16 if flag in flags]


def _gpus() -> list[str]:
    names = []
    for file in sorted(_GPUS.glob("*/information")):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        names += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return names


def _versions(libraries: Sequence[str] = _LIBRARIES) -> list[str]:
    found = []
    for name in libraries:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
