"""The least version of ONNX Runtime that loads a network, found from the network itself.

`features` lists what a network asks of the library: its IR version, the versions of its operator sets, and of each node
the operator with the version of its definition, its attributes, the number of its inputs and outputs, and the types of
its tensors. `onnxruntime_versions` lists the features that came with each minor version. The least version is that of
the newest feature, and never the builder's own by assumption; only a feature that the table cannot know needs the
builder's own. A type float16 is no such feature: where the CPU has no kernel for it, the library casts.

The definitions of the operators come from the installed library, which has just loaded the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from builders.engines.onnxruntime_versions import CAME, HIGHEST, NEWEST, OLDEST
from builders.extras import import_onnxruntime

# Operator sets that the table knows, by their names in a network; "" is ai.onnx.
DOMAINS: Mapping[str, str] = {
    "": "ai.onnx",
    "ai.onnx": "ai.onnx",
    "ai.onnx.ml": "ai.onnx.ml",
    "com.microsoft": "com.microsoft",
}
# TensorProto.DataType, onnx/onnx.proto.
_TYPES = (
    *("undefined", "float", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"),
    *("double", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz"),
    *("float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2"),
)
# Found by trying, in no list of the library: features of a node by attributes that are not 0, and what came with it.
TRIED: Mapping[tuple[str, frozenset[str]], str] = {
    ("ai.onnx:DFT/17", frozenset({"inverse", "onesided"})): "1.25",
    ("ai.onnx:DFT/20", frozenset({"inverse", "onesided"})): "1.25",
    ("ai.onnx:RotaryEmbedding/23", frozenset({"rotary_embedding_dim"})): "1.24",
}
# Attributes whose value is the type of an output.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


@dataclass(frozen=True, slots=True)
class Least:
    """The least version of the library, and the features that need a newer one than the oldest supported: version ->
    features, ascending."""

    version: str
    because: Mapping[str, Sequence[str]]

    @property
    def reason(self) -> str:
        """The features that need this version, for people; "" where the oldest supported version has all."""
        return f"{self.version} came with {', '.join(self.because[self.version][:5])}" if self.because else ""


def _tried(operator: str, attributes: frozenset[str]) -> str:
    return f"{operator}@{'&'.join(sorted(attributes))}!"


_TRIED = {_tried(*key): version for key, version in TRIED.items()}


def least_version(wanted: Iterable[str], built_with: str) -> Least:
    """Return the least version that has these features, all of which the library of version `built_with` has."""
    built_with = ".".join(map(str, _numbers(built_with)))
    if _minor(built_with) > _minor(NEWEST):
        return Least(built_with, {built_with: (f"unknown: made by a version newer than {NEWEST}",)})
    because: dict[str, list[str]] = {}
    for feature in sorted(wanted):
        version = _TRIED.get(feature) or CAME.get(feature, built_with if _is_unknown(feature) else OLDEST)
        if version != OLDEST:
            because.setdefault(version, []).append(feature)
    ascending = sorted(because, key=_numbers)
    return Least(ascending[-1] if ascending else OLDEST, {version: because[version] for version in ascending})


def imported(model: Any) -> Iterator[str]:
    """Yield the features of a parsed network that optimising never changes: `ir/<version>` and
    `<operator set>/<version>`."""
    yield f"ir/{model.ir_version}"
    for entry in model.opset_import:
        if entry.domain in DOMAINS:
            yield f"{DOMAINS[entry.domain]}/{entry.version}"


def _is_unknown(feature: str) -> bool:
    """Whether the table cannot know the feature: of another domain, or an import above all that it has."""
    name, _, number = feature.partition("/")
    return feature.startswith("unknown ") or (":" not in feature and int(number) > HIGHEST.get(name, 0))


def features(model: Any) -> set[str]:
    """Return the features of a parsed network as `onnxruntime_versions` names them, "unknown …" for one that it
    cannot have."""
    found = set(imported(model))
    versions = {_domain(entry.domain): entry.version for entry in model.opset_import}
    for function in model.functions:
        found.add(f"unknown function {function.domain}:{function.name}")
    _Walk(_definitions(), versions, found).graph(model.graph, {})
    return found


def _definitions() -> Mapping[tuple[str, str], list[Any]]:
    import_onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    definitions: dict[tuple[str, str], list[Any]] = {}
    for schema in state.get_all_operator_schema():
        definitions.setdefault((schema.domain, schema.name), []).append(schema)
    return definitions


@dataclass
class _Walk:
    """Collects the features of the nodes of a network. Types of tensors are followed from node to node."""

    definitions: Mapping[tuple[str, str], list[Any]]
    versions: Mapping[str, int]
    found: set[str]

    def graph(self, graph: Any, outer: Mapping[str, str]) -> None:
        types = dict(outer)
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type:
                types[value.name] = _type_name(value.type.tensor_type.elem_type)
        for tensor in graph.initializer:
            types[tensor.name] = _type_name(tensor.data_type)
        for sparse in graph.sparse_initializer:
            types[sparse.values.name] = _type_name(sparse.values.data_type)
        for node in graph.node:
            self.node(node, types)

    def node(self, node: Any, types: dict[str, str]) -> None:
        domain = _domain(node.domain)
        version = self.versions.get(domain, 0)
        known = [one for one in self.definitions.get((domain, node.op_type), ()) if one.since_version <= version]
        if domain not in DOMAINS or not known:
            self.found.add(f"unknown operator {node.domain}:{node.op_type}")
            return
        schema = max(known, key=lambda one: one.since_version)
        name = f"{DOMAINS[domain]}:{node.op_type}/{schema.since_version}"
        self.found |= {name, f"{name}#{len(node.input)}", f"{name}%{len(node.output)}"}
        self.found |= {f"{name}@{attribute.name}" for attribute in node.attribute}
        given = {attribute.name for attribute in node.attribute if attribute.i}
        self.found |= {_tried(*key) for key in TRIED if key[0] == name and key[1] <= given}
        bound: dict[str, str] = {}
        for tensor, parameter in _parameters(node.input, schema.inputs):
            if tensor in types:
                bound.setdefault(parameter, types[tensor])
        self._outputs(node, schema, bound, types)
        for constraint in schema.type_constraints:
            parameter = constraint.type_param_str
            if parameter in bound:
                self.found.add(f"{name}:{parameter}={bound[parameter]}")
            else:
                # An unknown type may be any: the newest that came later decides.
                self.found |= {token for token in CAME if token.startswith(f"{name}:{parameter}=")}
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    self.graph(graph, types)

    def _outputs(self, node: Any, schema: Any, bound: dict[str, str], types: dict[str, str]) -> None:
        """Enter the types of the node's outputs, and bind the parameters that only they have."""
        allowed = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        named = [attribute.i for attribute in node.attribute if attribute.name in _TYPE_ATTRIBUTES and attribute.i]
        for tensor, parameter in _parameters(node.output, schema.outputs):
            if parameter not in bound:
                choices = allowed.get(parameter, [parameter])
                if named:
                    bound[parameter] = _type_name(named[0])
                elif len(choices) == 1 and choices[0].startswith("tensor("):
                    bound[parameter] = choices[0][len("tensor(") : -1]
            if tensor and parameter in bound:
                types[tensor] = bound[parameter]


def _domain(name: str) -> str:
    """Return the one name of an operator set: "" and ai.onnx are the same, and a network may have both."""
    return "" if name == "ai.onnx" else name


def _parameters(tensors: Sequence[str], formal: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield (tensor, type parameter) for the given inputs or outputs of a node. The last formal one may be repeated,
    and has no one type where it is not homogeneous."""
    for place, tensor in enumerate(tensors if formal else ()):
        one = formal[min(place, len(formal) - 1)]
        if tensor and one.isHomogeneous:
            yield tensor, one.typeStr


def _type_name(number: int) -> str:
    return _TYPES[number] if number < len(_TYPES) else f"type{number}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.partition("+")[0].split(".") if part.isdecimal())


def _minor(version: str) -> tuple[int, ...]:
    return _numbers(version)[:2]
