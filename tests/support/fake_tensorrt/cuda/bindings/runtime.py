# ruff: noqa: N801, N802, N803, N815 - the names are the library's
"""The CUDA runtime as `cuda.bindings.runtime` offers it, over this process's memory: what the backend uses of it.

FAKE_CUDA_DEVICE names the machine (`DEVICES`); FAKE_TENSORRT_FAIL may hold `cuda-memory` or `cuda-none`. A call gives a
tuple whose first item is an error code. Buffers are checked: an address that was not given out, a copy beyond a
buffer's end or a stream that is none is an error, and what is left over can be counted (`buffers`, `streams`).
"""

from __future__ import annotations

import ctypes
import enum
import os


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStream_t:
    def __int__(self) -> int:
        return id(self)


class cudaDeviceProp:
    def __init__(self, name: bytes, major: int, minor: int, processors: int, memory: int) -> None:
        self.name, self.major, self.minor = name, major, minor
        self.multiProcessorCount, self.totalGlobalMem = processors, memory


# Name -> (properties, CUDA version of the driver).
DEVICES = {
    "orin": (cudaDeviceProp(b"Orin", 8, 7, 16, 65_898_971_136), 12060),
    "rtx": (cudaDeviceProp(b"NVIDIA GeForce RTX 4090", 8, 9, 128, 25_386_352_640), 12040),
    "h100": (cudaDeviceProp(b"NVIDIA H100 80GB HBM3", 9, 0, 132, 85_028_765_696), 13000),
}
buffers: dict[int, ctypes.Array[ctypes.c_char]] = {}
streams: set[int] = set()
_Code = cudaError_t


def _device() -> tuple[cudaDeviceProp, int]:
    return DEVICES[os.environ.get("FAKE_CUDA_DEVICE", "rtx")]


def _fails(how: str) -> bool:
    return how in os.environ.get("FAKE_TENSORRT_FAIL", "").split(",")


def cudaDriverGetVersion() -> tuple[cudaError_t, int]:
    return _Code.cudaSuccess, 0 if _fails("cuda-none") else _device()[1]


def cudaGetDeviceCount() -> tuple[cudaError_t, int | None]:
    if _fails("cuda-none"):
        return _Code.cudaErrorInsufficientDriver, None
    return _Code.cudaSuccess, 1


def cudaGetDeviceProperties(device: int) -> tuple[cudaError_t, cudaDeviceProp | None]:
    if _fails("cuda-none") or device != 0:
        return _Code.cudaErrorInsufficientDriver, None
    return _Code.cudaSuccess, _device()[0]


def cudaStreamCreate() -> tuple[cudaError_t, cudaStream_t]:
    stream = cudaStream_t()
    streams.add(int(stream))
    return _Code.cudaSuccess, stream


def cudaStreamDestroy(stream: cudaStream_t) -> tuple[cudaError_t]:
    streams.remove(int(stream))
    return (_Code.cudaSuccess,)


def cudaStreamSynchronize(stream: cudaStream_t) -> tuple[cudaError_t]:
    return (_Code.cudaSuccess if int(stream) in streams else _Code.cudaErrorInvalidResourceHandle,)


def cudaMalloc(size: int) -> tuple[cudaError_t, int | None]:
    if _fails("cuda-memory"):
        return _Code.cudaErrorMemoryAllocation, None
    buffer = ctypes.create_string_buffer(size)
    buffers[ctypes.addressof(buffer)] = buffer
    return _Code.cudaSuccess, ctypes.addressof(buffer)


def cudaFree(devPtr: int) -> tuple[cudaError_t]:
    del buffers[devPtr]
    return (_Code.cudaSuccess,)


def cudaMemcpyAsync(dst: int, src: int, count: int, kind: cudaMemcpyKind, stream: cudaStream_t) -> tuple[cudaError_t]:
    if not isinstance(kind, cudaMemcpyKind):
        raise TypeError(f"kind is {type(kind)}")
    device = dst if kind == cudaMemcpyKind.cudaMemcpyHostToDevice else src
    if device not in buffers or count > len(buffers[device]) or int(stream) not in streams:
        return (_Code.cudaErrorInvalidValue,)
    ctypes.memmove(dst, src, count)
    return (_Code.cudaSuccess,)
