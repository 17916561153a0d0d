"""The known ways in which a compilation fails, each with the class of error that a handler decides by.

A failure is made in the process that compiles, crosses to its parent as JSON, and is raised there again with the same
class, kind and remedy. An error without a known kind crosses as `failed`, with its own words (`unexpected_failure`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from store.errors import NO_SPACE, FlightbagError, Invalid, Refused, Unavailable, no_space

# Bytes free below which a disk counts as full.
_SMALL = 64 << 10

# Kind -> (class, the remedy where the place that fails knows no better one).
KINDS: Mapping[str, tuple[type[FlightbagError], str]] = {
    "unsupported-op": (
        Invalid,
        "export the network with operators that the backend supports, or name the plug-in library that has them",
    ),
    "invalid-model": (Invalid, "export the network again"),
    "not-repeatable": (
        Invalid,
        "export the network for inference: call model.eval() before torch.onnx.export, set no `training`, and leave "
        "out operators with random numbers",
    ),
    "wrong-inputs": (Invalid, "declare the inputs as the model has them, or export the network again"),
    "calibration": (Invalid, "mend the imagery of the mission: the calibration tiles come from it"),
    "version": (Unavailable, "install a version that supports this, or ask for what the installed version supports"),
    "out-of-memory": (Unavailable, "free memory, allow more in [compile] memory_mib, or use a larger machine"),
    "no-space": (Unavailable, "free some space there, or name another folder for temporary files in TMPDIR"),
    "timed-out": (Unavailable, "allow more in [compile] timeout_s, or use a faster machine"),
    "cancelled": (Unavailable, "build again; nothing was kept"),
    "wrong-output": (
        Refused,
        "export the network another way, build it under another salt, or allow more in [tolerances]",
    ),
    "empty-output": (
        Refused,
        "lower the threshold by which the network finds something, and export it again, or name an output in compare "
        "that always has numbers",
    ),
    "unproven": (
        Refused,
        'build on a machine that runs it, or set proof = "aboard" in [target], and probe the mission on each aircraft',
    ),
    "bad-reference": (Invalid, "save the inputs and outputs of one run with numpy.savez"),
    "wrong-export": (
        Refused,
        "save what the author's network computes in float32 or float16 (of bfloat16, model.float()); then export the "
        "network with another exporter, opset or version, or allow more in [tolerances]",
    ),
    "wrong-host": (Refused, "build the engine for this machine, or load it on a machine that it was built for"),
    "failed": (Unavailable, "read the end of the log"),
}


def failure(kind: str, message: str, *, remedy: str = "", **fields: object) -> FlightbagError:
    """Return the error of this kind, with the remedy of the kind unless `remedy` is given.

    `fields` are values that JSON can hold.
    """
    error_class, usual_remedy = KINDS[kind]
    facts: dict[str, Any] = {"kind": kind, **fields}
    return error_class(message, remedy=remedy or usual_remedy, **facts)


def unexpected_failure(error: BaseException, folder: str | os.PathLike[str]) -> FlightbagError:
    """Return the failure for an error of no known kind: `no-space` where the error or the disk of `folder`, in which
    the work was done, says so; else `failed`, with the name of the error's class and its own words on one line."""
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return no_space(str(error.filename or folder), error.errno)
    if is_full(folder):  # a library may say that a file is short, or nothing
        return no_space(str(folder))
    return failure("failed", f"{type(error).__name__}: {words_of(error)}")


def words_of(error: BaseException) -> str:
    """Return what a library says in an error, on one line: a message has one."""
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


def is_full(folder: str | os.PathLike[str]) -> bool:
    """Whether the disk of a folder has no room for more than some small files."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return False
    return state.f_blocks > 0 and state.f_bavail * state.f_frsize < _SMALL


def to_json(error: FlightbagError) -> dict[str, Any]:
    """Return a failure as JSON. An error whose kind is not in `KINDS` becomes `failed` and keeps its remedy."""
    facts = {key: value for key, value in error.fields.items() if isinstance(value, str | int | float | list)}
    return {
        "message": error.message,
        "remedy": error.remedy,
        "fields": facts | {"kind": error.kind if error.kind in KINDS else "failed"},
    }


def from_json(value: Mapping[str, Any], **fields: object) -> FlightbagError:
    """Return the failure that `to_json` described. `fields` are added, and replace fields of the same name."""
    facts = dict(value["fields"])
    return failure(facts.pop("kind"), value["message"], remedy=value["remedy"], **{**facts, **fields})
