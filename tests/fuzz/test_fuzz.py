"""Some mutations for each target, every small change to a value besides, and the proof that a crash is noticed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import cbor2
import pytest

from store.format.cose import TAG_98
from tests.fuzz import __main__ as fuzzer
from tests.fuzz import ground
from tests.fuzz.mutation import mutants
from tests.fuzz.targets import TARGETS, Target

OTHERS: tuple[Any, ...] = (0, -1, 2**63 - 1, "", "é", b"", bytes(32), [], [0], {}, {"a": 0})
WITH_ATHERIS = pytest.mark.skipif(find_spec("atheris") is None, reason="Atheris has no wheel for this machine")
OF_VALUES = [
    "envelope",
    "signed-root",
    "trust-root",
    "manifest",
    "release",
    "root-draft",
    "aircraft-state",
    "entry-proof",
    "table",
    "takeoff-signed-manifest",
    "takeoff-signed-table",
]


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutant_crashes(tmp_path: Path, name: str) -> None:
    no_mutant_crashes(tmp_path, TARGETS[name], 200)


@pytest.mark.parametrize("name", ground.READERS)
def test_no_mutant_of_what_a_planner_brings_crashes(tmp_path: Path, name: str) -> None:
    no_mutant_crashes(tmp_path, ground.target(name), 60)


def no_mutant_crashes(folder: Path, target: Target, number: int) -> None:
    with closing(fuzzer.Watch(target.run, folder)) as watch:
        for data in itertools.islice(mutants(target.seeds, Random(target.name), target.limit), number):
            watch(data)
    assert (watch.executions, watch.crashes) == (number, {})


def variants(value: Any) -> Iterator[Any]:
    """The value with each part of it in turn left out, or another one of OTHERS."""
    yield from OTHERS
    for at in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        without = value.copy()
        del without[at]
        yield without
        for other in variants(value[at]):
            changed = value.copy()
            changed[at] = other
            yield changed


@pytest.mark.parametrize("name", OF_VALUES)
def test_no_value_with_one_change_crashes(tmp_path: Path, name: str) -> None:
    """Canonical again, so that what lies behind the CBOR sees it: few mutants of bytes come so far."""
    seed = TARGETS[name].seeds[0]
    tag = TAG_98 if seed.startswith(TAG_98) else b""
    with closing(fuzzer.Watch(TARGETS[name].run, tmp_path)) as watch:
        for value in variants(cbor2.loads(seed.removeprefix(tag))):
            watch(tag + cbor2.dumps(value, canonical=True))
    assert watch.executions > 40
    assert watch.crashes == {}


PLANTED = """
import signal
from store.format.cose import TAG_98
from tests.fuzz import __main__ as fuzzer, targets
def run(data):
    {}
targets.TARGETS = {{"planted": targets.Target("planted", [b"seed"], run)}}
fuzzer.main()
"""


@pytest.mark.parametrize("engine", ["mutate", pytest.param("atheris", marks=WITH_ATHERIS)])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("bytearray(2**40)", "MemoryError"),
        ("b'x' * (5 * 10**8)", "MemoryError"),
        ("signal.raise_signal(signal.SIGSEGV)", "ended with status"),
        ("signal.raise_signal(signal.SIGALRM)", "took more than"),
        ("pass", ""),
    ],
)
def test_a_planted_crash_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    body: str,
    told: str,
    engine: str,
) -> None:
    monkeypatch.setattr(fuzzer, "CHILD", (sys.executable, "-c", PLANTED.format(body)))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setitem(TARGETS, "planted", TARGETS["ref"])
    status = fuzzer.main(["--seconds=0", "--only=planted", f"--engine={engine}"])
    said = capsys.readouterr().out
    assert status == (1 if told else 0)
    assert told in said
    kept = list(tmp_path.iterdir())
    first = b"seed" if engine == "mutate" else b""
    assert [path.read_bytes() for path in kept] == ([first] if told else [])
    assert all(str(path) in said for path in kept)
