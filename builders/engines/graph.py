"""What the graph of an ONNX model says without being run: operators that cannot run, inputs that nobody has to feed,
and nodes that give another result each time.

Pure functions over a parsed model; they read no file. Nodes are those of the graph, of its subgraphs at any depth, and
of the model's own functions that one of these calls. A function that nothing calls does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from builders.engines.failures import failure

# The domains of which ONNX Runtime has operators on the CPU (onnxruntime 1.32, `get_all_opkernel_def`).
_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
_RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                     "RandomUniformLike"})  # fmt: skip
# Nodes that a message names; a model may have thousands of one kind.
_NAMED = 3
# Up to this version of the format, each initializer is an input too (onnx.proto, `IR_VERSION_2019_1_22`).
_INPUTS_OF_INITIALIZERS = 3


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
