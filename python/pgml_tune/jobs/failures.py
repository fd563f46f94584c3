"""Says of whatever a job fails with what its caller can do about it."""

from __future__ import annotations

import errno

from pgml_tune.errors import DiskFull, JobFailed, NotReady, OutOfMemory, TuneError

# As torch, ONNX Runtime and safetensors write it; each has several classes of errors, none of which says so.
_NO_MEMORY = ("not enough memory", "out of memory", "failed to allocate memory", "bad allocation", "std::bad_alloc")
_NO_SPACE = ("no space left on device", "disk quota exceeded")
_LONGEST = 1000


def explain(error: Exception) -> TuneError:
    """The error that a job reports."""
    if isinstance(error, TuneError):
        return error
    text = str(error).lower()
    reason = f"{type(error).__name__}: {error}"[:_LONGEST]
    if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
        return OutOfMemory(
            "the job needs more memory than it may have",
            detail=reason,
            hint="Use a smaller batch_size or max_seq_length, or raise job_memory_bytes with configure().",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT) or _is_about_space(text):
        return DiskFull("no space left for the files of the job", detail=reason)
    if isinstance(error, ModuleNotFoundError):
        return NotReady(
            f'Python package "{error.name}" is not installed',
            detail="Importing and training models need the training libraries; inference does not.",
            hint="make install-train",
        )
    if isinstance(error, OSError):
        hint = "Run it as the operating system user that owns the model root."
        detail = f"{error.filename}: {error.strerror}." if error.filename else f"{error}."
        return NotReady("a file cannot be read or written", detail=detail, hint=hint)
    return JobFailed("38000", "internal error", detail=reason)


def _is_about_space(text: str) -> bool:
    return any(words in text for words in _NO_SPACE)
