"""The few calls of NVIDIA's driver that a runtime needs: a device, its memory, one stream.

The driver's own library is all there is to install, so no Python package of CUDA's is needed.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgml_tune.errors import NotSupported, OutOfMemory, SystemFault

_LIBRARY = "libcuda.so.1"
_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NAME_BYTES = 256
_ADDRESS, _SIZE = ctypes.c_uint64, ctypes.c_size_t
_ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (ctypes.POINTER(ctypes.c_int),),
    "cuDeviceGetCount": (ctypes.POINTER(ctypes.c_int),),
    "cuDeviceGet": (ctypes.POINTER(ctypes.c_int), ctypes.c_int),
    "cuDeviceGetName": (ctypes.c_char_p, ctypes.c_int, ctypes.c_int),
    "cuDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_int),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuStreamCreate": (ctypes.POINTER(ctypes.c_void_p), ctypes.c_uint),
    "cuStreamSynchronize": (ctypes.c_void_p,),
    "cuStreamDestroy_v2": (ctypes.c_void_p,),
    "cuMemAlloc_v2": (ctypes.POINTER(_ADDRESS), _SIZE),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, ctypes.c_void_p, _SIZE, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, _ADDRESS, _SIZE, ctypes.c_void_p),
}


@dataclass(frozen=True, slots=True)
class Device:
    """The GPU that is used, the first one that the process may see."""

    name: str
    compute_capability: str  # 9.0
    driver: str  # the version of CUDA that the driver speaks, 13.0

    def to_json(self) -> dict[str, str]:
        return {"device": self.name, "compute_capability": self.compute_capability, "driver": self.driver}


class Driver:
    """The loaded driver with a context on the first device."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NotSupported(
                "there is no NVIDIA driver on this machine",
                detail=f"{_LIBRARY} cannot be loaded: {error}.",
                hint="Use a machine with an NVIDIA GPU, or a version of the model that runs on the CPU.",
            ) from None
        for name, arguments in _ARGUMENTS.items():
            getattr(self._library, name).argtypes = arguments
        self._number = self._find()
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._number)
        self.use()

    def _find(self) -> int:
        count, number = ctypes.c_int(), ctypes.c_int()
        status = self._library.cuInit(0)
        if status == 0:
            self._call("cuDeviceGetCount", ctypes.byref(count))
        if status != 0 or not count.value:
            raise NotSupported(
                "there is no NVIDIA GPU that this process may use",
                detail=f"The driver is there; cuInit returned {status}, devices: {count.value}.",
                hint="SELECT * FROM doctor()",
            )
        self._call("cuDeviceGet", ctypes.byref(number), 0)
        return number.value

    def use(self) -> None:
        """Make the context that of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def device(self) -> Device:
        """What is known of the device."""
        name = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", name, _NAME_BYTES, self._number)
        version = ctypes.c_int()
        self._call("cuDriverGetVersion", ctypes.byref(version))
        driver = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return Device(name.value.decode(), f"{self._attribute(_MAJOR)}.{self._attribute(_MINOR)}", driver)

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, self._number)
        return value.value

    def stream(self) -> Stream:
        return Stream(self)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == _OUT_OF_MEMORY:
            raise OutOfMemory("the GPU has too little free memory", detail=f"{name} returned {status}.")
        if status != 0:
            raise SystemFault("the GPU does not work", detail=f"{name} returned CUDA error {status}.")


class Stream:
    """A queue of copies and runs, which are done when `wait` returns; it owns its buffers on the device."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handle = ctypes.c_void_p()
        self._buffers: dict[str, tuple[int, int]] = {}  # name -> address, bytes
        driver._call("cuStreamCreate", ctypes.byref(self._handle), 1)  # independent of the default stream

    @property
    def handle(self) -> int:
        return self._handle.value or 0

    def buffer(self, name: str, size: int) -> int:
        """The address of a buffer of at least this size; it grows and is kept."""
        address, reserved = self._buffers.get(name, (0, 0))
        if size > reserved:
            if address:
                self._driver._call("cuMemFree_v2", address)
                del self._buffers[name]
            found = _ADDRESS()
            self._driver._call("cuMemAlloc_v2", ctypes.byref(found), size)
            address = found.value
            self._buffers[name] = (address, size)
        return address

    def upload(self, name: str, array: NDArray[Any]) -> int:
        """The address of a copy of the array, which must stay alive until `wait`."""
        contiguous = np.ascontiguousarray(array)
        address = self.buffer(name, contiguous.nbytes)
        self._driver._call("cuMemcpyHtoDAsync_v2", address, contiguous.ctypes.data, contiguous.nbytes, self._handle)
        return address

    def download(self, name: str, array: NDArray[Any]) -> None:
        """Fill the array from a buffer, by the time `wait` returns."""
        address, _ = self._buffers[name]
        self._driver._call("cuMemcpyDtoHAsync_v2", array.ctypes.data, address, array.nbytes, self._handle)

    def wait(self) -> None:
        self._driver._call("cuStreamSynchronize", self._handle)

    def close(self) -> None:
        """Give the memory back."""
        self._driver.use()
        for address, _ in self._buffers.values():
            self._driver._call("cuMemFree_v2", address)
        self._buffers.clear()
        self._driver._call("cuStreamDestroy_v2", self._handle)
