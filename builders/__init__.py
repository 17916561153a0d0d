"""Building missions on the ground, and in `builders.onboard` what a flight computer runs of them.

`from builders import build` needs the extra `build`; `from builders import onboard` needs the extra `onboard` and loads
nothing of the ground.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["build", "onboard"]


def __getattr__(name: str) -> Any:
    """Import what is public when it is first used: a flight computer has no library that `build` needs."""
    if name == "build":
        return importlib.import_module("builders.orchestrator").build_mission
    if name == "onboard":
        return importlib.import_module("builders.onboard")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
