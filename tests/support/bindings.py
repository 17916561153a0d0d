"""TensorRT and CUDA from Python, each version in a folder of the environment: `bindings/<label>`.

    python -m tests.support.bindings               installs what can be installed here, and says what cannot
    python -m tests.support.bindings dump MODULE   prints what a module offers, as JSON

The bindings of TensorRT need the vendor's libraries to be imported; `trt_stubs.c` stands in for these. TensorRT for RTX
and the lean runtimes come with their libraries.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(sys.prefix) / "bindings"
TENSORRT = {
    "10.3": ("tensorrt-cu12-bindings==10.3.0", "10.3.0.30"),
    "10.16": ("tensorrt-cu12-bindings==10.16.1.11", "10.16.1.11"),
    "11.4": ("tensorrt-cu13-bindings==11.4.0.106", "11.4.0.106"),
}
CUDA = {"cuda-12.9": "cuda-bindings==12.9.4", "cuda-13.0": "cuda-bindings==13.0.3"}
RTX = "rtx-1.7"
WHOLE = {
    RTX: ("tensorrt-rtx-cu13-libs==1.7.1.116", "tensorrt-rtx-cu13-bindings==1.7.1.116"),
    "lean-10.16": ("tensorrt-lean-cu12-libs==10.16.1.11", "tensorrt-lean-cu12-bindings==10.16.1.11"),
    "lean-11.4": ("tensorrt-lean-cu13-libs==11.4.0.106", "tensorrt-lean-cu13-bindings==11.4.0.106"),
}
STUBS = Path(__file__).with_name("trt_stubs.c")
REPOSITORY = Path(__file__).parents[2]
_loaded: dict[str, ModuleType] = {}


def install() -> None:
    """One folder a label; a label that cannot be had (another Python or machine) is left out, and its tests skip."""
    wanted = {label: [name] for label, (name, _) in TENSORRT.items()} | {label: list(n) for label, n in WHOLE.items()}
    wanted |= {label: [name, "cuda-pathfinder>=1.1,<2"] for label, name in CUDA.items()}
    for label, names in wanted.items():
        into, begun = ROOT / label, ROOT / f"{label}.part"
        if into.is_dir():
            continue
        shutil.rmtree(begun, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        options = ["--no-compile", "--only-binary", ":all:", "--target", str(begun)]
        if subprocess.run([*command, *options, *names], check=False).returncode == 0:
            begun.rename(into)
        else:
            shutil.rmtree(begun, ignore_errors=True)
            print(f"{' '.join(names)} cannot be installed here; what needs it will skip")


def missing(label: str) -> str:
    """Why the bindings of the label cannot be tried here; "" if they can."""
    if not (ROOT / label).is_dir():
        return f"{ROOT.name}/{label} is not installed: python -m tests.support.bindings"
    if label in TENSORRT and not shutil.which("cc"):
        return "no C compiler for the stub libraries"
    if label in TENSORRT and (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "the stub libraries are for x86-64 Linux"
    return ""


@contextmanager
def reachable(label: str) -> Iterator[pytest.MonkeyPatch]:
    """Let this process, and whatever it starts, import what the label has; skip the test where it is not installed."""
    if reason := missing(label):
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / label))
        sys.modules.update(_loaded)
        yield patch
        # An extension module is loaded once into a process; afterwards nobody finds it.
        for name in [name for name in sys.modules if name.startswith("tensorrt_rtx")]:
            _loaded[name] = sys.modules.pop(name)


def build_stubs(label: str, folder: Path) -> Path:
    """A folder with the three libraries that the bindings of this label import: one file under three names."""
    version = TENSORRT[label][1].split(".")
    defines = [f"-D{name}={part}" for name, part in zip(("MAJOR", "MINOR", "PATCH", "BUILD"), version, strict=True)]
    defines.append(f"-DSTREAM={int(tuple(map(int, version)) >= (10, 13, 3))}")
    libraries = [folder / f"lib{name}.so.{version[0]}" for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin")]
    folder.mkdir()
    command = ["cc", "-shared", "-fPIC", "-O1", *defines, f"-Wl,-soname,{libraries[0].name}"]
    subprocess.run([*command, "-o", str(libraries[0]), str(STUBS)], check=True)
    for library in libraries[1:]:
        library.symlink_to(libraries[0])
    return folder


def run(label: str, stubs: Path | None, arguments: list[str], *, more: tuple[str, ...] = ()) -> str:
    """Standard output of Python with the bindings of the label, and `more` folders, on its path."""
    path = [str(ROOT / label), *more, str(REPOSITORY)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "LD_LIBRARY_PATH": str(stubs or "")}
    command = [sys.executable, "-P", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise AssertionError(f"status {done.returncode}: {done.stderr[-4000:]}")
    return done.stdout


def dump(module: Any) -> dict[str, Any]:
    """Public name -> what it is: a class with its members, and the signatures that are written in documentation."""
    return {
        name: _one(value) for name, value in vars(module).items() if not name.startswith("_") or name == "__version__"
    }


def _one(value: Any, nested: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {"signatures": signatures(value)}
    if inspect.isclass(value):
        result |= {"doc": value.__doc__ or "", "enumeration": sorted(getattr(value, "__members__", ()))}
        if not nested:
            names = [name for name in dir(value) if not name.startswith("_") or name == "__init__"]
            result["members"] = {name: _one(getattr(value, name, None), nested=True) for name in names}
    return result


def signatures(value: Any) -> list[dict[str, Any]]:
    """Each a list of parameters after `self`, how many of them have to be given, and the class of the result.

    Read from documentation, as pybind11 and Cython write it there; a function of Python says it itself.
    """
    if inspect.isfunction(value):
        parameters = [p for p in inspect.signature(value).parameters.values() if p.name != "self"]
        required = [p for p in parameters if p.default is p.empty]
        return [{"names": [p.name for p in parameters], "required": len(required), "result": ""}]
    found = []
    for match in re.finditer(r"^(?:\d+\. )?\w+\((.*)\)(?: -> (.*))?$", getattr(value, "__doc__", None) or "", re.M):
        parts = [part.strip() for part in re.split(r",(?![^\[(<]*[\])>])", match[1]) if part.strip()]
        if any(part.startswith("*") for part in parts):
            continue  # the heading of overloads
        names = [_name_of(part) for part in parts]
        if names[:1] == ["self"]:
            names, parts = names[1:], parts[1:]
        result = (match[2] or "").rpartition(".")[2]
        found.append({"names": names, "required": sum("=" not in part for part in parts), "result": result})
    return found


def _name_of(part: str) -> str:
    """`name: type = default` as pybind11 writes, `type name` or `name: type` as Cython does."""
    return part.partition(":")[0].partition("=")[0].split()[-1]


if __name__ == "__main__":
    if sys.argv[1:2] == ["dump"]:
        print(json.dumps(dump(importlib.import_module(sys.argv[2]))))
        sys.stdout.flush()
        os._exit(0)  # objects of the stubs do not survive being freed
    install()
