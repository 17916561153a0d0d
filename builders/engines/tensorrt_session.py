"""Running an engine with TensorRT: buffers on the device for each run, one stream, results as NumPy arrays.

Shapes that an engine was not built for are refused before anything is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from builders.engines.base import TensorInfo
from builders.engines.failures import failure
from builders.engines.tensorrt_library import answer, make_log
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


def deserialise(tensorrt: Any, log: Any, data: bytes | memoryview) -> tuple[Any, Any]:
    """(runtime, engine) of the bytes of an engine; the runtime has to outlive the engine.

    Raises Invalid where these are no engine, Unavailable or Refused where this is not the machine for them.
    """
    try:
        runtime = tensorrt.Runtime(log)
    except TypeError as error:  # how the bindings say that there is none
        raise log.failure("TensorRT does not start") from error
    # Version-compatible engines and those with plug-ins carry code. Theirs is as approved as their weights: whoever
    # loads an engine has verified its bytes.
    runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise log.failure("TensorRT does not load the engine")
    return runtime, engine


class TensorRtSession:
    """An engine ready to run; for one thread at a time, as execution contexts are."""

    def __init__(self, tensorrt: Any, cuda: Any, data: bytes | memoryview) -> None:
        self._log = make_log(tensorrt)
        self._cuda = cuda
        self._runtime, engine = deserialise(tensorrt, self._log, data)
        self._engine = engine
        self._context = engine.create_execution_context()
        if self._context is None:
            raise self._log.failure("TensorRT has no room to run the engine")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        taken = [name for name in names if engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT]
        self.inputs = tuple(_info(engine, name) for name in taken)
        self.outputs = tuple(_info(engine, name) for name in names if name not in taken)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Output name -> array, for input name -> array as `inputs` says.

        Raises Invalid for feeds that the engine does not take, Unavailable where memory ran out.
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
            raise _not_taken(f"the shapes of {', '.join(unknown)} do not follow from those given")
        results = {}
        for info in self.outputs:
            shape = tuple(context.get_tensor_shape(info.name))
            if min(shape, default=0) < 0:
                raise failure("failed", f"the shape of the output {info.name} depends on what the inputs hold")
            results[info.name] = np.empty(shape, info.dtype)
        with ExitStack() as stack:
            stream = answer(cuda, cuda.cudaStreamCreate(), "no stream")
            stack.callback(cuda.cudaStreamDestroy, stream)
            where = {}
            for name, array in (*arrays.items(), *results.items()):
                # An address of nothing is refused, even for an empty array.
                where[name] = answer(cuda, cuda.cudaMalloc(max(array.nbytes, 1)), f"no room for {name} on the GPU")
                stack.callback(cuda.cudaFree, where[name])
                if not context.set_tensor_address(name, int(where[name])):
                    raise self._log.failure(f"the buffer of {name} is refused")
            kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
            for name, array in arrays.items():
                copied = cuda.cudaMemcpyAsync(where[name], array.ctypes.data, array.nbytes, kind, stream)
                answer(cuda, copied, f"{name} cannot be copied to the GPU")
            if not context.execute_async_v3(int(stream)):
                raise self._log.failure("the engine does not run")
            kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
            for name, array in results.items():
                copied = cuda.cudaMemcpyAsync(array.ctypes.data, where[name], array.nbytes, kind, stream)
                answer(cuda, copied, f"{name} cannot be copied from the GPU")
            answer(cuda, cuda.cudaStreamSynchronize(stream), "the engine does not run to its end")
        return results


def check_feeds(inputs: tuple[TensorInfo, ...], feeds: Mapping[str, Any]) -> None:
    """Raises Invalid unless there is an array of the right dtype and rank for each input and no other."""
    if feeds.keys() != {info.name for info in inputs}:
        raise _not_taken(f"{', '.join(sorted(feeds)) or 'nothing'} for {', '.join(info.name for info in inputs)}")
    for info in inputs:
        dtype, shape = str(feeds[info.name].dtype), feeds[info.name].shape
        fits = len(shape) == len(info.shape) and all(b in ("?", a) for a, b in zip(shape, info.shape, strict=True))
        if dtype != info.dtype or not fits:
            raise _not_taken(f"{info.name} {dtype} {list(shape)}, which is {info.dtype} {list(info.shape)}")


def _not_taken(what: str) -> Invalid:
    return Invalid(f"does not run on {what}", remedy="give what the engine was built for")


def _info(engine: Any, name: str) -> TensorInfo:
    dtype = engine.get_tensor_dtype(name).name
    if dtype not in _DTYPES:
        raise Invalid(f"{name} is {dtype}, which NumPy has not", remedy="export float32 or float16 inputs and outputs")
    return TensorInfo(name, _DTYPES[dtype], tuple("?" if dim < 0 else dim for dim in engine.get_tensor_shape(name)))
