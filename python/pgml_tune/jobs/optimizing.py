"""Rewrites an exported graph ahead of its use, as ONNX Runtime does whenever it loads one."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from pgml_tune.engine.onnx import SLOW_FUSIONS
from pgml_tune.errors import NotSupported
from pgml_tune.jobs.onnx_file import save

_LEVELS = {
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,  # constants folded, what has no effect removed
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,  # operators fused into ONNX Runtime's own
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,  # laid out for this processor
}


def optimize(file: Path, level: str) -> dict[str, Any]:
    """Replace a graph by its rewritten form; the result says what it is bound to."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = _LEVELS[level]
    rewritten = file.with_name("optimized.onnx")
    options.optimized_model_filepath = str(rewritten)
    options.log_severity_level = 3
    # Kept beside the graph, which could not hold 2 GiB.
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimized.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    try:
        onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
        save(onnx.load(str(rewritten)), file)
    except Exception as error:  # ONNX Runtime has a dozen unrelated classes
        raise NotSupported(
            "ONNX Runtime cannot optimize the exported network", detail=f"{type(error).__name__}: {error}"
        ) from error
    finally:
        rewritten.unlink(missing_ok=True)
        rewritten.with_name("optimized.data").unlink(missing_ok=True)
    bound = {} if level == "basic" else {"onnxruntime": onnxruntime.__version__}
    return bound | ({"processor": _processor()} if level == "all" else {})


def _processor() -> str:
    """The model of the processor, as the operating system names it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
