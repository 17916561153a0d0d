"""`flightbag doctor`: every line for people and for machines, and the status."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from builders import doctor as module
from builders.doctor import Check
from tests.support.commands import flightbag, listing
from tests.support.field import Desk


def test_it_looks_at_this_machine_and_at_a_store_and_writes_nothing_there(
    built: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NAMES", ("onnxruntime",))
    before = listing(built.store)
    ran = flightbag("doctor", built.store, "--json")
    checks = {one["name"]: one for one in ran.json["checks"]}
    kinds = {finding["kind"] for finding in ran.json["findings"]}
    assert ran.status == (1 if "problem" in kinds else 3 if kinds else 0)
    assert {"flightbag", "python", "base", "extra build", "cpu", "onnxruntime", "clock", "store", "log"} <= set(checks)
    assert checks["onnxruntime"]["state"] == "ok"
    assert "CPUExecutionProvider" in checks["onnxruntime"]["text"]
    assert re.search(r"ort-1\.", checks["onnxruntime"]["text"])
    assert "1 mission" in checks["store"]["text"]
    assert all(one["remedy"] for one in checks.values() if one["state"] in ("problem", "unknown"))
    assert listing(built.store) == before


@pytest.mark.parametrize(
    ("states", "status"), [(("ok", "note"), 0), (("ok", "problem", "unknown"), 1), (("ok", "unknown"), 3)]
)
def test_the_status_and_the_lines_tell_problems(
    monkeypatch: pytest.MonkeyPatch, states: tuple[module.State, ...], status: int
) -> None:
    checks = [Check(f"name {state}", state, f"text of {state} " + "word " * 30, "do this") for state in states]
    monkeypatch.setattr(module, "examine", lambda *_args, **_options: iter(checks))
    ran = flightbag("doctor", columns=80)
    assert ran.status == status, ran.err
    assert all(len(line) <= 80 for line in ran.out.splitlines())
    for state in states:
        assert re.search(rf"^{state} +name {state} +text of {state}", ran.out, re.MULTILINE)
    assert ran.out.count("-> do this") == len(states)
    assert flightbag("doctor", "--json").json["checks"][0] == {
        "name": "name ok",
        "state": "ok",
        "text": checks[0].text,
        "remedy": "do this",
    }


def test_a_store_that_cannot_be_opened_is_said_before_anything_is_looked_at(tmp_path: Path) -> None:
    ran = flightbag("doctor", tmp_path)
    assert (ran.status, ran.out) == (3, "")
    assert "is an empty folder" in ran.err
