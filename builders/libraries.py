"""The libraries of engines and of search as they are on this machine, each looked at in a process of its own.

A library for another CPU, or beside a broken driver, ends the process that loads it. `look` runs `python -m
builders.libraries REQUEST RESULT FD` as a worker (`builders.engines.isolation`), and returns what it found out.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.engines.backends import BACKENDS, backend, runs_nothing
from builders.engines.isolation import Job, Limits, begin, run_worker, usable_memory
from builders.extras import import_extra, import_onnxruntime
from store.errors import FlightbagError, Unavailable

NAMES = (*BACKENDS, "faiss")
# Loading from a slow disk for the first time takes seconds.
_SECONDS = 120.0
_MAX_ANSWER, _MAX_TEXT = 1 << 16, 2000
_REMEDY = "install the library again, in the build for this machine; one for an accelerator needs its driver"


@dataclass(frozen=True, slots=True)
class Library:
    """A library on this machine: the host class that it makes with the machine, and for ONNX Runtime its execution
    providers. Where it is not usable, `error` says why and `remedy` what to do; `absent` is whether it is simply not
    installed, or has no device here."""

    name: str
    host: str = ""
    version: str = ""
    providers: tuple[str, ...] = ()
    error: str = ""
    remedy: str = ""
    absent: bool = False


def look(name: str, module: str = "builders.libraries") -> Library:
    """Return what a library, one of `NAMES`, is here. Raise Unavailable where that did not come out: the process that
    loads it ended, stood still, or said something else."""
    with tempfile.TemporaryDirectory(prefix="flightbag-", ignore_cleanup_errors=True) as folder:
        job = Job(
            module=module,
            does=f"loads the library of {name}",
            doing=f"loading the library of {name}",
            cwd=Path(folder),
            facts={"library": name},
            max_result=_MAX_ANSWER,
        )
        limits = Limits(usable_memory(), _SECONDS)
        try:
            value, _ = run_worker(job, {"library": name}, Path(folder), limits, lambda _line, _worker: None)
        except Unavailable as error:
            raise error.restated(error.message, remedy=_REMEDY if error.kind == "failed" else error.remedy) from error
    try:
        texts = [value[key] for key in ("host", "version", "error", "remedy")] + value["providers"]
        if not all(type(text) is str and len(text) <= _MAX_TEXT for text in texts):
            raise TypeError("it has a field of a wrong type")
        host, version, wrong, remedy, *providers = texts
        return Library(name, host, version, tuple(providers), wrong, remedy, value["absent"] is True)
    except (KeyError, TypeError) as error:
        what = f"the process that loads the library of {name} gave back something else than what it found"
        raise Unavailable(what, remedy=_REMEDY, kind="failed", library=name) from error


def _described(name: str) -> Mapping[str, Any]:
    if name == "faiss":
        import_extra("numpy")
        from builders.onboard.ann import host_component

        host = host_component()
        return {"host": host, "version": host.partition("-")[2]}
    one = backend(name)
    value: dict[str, Any] = {"host": one.describe_host(), "version": one.version}
    if name == "onnxruntime":
        value["providers"] = import_onnxruntime().get_available_providers()
    return value


def answer(name: str, described: Callable[[str], Mapping[str, Any]] = _described) -> dict[str, Any]:
    """Return what this process finds out about a library, as `look` reads it."""
    empty: dict[str, Any] = {"host": "", "version": "", "providers": [], "error": "", "remedy": "", "absent": False}
    try:
        return {**empty, **described(name)}
    except FlightbagError as error:
        return {**empty, "error": error.message, "remedy": error.remedy, "absent": runs_nothing(error)}


def main(request_path: Path, result_path: Path) -> None:
    """Look at the library of the request, and write the result last."""
    request = json.loads(request_path.read_bytes())
    begin(request["memory"])
    result_path.write_text(json.dumps(answer(request["library"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
