"""Well signed and wrong: inputs whose bytes are exactly as signed, while the map, the engine, the time or the host is
not what the mission needs.

`python -m tests.conformance.wrong` runs every case and prints a table: the input, the verdict of the version before the
case was known, the verdict now. The status is 1 if a verdict differs from the one stated. `test_wrong.py` does the
same.

A case is a function that makes its input in an empty folder, does what a user would do, and returns the verdict: GO, or
the kind of the error or finding, with what the tool lists as not judged where that is the point. The cases of a subject
stand in a module `wrong_<subject>.py` beside this one.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

GROUPS = ("map", "engine", "host", "camera", "time", "signing", "words", "bombs")


@dataclass(frozen=True)
class Case:
    """One input. `before` is the verdict of version 0.1.0.dev before the rule existed; it is quoted, not run."""

    group: str
    input: str
    before: str
    now: str
    run: Callable[[Path], str]

    def __str__(self) -> str:
        return f"{self.group}/{self.run.__name__}"


_CASES: list[Case] = []


def wrong(
    group: str, input_: str, *, before: str, now: str
) -> Callable[[Callable[[Path], str]], Callable[[Path], str]]:
    """Register a case: the decorated function returns the verdict, which must be `now`."""
    assert group in GROUPS

    def register(run: Callable[[Path], str]) -> Callable[[Path], str]:
        _CASES.append(Case(group, input_, before, now, run))
        return run

    return register


def every() -> list[Case]:
    """Return every case of every module, in the order of the groups."""
    for path in sorted(Path(__file__).parent.glob("wrong_*.py")):
        importlib.import_module(f"tests.conformance.{path.stem}")
    return sorted(_CASES, key=lambda case: GROUPS.index(case.group))


def main() -> int:
    failed = 0
    print("| group | input | before | now |\n| --- | --- | --- | --- |")
    for case in every():
        with tempfile.TemporaryDirectory() as folder:
            verdict = case.run(Path(folder))
        failed += verdict != case.now
        shown = verdict if verdict == case.now else f"{verdict} (expected {case.now})"
        print(f"| {case.group} | {case.input} | {case.before} | {shown} |", flush=True)
    print(f"\n{len(_CASES)} cases, {failed} with another verdict", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    # The cases register with the module by its name, and not with `__main__`.
    from tests.conformance import wrong as registry

    sys.exit(registry.main())
