"""The known ways in which a compilation fails, each with the class of error that a handler goes by.

A failure is made in the process that compiles, crosses to its parent as JSON, and is raised there as what it was.
What is not known is not given a name here: it crosses with the words that it came with (`as_it_came`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from store.errors import FlightbagError, Invalid, Refused, Unavailable

# Kind -> (class, what to do about it where whoever found it knows nothing better).
KINDS: Mapping[str, tuple[type[FlightbagError], str]] = {
    "unsupported-op": (
        Invalid,
        "export it with operators that the backend has, or give their plug-in library",
    ),
    "invalid-model": (Invalid, "export the network again"),
    "wrong-inputs": (Invalid, "declare the inputs as the model has them, or export it again"),
    "calibration": (Invalid, "mend the imagery of the mission, from which the calibration tiles come"),
    "version": (Unavailable, "install a version that can, or ask for what this one has"),
    "out-of-memory": (Unavailable, "free memory, allow more in [compile] memory_mib, or use a larger machine"),
    "timed-out": (Unavailable, "allow more in [compile] timeout_s, or use a faster machine"),
    "cancelled": (Unavailable, "build again; nothing was kept"),
    "wrong-output": (
        Refused,
        "export the model another way, build it under another salt, or allow more in [tolerances]",
    ),
    "wrong-host": (Refused, "build the engine for this machine, or load it on one that it was built for"),
    "failed": (Unavailable, "see what the end of the log says"),
}


def failure(kind: str, message: str, *, remedy: str = "", **fields: object) -> FlightbagError:
    """The error of this kind; `fields` hold what JSON can."""
    error, otherwise = KINDS[kind]
    facts: dict[str, Any] = {"kind": kind, **fields}
    return error(message, remedy=remedy or otherwise, **facts)


def as_it_came(error: BaseException) -> FlightbagError:
    """An error that nobody foresaw, with its own words."""
    return failure("failed", f"{type(error).__name__}: {error}")


def to_json(error: FlightbagError) -> dict[str, Any]:
    """A failure as it crosses. An error without a kind of `KINDS` crosses as `failed`, with its remedy."""
    facts = {key: value for key, value in error.fields.items() if isinstance(value, str | int | float | list)}
    return {
        "message": error.message,
        "remedy": error.remedy,
        "fields": facts | {"kind": error.kind if error.kind in KINDS else "failed"},
    }


def from_json(value: Mapping[str, Any], **fields: object) -> FlightbagError:
    """The failure again, with `fields` added."""
    facts = dict(value["fields"])
    return failure(facts.pop("kind"), value["message"], remedy=value["remedy"], **{**facts, **fields})
