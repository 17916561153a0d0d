"""ONNX Runtime, each minor version in an environment of its own: `runtimes/<version>` in the environment of the tests.

    python -m tests.support.runtimes          makes every environment, and says which cannot be made
    python -m tests.support.runtimes table    writes builders/engines/onnxruntime_versions.py again from their libraries

An environment has what the extra `onboard` of pyproject.toml asks for, with this version of ONNX Runtime: what a flight
computer installs. It lacks the extra `build`. All but the one package is installed once, for all of them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
import venv
from collections.abc import Collection, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(sys.prefix) / "runtimes"
BASE = "base"
REPOSITORY = Path(__file__).parents[2]
TABLE = REPOSITORY / "builders/engines/onnxruntime_versions.py"
# The first release of each minor version from the oldest supported on: what it has, every later one has.
FIRST = ("1.19.0", "1.20.0", "1.21.0", "1.22.0", "1.23.0", "1.24.1", "1.25.0", "1.26.0", "1.27.0", "1.28.0", "1.29.0")
FIRST = (*FIRST, "1.30.0", "1.31.0", "1.32.0")
# The oldest, and two between it and the newest, which is in the environment of the tests.
SOME = ("1.19.0", "1.22.0", "1.24.1")
# The wheel of Intel, with a second provider that runs on a CPU. Its environment has all that the tests' has.
OPENVINO = "openvino-1.24.1"
_DOMAINS = {"": "ai.onnx", "ai.onnx.ml": "ai.onnx.ml", "com.microsoft": "com.microsoft"}
_OPEN = 2**31 - 1
# Runs with the other library: its kernels for the CPU and the definitions of its operators, as JSON.
_DUMP = """
import json, os
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state
kernels = [
    [k.domain, k.op_name, *k.version_range, {name: list(types) for name, types in k.type_constraints.items()}]
    for k in state.get_all_opkernel_def() if k.provider == "CPUExecutionProvider"
]
definitions = [
    [d.domain, d.name, d.since_version, list(d.attributes), d.max_input, d.max_output,
     {c.type_param_str: list(c.allowed_type_strs) for c in d.type_constraints}]
    for d in state.get_all_operator_schema()
]
print(json.dumps([kernels, definitions]))
"""
# Runs with the other library: whether it loads each of the files, one line each; "" or the words of its error.
_LOAD = """
import json, os, sys
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime
options = onnxruntime.SessionOptions()
options.log_severity_level, options.intra_op_num_threads = 4, 1
for path in json.load(sys.stdin):
    try:
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        print(json.dumps(""))
    except Exception as error:
        print(json.dumps(str(error)[:400] or type(error).__name__))
"""


def installed() -> str:
    """The version of ONNX Runtime in the environment of the tests."""
    return metadata.version("onnxruntime")


def requirements(version: str) -> list[str]:
    """What is installed for a version: ONNX Runtime, also in the wheel of `openvino-<version>`, or FAISS for
    `faiss-<version>`; for BASE what `flightbag[onboard]` asks for."""
    if version != BASE:
        if version.startswith("faiss-"):
            return [f"faiss-cpu=={version[6:]}"]
        wheel, _, number = f"onnxruntime-{version}".rpartition("-")
        return [f"{wheel}=={number}"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["onboard"]]


def oldest_of_pyproject(extra: str = "onboard") -> str:
    """The oldest version of ONNX Runtime that an extra of pyproject.toml allows."""
    text = " ".join(
        tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    )
    match = re.search(r"onnxruntime>=([0-9.]+)", text)
    assert match is not None
    return match[1]


def environment(version: str) -> tuple[Path, str]:
    """Return (the environment of this version, ""), made if it is absent; or why it cannot be made.

    It has the packages of the environment BASE, too, behind its own, OPENVINO those of the tests: what differs is
    installed alone.
    """
    folder, begun = ROOT / version, ROOT / f"{version}.part-{os.getpid()}"
    if not folder.is_dir():
        behind = Path(sys.prefix) if version == OPENVINO else ROOT / BASE
        if version not in (BASE, OPENVINO) and (why := environment(BASE)[1]):
            return folder, why
        venv.create(begun, symlinks=True)
        if version != BASE:
            packages = Path("lib", f"python{sys.version_info.major}.{sys.version_info.minor}", "site-packages")
            (begun / packages / "base.pth").write_text(f"{behind / packages}\n")
        command = [sys.executable, "-m", "pip", "--python", str(begun / "bin/python"), "install", "--quiet"]
        options = ["--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
        options += [] if version == BASE else ["--no-deps"]
        done = subprocess.run([*command, *options, *requirements(version)], check=False, capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(begun, ignore_errors=True)
            return folder, f"the environment {version} cannot be installed here: {done.stderr.strip()[-300:]}"
        try:
            begun.rename(folder)
        except OSError:  # somebody else was quicker
            shutil.rmtree(begun, ignore_errors=True)
    return folder, ""


def python(version: str, *arguments: str, text: str = "", cwd: Path = REPOSITORY) -> str:
    """Return what Python prints in the environment of this version, with the repository to import from."""
    command = [str(ROOT / version / "bin/python"), *arguments]
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, cwd=cwd, env=variables)
    assert done.returncode == 0, f"with onnxruntime {version}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def loads(version: str, paths: Sequence[Path]) -> list[str]:
    """Return for each network "" where the library of this version loads it, else the words of its error."""
    return [
        json.loads(line) for line in python(version, "-c", _LOAD, text=json.dumps(list(map(str, paths)))).splitlines()
    ]


@functools.cache
def tokens(version: str) -> frozenset[str]:
    """Return the features of the library of this version, as `onnxruntime_needs.features` names them."""
    kernels, definitions = json.loads(python(version, "-c", _DUMP))
    return frozenset(_tokens(kernels, definitions) | _imports(version))


def _tokens(kernels: Collection[Any], definitions: Collection[Any]) -> set[str]:
    of_operator: dict[tuple[str, str], list[Any]] = {}
    for domain, name, *kernel in kernels:
        of_operator.setdefault((domain, name), []).append(kernel)
    found = set()
    for domain, name, since, attributes, inputs, outputs, constraints in definitions:
        # A kernel without an end serves only the definition that it starts with: it cannot know what a later one means.
        usable = [
            types
            for first, last, types in of_operator.get((domain, name), ())
            if first == since or (last != _OPEN and first < since <= last)
        ]
        if domain not in _DOMAINS or not usable:
            continue
        operator = f"{_DOMAINS[domain]}:{name}/{since}"
        found |= {operator, *(f"{operator}@{attribute}" for attribute in attributes)}
        for most, mark in ((inputs, "#"), (outputs, "%")):
            found |= {f"{operator}{mark}{count}" for count in range(most + 1 if most != _OPEN else 0)}
        for parameter, allowed in constraints.items():
            served = {one for types in usable for one in types.get(parameter, allowed)} & set(allowed)
            found |= {f"{operator}:{parameter}={one[7:-1]}" for one in served if one.startswith("tensor(")}
    # Where the CPU has no kernel for float16, the library casts.
    return {token for token in found if not token.endswith("=float16")}


def _imports(version: str) -> set[str]:
    """The IR versions and operator sets that the library takes, found by trying."""
    onnx = __import__("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    value = [helper.make_tensor_value_info(name, kind, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    tried: dict[str, bytes] = {}
    for ir in range(3, 20):
        tried[f"ir/{ir}"] = _network(helper, graph, ir, [("", 13)])
    for domain, most in (("", 40), ("ai.onnx.ml", 9), ("com.microsoft", 4)):
        for number in range(1 if domain else 7, most):
            imports = [("", 13), (domain, number)] if domain else [("", number)]
            tried[f"{_DOMAINS[domain]}/{number}"] = _network(helper, graph, 8, imports)
    folder = ROOT / f"tried-{version}-{os.getpid()}"
    folder.mkdir()
    try:
        paths = {token: folder / f"{number}.onnx" for number, token in enumerate(tried)}
        for token, path in paths.items():
            path.write_bytes(tried[token])
        return {token for token, error in zip(paths, loads(version, [*paths.values()]), strict=True) if not error}
    finally:
        shutil.rmtree(folder)


def _network(helper: Any, graph: Any, ir: int, imports: Sequence[tuple[str, int]]) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*one) for one in imports])
    model.ir_version = ir
    return bytes(model.SerializeToString())


def came(versions: Sequence[str]) -> dict[str, set[str]]:
    """Return version -> the features that came with it, for ascending versions; of the first only the highest imports.

    An operator that is new needs no mention of its parts.
    """
    seen = tokens(versions[0])
    imports = sorted((token for token in seen if ":" not in token), key=lambda token: int(token.partition("/")[2]))
    highest = {token.partition("/")[0]: token for token in imports}
    new: dict[str, set[str]] = {_minor(versions[0]): {*highest.values()}}
    for version in versions[1:]:
        has = tokens(version)
        fresh = has - seen
        seen = seen | has
        new[_minor(version)] = {token for token in fresh if _operator(token) == token or _operator(token) not in fresh}
    return new


def _operator(token: str) -> str:
    match = re.match(r"[a-z.]+:\w+/\d+", token)
    return match[0] if match else token


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def render(new: Mapping[str, set[str]]) -> str:
    """Return the source of `onnxruntime_versions`."""
    lines = []
    for version, found in new.items():
        operators: dict[str, list[str]] = {}
        for token in sorted(found):
            operators.setdefault(_operator(token), []).append(token.removeprefix(_operator(token)))
        for name, parts in operators.items():
            head = f"{version} {name}"
            lines += [f"{head} {part}" for part in textwrap.wrap(" ".join(parts), 70)] or [head]
        lines += [] if operators else [version]
    return _HEAD + "\n".join(lines) + _FOOT


_HEAD = '''"""The features that came with each minor version of ONNX Runtime: what `onnxruntime_needs` compares with.

`python -m tests.support.runtimes table` writes this file from the kernels and definitions of the libraries themselves;
`tests/builders/engines/test_onnxruntime_versions.py` compares both. A line has a version, an import or an operator, and
what is new of it: `ir/11`; `ai.onnx/23`; `ai.onnx:Conv/22`, an operator by the version of its definition; `@name`, an
attribute; `#10` and `%4`, a number of inputs and outputs; `:T=int8`, a type.
"""

from __future__ import annotations

from collections.abc import Mapping

_TABLE = """
'''
_FOOT = '''
"""
_ROWS = [line.split() for line in _TABLE.split("\\n") if line]
# The oldest version that is supported, as pyproject.toml says for the extra `onboard`, and the newest that is known.
OLDEST, NEWEST = _ROWS[0][0], _ROWS[-1][0]
# Feature -> the minor version that it came with; what is not here, the oldest has.
CAME: Mapping[str, str] = {row[1] + part: row[0] for row in _ROWS if len(row) > 1 for part in (row[2:] or [""])}
# What a network imports -> the highest version of it that any of these libraries takes.
HIGHEST: dict[str, int] = {}
for _name, _, _number in (feature.partition("/") for feature in CAME if ":" not in feature):
    HIGHEST[_name] = max(HIGHEST.get(_name, 0), int(_number))
'''


def main(arguments: Sequence[str]) -> int:
    absent = {version: why for version in FIRST if (why := environment(version)[1])}
    print("\n".join(absent.values()) or f"{len(FIRST)} environments in {ROOT.name}")
    if arguments == ["table"] and not absent:
        TABLE.write_text(render(came(FIRST)))
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
