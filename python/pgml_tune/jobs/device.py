"""Where a job trains."""

from __future__ import annotations

import torch

from pgml_tune.errors import NotSupported


def choose_device(device: str, precision: str) -> str:
    """`cuda` or `cpu`, as the options say and the machine has; refused where it cannot train in this precision."""
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise NotSupported(
            "there is no GPU that torch can use",
            detail=f"torch {torch.__version__} finds no CUDA device.",
            hint="Use the option device => cpu, or auto.",
        )
    chosen = ("cuda" if has_gpu else "cpu") if device == "auto" else device
    if chosen == "cpu" and precision == "fp16":
        raise NotSupported(
            "training in fp16 needs a GPU",
            detail="On the CPU its small numbers would become zero.",
            hint="Use the option precision => fp32, or bf16 on processors that have it.",
        )
    return chosen
