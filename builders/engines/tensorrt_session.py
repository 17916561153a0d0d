"""Run an engine with TensorRT or TensorRT for RTX: buffers on the device for each run, one stream, NumPy arrays as
results.

A session refuses shapes that its engine was not built for before it copies any data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from builders.engines.base import TensorInfo
from builders.engines.failures import failure
from builders.engines.tensorrt_library import cuda_result, freeing, make_log, require_device
from builders.extras import import_extra
from store.errors import Invalid

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}


def deserialise(tensorrt: Any, cuda: Any, log: Any, data: bytes | memoryview) -> tuple[Any, Any]:
    """Return (runtime, engine) for the bytes of an engine; the runtime must outlive the engine.

    Raise Invalid if the bytes are not an engine, Unavailable or Refused if this machine cannot run it. CUDA is asked
    first, because a runtime that is made without a driver crashes the process.
    """
    require_device(cuda)
    try:
        runtime = tensorrt.Runtime(log)
    except TypeError as error:  # the bindings raise it if the library returns no object
        raise log.failure("TensorRT does not start") from error
    # Version-compatible engines and engines with plug-ins contain code. It is approved like their weights: the caller
    # has verified the engine's bytes.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise log.failure("TensorRT does not load the engine")
    return runtime, engine


class TensorRtSession:
    """An engine ready to run, in one thread at a time: execution contexts are not safe for threads."""

    @freeing
    def __init__(self, tensorrt: Any, cuda: Any, data: bytes | memoryview) -> None:
        self._log = make_log(tensorrt)
        self._cuda = cuda
        self._runtime, engine = deserialise(tensorrt, cuda, self._log, data)
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._log.failure("TensorRT cannot allocate memory to run the engine")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        self.inputs = tuple(_end(engine, name) for name in inputs)
        self.outputs = tuple(_end(engine, name) for name in names if name not in inputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Return output name -> array, for input name -> array as `inputs` lists them.

        Raise Invalid for feeds that the engine does not take, Unavailable if memory runs out.
        """
        np = import_extra("numpy")
        cuda, context = self._cuda, self._context
        self._log.forget()
        check_feeds(self.inputs, feeds)
        arrays = {info.name: np.ascontiguousarray(feeds[info.name]) for info in self.inputs}
        for name, array in arrays.items():
            if not context.set_input_shape(name, array.shape):
                raise _not_taken(f"{name} {list(array.shape)}: {'; '.join(self._log.errors)}")
        if unknown := context.infer_shapes():
            raise _not_taken(f"these shapes, from which those of {', '.join(unknown)} do not follow")
        results = {}
        for info in self.outputs:
            shape = tuple(context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                raise failure("failed", f"the shape of the output {info.name} depends on the values of the inputs")
            results[info.name] = np.empty(shape, info.dtype)
        with ExitStack() as stack:
            stream = cuda_result(cuda, cuda.cudaStreamCreate(), "no CUDA stream can be created")
            stack.callback(cuda.cudaStreamDestroy, stream)
            addresses = {}
            for name, array in (*arrays.items(), *results.items()):
                # TensorRT refuses a null address, even for an empty array.
                allocated = cuda.cudaMalloc(max(array.nbytes, 1))
                addresses[name] = cuda_result(cuda, allocated, f"the GPU has no memory for {name}")
                stack.callback(cuda.cudaFree, addresses[name])
                if not context.set_tensor_address(name, int(addresses[name])):
                    raise self._log.failure(f"TensorRT refuses the buffer of {name}")
            kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            for name, array in arrays.items():
                result = cuda.cudaMemcpyAsync(addresses[name], array.ctypes.data, array.nbytes, kind, stream)
                cuda_result(cuda, result, f"{name} cannot be copied to the GPU")
            if not context.execute_async_v3(int(stream)):
                raise self._log.failure("the engine does not run")
            kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            for name, array in results.items():
                result = cuda.cudaMemcpyAsync(array.ctypes.data, addresses[name], array.nbytes, kind, stream)
                cuda_result(cuda, result, f"{name} cannot be copied from the GPU")
            cuda_result(cuda, cuda.cudaStreamSynchronize(stream), "the engine does not run to its end")
        return results


def check_feeds(inputs: tuple[TensorInfo, ...], feeds: Mapping[str, Any]) -> None:
    """Raise Invalid unless `feeds` has an array of the right dtype and shape for each input, and no other array."""
    if feeds.keys() != {info.name for info in inputs}:
        raise _not_taken(f"{', '.join(sorted(feeds)) or 'nothing'} for {', '.join(info.name for info in inputs)}")
    for info in inputs:
        dtype, shape = str(feeds[info.name].dtype), feeds[info.name].shape
        fits = len(shape) == len(info.shape) and all(b in ("?", a) for a, b in zip(shape, info.shape, strict=True))
        if dtype != info.dtype or not fits:
            raise _not_taken(f"{info.name} {dtype} {list(shape)}, expected {info.dtype} {list(info.shape)}")


def _not_taken(what: str) -> Invalid:
    remedy = "pass arrays of the dtypes and shapes that the engine was built for"
    return Invalid(f"the engine does not run on {what}", remedy=remedy)


def _end(engine: Any, name: str) -> TensorInfo:
    return tensor_info(name, engine.get_tensor_dtype(name).name, engine.get_tensor_shape(name))


def tensor_info(name: str, dtype: str, shape: Sequence[int]) -> TensorInfo:
    """Return an input or output with a dtype as the library names it, and -1 for an open dimension."""
    if dtype not in _DTYPES:
        raise failure(
            "unsupported-op",
            f"{name} has the dtype {dtype}, which NumPy does not have",
            remedy="export the network with float32 or float16 inputs and outputs",
        )
    return TensorInfo(name, _DTYPES[dtype], tuple("?" if dim < 0 else dim for dim in shape))
