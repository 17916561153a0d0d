"""The files of a store in tests: which entry a mission has, and where its object lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.commands import flightbag


def entry_of(store: Path, mission: str, start: str) -> dict[str, Any]:
    """The first entry of a mission whose name starts with `start`, as `flightbag show --json` gives it."""
    entries: list[dict[str, Any]] = flightbag("show", store, mission, "--json").json["entries"]
    return next(one for one in entries if one["name"].startswith(start))


def object_file(store: Path, id_: str) -> Path:
    return store / "objects" / id_[:2] / id_[2:]
