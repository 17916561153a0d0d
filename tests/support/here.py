"""The task of the confined process in this process, for tests that put something in the place of a part of it."""

from __future__ import annotations

import json
import resource
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders import confined, confinement
from builders.artifacts.supply import Ask
from builders.crossing import error_from_json
from tools.confined import command as confined_command


def confine_here(patch: pytest.MonkeyPatch) -> None:
    """Run confined tasks in this process, without limits. What they give back crosses as JSON all the same."""
    patch.setattr(confinement, "run_confined", run_here)


def run_here(
    task: str,
    request: dict[str, Any],
    about: str,
    progress: Callable[[str, int, int], None],
    opened: Callable[[str], None] = lambda _mission: None,
    placed: Callable[[str], None] = lambda _place: None,
    *,
    module: str = "builders.confined",
    supply: Ask | None = None,
) -> dict[str, Any]:
    """As `confinement.run_confined`."""

    def send(message: list[Any]) -> None:
        if message[0] == "placed":
            placed(message[1])
        elif message[0] == "loaded":
            opened(message[1])
        elif message[0] == "wanted":
            assert supply is not None
            confinement._answer(folder, supply)
        elif module == "builders.confined":  # bars here would pass on what they get from here
            progress(*message[1:])

    tasks = confined.TASKS if module == "builders.confined" else {"command": confined_command}
    messages = confined.Messages(send, lambda: None)
    bounds = resource.getrlimit(resource.RLIMIT_DATA)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        more = {"task": task, "about": about, "supply": "" if supply is None else name}
        request = json.loads(json.dumps({**request, **more}))
        try:
            result: dict[str, Any] = json.loads(json.dumps(confined.result_of(request, messages, tasks)))
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, bounds)
    if "failure" in result:
        raise error_from_json(result["failure"])
    assert "unexpected" not in result, result["unexpected"]
    return result
