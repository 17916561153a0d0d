"""The process that compiles one engine with ONNX Runtime and measures it against the reference.

Run as `python -m builders.engines.worker REQUEST RESULT`, both JSON files; started by `onnxruntime`, which
says what the two hold. A model that cannot be compiled is an answer (status 0, `refused` in the result); any
other end of the process means that it is not known. It never outlives the process that started it.

Compiles and measures; judges nothing. The reference is the source with every optimisation off.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SEED = 20260718
# Where the norm of a row is this small beside the greatest one its direction is noise; the error counts it.
_NEGLIGIBLE = 1e-6
_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}

Array = NDArray[Any]
