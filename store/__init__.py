"""Flightbag's store: everything that a flight computer needs.

Verify a mission from a pinned trust root, and load its artifacts:

>>> import store
>>> verdict = store.takeoff_check(store_path, "north-ridge", trust=root_bytes, now=now, aircraft="uav-07")
>>> verdict.go
True
>>> engine = store.load(verdict.mission, "engines/net/net.onnx", kind="engine")
>>> engine.nbytes
85

A verdict that is not GO has no mission, and lists every reason:

>>> verdict = store.takeoff_check(store_path, "north-ridge", trust=root_bytes, now=now, aircraft="uav-99")
>>> verdict.mission is None
True
>>> [(finding.kind, finding.step) for finding in verdict.findings]
[('wrong-aircraft', 'E')]

`takeoff_check` keeps nothing between flights. `store.aircraft` checks by the state that an aircraft keeps on its own
disk, and so refuses a rollback and a flight that was flown.

Importing this package loads neither lmdb nor filelock nor any numeric library, and no code that writes: `aircraft` is
loaded at its first use.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

from store.errors import (
    Conflict,
    Corrupt,
    FlightbagError,
    Invalid,
    NoStore,
    NotFound,
    Refused,
    Unavailable,
    Untrusted,
)
from store.findings import Finding
from store.takeoff.check import takeoff_check
from store.takeoff.loading import load
from store.takeoff.mission import Verdict, VerifiedMission

if TYPE_CHECKING:
    from store.takeoff import aircraft

__all__ = [
    "Conflict",
    "Corrupt",
    "Finding",
    "FlightbagError",
    "Invalid",
    "NoStore",
    "NotFound",
    "Refused",
    "Unavailable",
    "Untrusted",
    "Verdict",
    "VerifiedMission",
    "aircraft",
    "load",
    "takeoff_check",
]


def __getattr__(name: str) -> ModuleType:
    if name == "aircraft":
        return importlib.import_module("store.takeoff.aircraft")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
