"""What the graph of an ONNX model says without being run: operators that cannot run, inputs that nobody has to feed,
and nodes that give another result each time; and the form in which every model is compiled and run (`fix_defaults`,
`fix_inputs`, `widen_half`).

Pure functions over a parsed model; they read no file. Nodes are those of the graph, of its subgraphs at any depth, and
of the model's own functions that one of these calls. A function that nothing calls does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from builders.engines.failures import failure
from builders.extras import import_extra

# The domains of which ONNX Runtime has operators on the CPU (onnxruntime 1.32, `get_all_opkernel_def`).
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                     "RandomUniformLike"})  # fmt: skip
# Nodes that a message names; a model may have thousands of one kind.
_NAMED = 3
# Up to this version of the format, each initializer is an input too (onnx.proto, `IR_VERSION_2019_1_22`).
_INPUTS_OF_INITIALIZERS = 3


# FLOAT, FLOAT16 and BFLOAT16 of TensorProto.DataType.
_FLOAT, _HALVES = 1, (10, 16)
# Attributes whose value is a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "stash_type", "softmax_precision")


@dataclass(frozen=True, slots=True)
class FixedInput:
    """An input of a network that has one value for every image: `values` are its numbers in C order, or one number for
    all. A name can only be the first of the dimensions in `shape`; it stands for the number of images, and `values` are
    those of one image. Booleans are 0 and 1."""

    name: str
    shape: tuple[int | str, ...]
    values: tuple[Decimal, ...]


def fields_of(fixed: Sequence[FixedInput]) -> list[Any]:
    """Return fixed inputs for a build key: [name, shape, [number as text …]], ascending by name; equal numbers are one
    number."""
    ascending = sorted(fixed, key=lambda one: one.name)
    values = {one.name: one.values[:1] if len(set(one.values)) == 1 else one.values for one in ascending}
    return [[one.name, list(one.shape), [_text_of(value) for value in values[one.name]]] for one in ascending]


def fixed_of(fields: Sequence[Any]) -> tuple[FixedInput, ...]:
    """Return the fixed inputs that `fields_of` described. Raise TypeError, ValueError or ArithmeticError for another
    value."""
    fixed = tuple(FixedInput(name, tuple(shape), tuple(map(Decimal, values))) for name, shape, values in fields)
    if fields_of(fixed) != list(fields):
        raise ValueError("the fixed inputs are not in their one form")
    return fixed


def _text_of(value: Decimal) -> str:
    """Return the one way to write a number: 0.5, 640, -1."""
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def nodes(model: Any) -> Iterator[Any]:
    """Yield every node of a parsed model that may run, also in subgraphs and in functions that are called."""
    # Overloads of a function share its name; each of them may be the one that is called.
    functions: dict[tuple[str, str], list[Any]] = {}
    for function in model.functions:
        functions.setdefault((function.domain, function.name), []).append(function)
    pending: list[Any] = [model.graph]
    while pending:
        for node in pending.pop().node:
            yield node
            pending += functions.pop((node.domain, node.op_type), [])  # popped: once, however often it is called
            for attribute in node.attribute:
                pending += [attribute.g] if attribute.HasField("g") else []
                pending += attribute.graphs


def require_operators(model: Any, name: str) -> None:
    """Raise a failure `unsupported-op` for a model with an operator of an unknown domain, or with a network that was
    compiled for another device (`EPContext`). `name` is the model's in messages."""
    own = {(function.domain, function.name) for function in model.functions}
    for node in nodes(model):
        where = f"{name}: the node {node.name or ', '.join(node.output)} is {node.op_type} of the domain {node.domain}"
        if node.op_type == "EPContext" and (node.domain, node.op_type) not in own:
            raise failure(
                "unsupported-op",
                f"{where}: a network compiled for one device, which no other runs and nothing can be checked against",
                remedy="give the network that it was compiled from; Flightbag compiles it for the host class",
                model=name,
            )
        if node.domain not in _DOMAINS and (node.domain, node.op_type) not in own:
            raise failure(
                "unsupported-op",
                f"{where}, which ONNX Runtime does not have",
                remedy="export the network with operators of ONNX, or with the function that defines this one",
                model=name,
            )


def fix_defaults(model: Any) -> bool:
    """Turn the inputs that have a default (an initializer of the same name) into constants, in place; return whether
    there were any.

    Up to IR version 3 every weight is such an input; later versions may have some. A compiler that merges or folds
    weights would leave inputs without a default behind, so a version of 3 or less becomes 4.
    """
    graph = model.graph
    defaults = {tensor.name for tensor in graph.initializer}
    defaults |= {tensor.values.name for tensor in graph.sparse_initializer}
    inputs = [tensor for tensor in graph.input if tensor.name not in defaults]
    if len(inputs) == len(graph.input):
        return False
    del graph.input[:]
    graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _INPUTS_OF_INITIALIZERS + 1)
    return True


def fix_inputs(model: Any, fixed: Sequence[FixedInput], name: str) -> None:
    """Turn inputs into constants of these values, in place. Raise a failure `wrong-inputs` for an input that the model
    does not have so, and for a value that its dtype does not hold; `name` is the model's in messages."""
    import numpy as np  # with the build extra only

    onnx = import_extra("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    graph = model.graph
    for item in fixed:
        tensor = next((one for one in graph.input if one.name == item.name), None)
        if tensor is None:
            names = ", ".join(one.name for one in graph.input)
            raise _not_fixed(item, f"{name} has no such input", f"name one of its inputs: {names}")
        declared = [dim.dim_value or dim.dim_param or "?" for dim in tensor.type.tensor_type.shape.dim]
        fits = len(declared) == len(item.shape) and all(
            isinstance(size, str) or size == given for size, given in zip(declared, item.shape, strict=True)
        )
        if not fits:
            raise _not_fixed(item, f"{name} takes {declared}, not {list(item.shape)}", f"set shape to {declared}")
        array = _array_of(item, tensor.type.tensor_type.elem_type, name)
        graph.input.remove(tensor)
        batched = item.shape and isinstance(item.shape[0], str)
        if not batched:
            graph.initializer.append(numpy_helper.from_array(array, item.name))
            continue
        images = [one.name for one in graph.input if one.name not in {other.name for other in fixed}]
        if len(images) != 1:
            raise _not_fixed(item, f"the images of {name} are one of {', '.join(images) or 'no input'}", _ONE_IMAGE)
        own = f"flightbag/{item.name}"
        constants = {"row": array, "first": np.array([0], np.int64), "rest": np.array(item.shape[1:], np.int64)}
        graph.initializer.extend(numpy_helper.from_array(value, f"{own}/{key}") for key, value in constants.items())
        before = [
            helper.make_node("Shape", images, [f"{own}/shape"]),
            helper.make_node("Gather", [f"{own}/shape", f"{own}/first"], [f"{own}/count"]),
            helper.make_node("Concat", [f"{own}/count", f"{own}/rest"], [f"{own}/full"], axis=0),
            helper.make_node("Expand", [f"{own}/row", f"{own}/full"], [item.name]),
        ]
        for place, node in enumerate(before):
            graph.node.insert(place, node)


def _array_of(item: FixedInput, elem_type: int, name: str) -> Any:
    """The values of a fixed input, those of one image with a first dimension of 1."""
    import numpy as np

    dtype = np.dtype(import_extra("onnx").helper.tensor_dtype_to_np_dtype(elem_type))
    if dtype.kind not in "biuf":
        raise _not_fixed(item, f"{name} takes it as {dtype}, which is no number", "export the network without it")
    if dtype.kind == "f":
        # -0 has the key of 0.
        numbers = np.array([float(value) + 0.0 for value in item.values]).astype(dtype)
        wrong = not np.isfinite(numbers).all()
    else:
        bounds = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        wrong = any(value != int(value) or not bounds[0] <= value <= bounds[1] for value in item.values)
        numbers = np.array([0 if wrong else int(value) for value in item.values]).astype(dtype)
    if wrong:
        raise _not_fixed(item, f"{name} takes it as {dtype}, which does not hold the value", f"give values of {dtype}")
    shape = tuple(1 if isinstance(size, str) else size for size in item.shape)
    return np.full(shape, numbers[0], dtype) if len(numbers) == 1 else numbers.reshape(shape)


_ONE_IMAGE = "give every input but that of the images a value"


def _not_fixed(item: FixedInput, what: str, remedy: str) -> Exception:
    return failure("wrong-inputs", f"the input {item.name} has a fixed value, and {what}", remedy=remedy)


def has_half(model: Any) -> bool:
    """Return whether anything in a parsed model has half precision (float16, bfloat16)."""
    return any(True for _ in _halves(model))


def widen_half(model: Any) -> None:
    """Turn float16 and bfloat16 into float32 throughout a parsed model, in place, its external data loaded.

    Every number of half precision is a number of float32, so that weights stay what they are; only the roundings
    between the operators go. A CPU has kernels for half precision or not, by its make, and no kernel for bfloat16 in
    most operators: widened, a network gives the same on each. Raise a failure `invalid-model` for a torn tensor.
    """
    import numpy as np

    for message in list(_halves(model)):
        kind = message.DESCRIPTOR.name
        if kind == "TensorProto":
            if len(message.raw_data) % 2:
                raise failure(
                    "invalid-model",
                    f"the tensor {message.name!r} has half precision and {len(message.raw_data)} bytes, an odd number",
                    remedy="export the network again",
                )
            bits = np.frombuffer(message.raw_data, "<u2") if message.raw_data else np.array(message.int32_data, "<u2")
            wide = bits.view("<f2").astype("<f4") if message.data_type == _HALVES[0] else bits.astype("<u4") << 16
            message.ClearField("int32_data")
            message.raw_data = wide.tobytes()
            message.data_type = _FLOAT
        elif kind == "AttributeProto":
            message.i = _FLOAT
        else:
            message.elem_type = _FLOAT


def _halves(model: Any) -> Iterator[Any]:
    """Yield every tensor, type and attribute of half precision, also in subgraphs and functions."""
    pending = [model]
    while pending:
        message = pending.pop()
        fields = {field.name: value for field, value in message.ListFields()}
        is_type = message.DESCRIPTOR.name == "AttributeProto" and fields.get("name") in _TYPE_ATTRIBUTES
        if (
            fields.get("data_type") in _HALVES
            or fields.get("elem_type") in _HALVES
            or (is_type and fields.get("i") in _HALVES)
        ):
            yield message
        for value in fields.values():
            # A repeated field is a sequence; only messages have fields of their own.
            for item in value if hasattr(value, "__getitem__") else (value,):
                if not hasattr(item, "ListFields"):
                    break
                pending.append(item)


def irreproducible(model: Any) -> str:
    """Return the nodes that may be why a model gives another result each time, for a message: operators with random
    numbers, and those that only training needs. Empty where there is none."""
    suspects = []
    for node in nodes(model):
        training = any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
        # The third input of Dropout says whether it trains; older versions have two inputs and never do.
        training |= node.op_type == "Dropout" and len(node.input) > 2
        if node.op_type in _RANDOM or training:
            suspects.append(f"{node.op_type} {node.name or ', '.join(node.output)}")
    more = f" and {len(suspects) - _NAMED} more" if len(suspects) > _NAMED else ""
    return ", ".join(suspects[:_NAMED]) + more
