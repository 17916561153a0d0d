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

Importing this package loads no code: each name is loaded at its first use, with what it needs. `takeoff_check` and
`load` need neither lmdb nor filelock nor any numeric library, and no code that writes.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from store.takeoff import aircraft
    from store.takeoff.check import takeoff_check
    from store.takeoff.loading import load
    from store.takeoff.mission import Verdict, VerifiedMission

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

# Where the names are that `store.errors` does not define.
_MODULES = {
    "Finding": "store.findings",
    "Verdict": "store.takeoff.mission",
    "VerifiedMission": "store.takeoff.mission",
    "load": "store.takeoff.loading",
    "takeoff_check": "store.takeoff.check",
}


def __getattr__(name: str) -> Any:
    if name == "aircraft":
        return importlib.import_module("store.takeoff.aircraft")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES.get(name, "store.errors")), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
