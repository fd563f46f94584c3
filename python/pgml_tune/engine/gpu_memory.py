"""Memory of a GPU, as far as this process uses one; asked without loading a runtime."""

from __future__ import annotations

import ctypes
import os

_LIBRARY = "libcuda.so.1"


def memory_in_use() -> int | None:
    """Bytes of the device that all processes have in use; None where this one has loaded nothing onto a GPU."""
    try:
        library = ctypes.CDLL(_LIBRARY, mode=os.RTLD_NOLOAD)
    except OSError:
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    status = library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return None if status else total.value - free.value
