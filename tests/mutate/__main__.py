"""Mutation testing: `make mutate`, or

    python -m tests.mutate [WORD ...] [--sample N] [--seed N] [--jobs N]

Makes small changes to the modules that decide what flies, and counts those that no test notices. Each module's mutants
run against the tests of that module, and then against others that run the changed line. Results are kept in `.mutate`,
so a run that was stopped goes on where it was; a survivor runs again when a test changed. `scores.csv` has the score of
each module, `equivalent.toml` the reviewed mutants that change no behaviour, each with its reason.
The status is 1 if a module is below 98 %.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from tests.mutate.mutants import Mutant, Mutations
from tests.mutate.run import NO_CHANGE, SURVIVED, Job, load, outcomes
from tests.mutate.trace import ROOT, Trace, trace

FOLDER = ROOT / ".mutate"
HERE = Path(__file__).parent
SCORES = HERE / "scores.csv"
EQUIVALENT = HERE / "equivalent.toml"
TARGETS = (
    "store/format/*.py",
    "store/trust/*.py",
    "store/takeoff/*.py",
    "store/disk/*.py",
    "builders/imagery/coverage.py",
    "builders/imagery/footprints.py",
    "builders/imagery/inventory.py",
)
TESTS = (
    "tests/store/*/test_*.py",
    "tests/conformance/test_bounds.py",
    "tests/conformance/test_vectors.py",
    "tests/builders/imagery/test_coverage.py",
    "tests/builders/imagery/test_footprints.py",
    "tests/builders/imagery/test_inventory.py",
)
# Holds the constants of every module against FORMAT.md.
BOUNDS = "tests/conformance/test_bounds.py"
REACH = 0.98
# Of the tests of other modules, those that together take no longer than this.
ELSEWHERE_SECONDS = 10.0
# What tells the mutants of a module apart in `equivalent.toml`.
REVIEWED = ("where", "line", "before", "after")
COLUMNS = ["module", "mutants", "tried", "equivalent", "caught", "survived", "score"]


@dataclass(frozen=True, slots=True)
class Module:
    """A module, its mutants, and the numbers of those that are tried."""

    path: str
    source: str
    mutants: list[Mutant]
    chosen: list[int]
    equivalent: set[int]

    @property
    def key(self) -> str:
        """Changes when the module or the ways to change it do."""
        return hashlib.sha256(f"{self.source}{self.mutants}".encode()).hexdigest()[:16]


def modules(words: Sequence[str], sample: int, seed: int) -> list[Module]:
    """The modules that have one of the words in their path; of each, `sample` mutants, or all if it is 0."""
    reviewed = tomllib.loads(EQUIVALENT.read_text())["equivalent"]
    result = []
    for path in _files(TARGETS):
        source = (ROOT / path).read_text()
        mutants = Mutations(path, source).mutants
        if not mutants or (words and not any(word in path for word in words)):
            continue
        rows = {tuple(row[field] for field in REVIEWED) for row in reviewed if row["module"] == path}
        texts = [tuple(getattr(mutant, field) for field in REVIEWED) for mutant in mutants]
        equivalent = {number for number, text in enumerate(texts) if text in rows}
        for row in sorted(rows.difference(texts)):
            print(f"{EQUIVALENT.name}: {path} has no such mutant: {row}")
        # A larger sample of the same seed holds the smaller one.
        order = sorted(range(len(mutants)), key=lambda n: _drawn(seed, mutants[n], n))
        result.append(Module(path, source, mutants, sorted(order[: sample or None]), equivalent))
    return result


def _files(patterns: Sequence[str]) -> list[str]:
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return [path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py"]


def _drawn(seed: int, mutant: Mutant, number: int) -> bytes:
    text = f"{seed} {mutant.path} {mutant.where} {mutant.before} {mutant.after} {number}"
    return hashlib.sha256(text.encode()).digest()


def job(module: Module, number: int, known: Trace) -> Job:
    """The tests for a mutant: those of the same module that run its lines, then others, the quickest first."""
    mutant = module.mutants[number]
    lines = set(range(mutant.first_line, mutant.last_line + 1))
    own = _mirror(module.path)
    quick: list[str] = []
    others: list[str] = []
    seconds, elsewhere = 0.0, 0.0
    for test in sorted(known.seconds, key=lambda test: (test.partition("::")[0] not in own, known.seconds[test])):
        ran = known.lines[test].get(module.path, set())
        file = test.partition("::")[0]
        if not ((ran or file in own) if mutant.at_import else ran & lines):
            continue
        if file not in own:
            elsewhere += known.seconds[test]
            if elsewhere > ELSEWHERE_SECONDS:
                break
        seconds += known.seconds[test]
        (others if lines & known.lines[f"{file}::"].get(module.path, set()) else quick).append(test)
    return Job(module.path, number, tuple(quick), tuple(others), seconds)


def _mirror(path: str) -> set[str]:
    folder, name = (ROOT / "tests" / path).parent, Path(path).stem
    files = (file for file in folder.glob("test_*.py") if fnmatch(file.stem + "_", f"test_{name}_*"))
    return {BOUNDS, *(file.relative_to(ROOT).as_posix() for file in files)}


def run(todo: Sequence[Module], jobs: int) -> dict[tuple[str, int], dict[str, str]]:
    """The result of each chosen mutant, most of them from earlier runs."""
    files = _files(TESTS)
    known = trace(files, _files(TARGETS), FOLDER, jobs)
    tests_now = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()[:16]
    results = _results(todo, tests_now)
    waiting = [
        job(module, number, known)
        for module in todo
        for number in module.chosen
        if number not in module.equivalent and (module.key, number) not in results
    ]
    paths = {work.path for work in waiting}
    controls = [
        control(module, known) for module in todo if module.path in paths and (module.key, NO_CHANGE) not in results
    ]
    print(f"{len(results)} results kept, {len(waiting)} mutants to run", flush=True)
    if waiting:
        load(known.libraries)
        keys = {module.path: module.key for module in todo}
        sources = {module.path: module.source for module in todo if module.path in paths}
        workers = []
        for number in range(jobs):
            pid = os.fork()
            if pid == 0:
                try:
                    _work([*controls[number::jobs], *waiting[number::jobs]], sources, keys, tests_now)
                except BaseException as error:
                    print(f"{type(error).__name__}: {error}", flush=True)
                finally:
                    os._exit(0)
            workers.append(pid)
        for pid in workers:
            os.waitpid(pid, 0)
    return _results(todo, tests_now)


def control(module: Module, known: Trace) -> Job:
    """The module as it is, with its own tests: these must pass."""
    own = _mirror(module.path)
    tests = tuple(test for test in known.seconds if test.partition("::")[0] in own)
    return Job(module.path, NO_CHANGE, tests, tests, sum(known.seconds[test] for test in tests))


def _work(jobs: Sequence[Job], sources: dict[str, str], keys: dict[str, str], tests_now: str) -> None:
    begun = time.monotonic()
    with (FOLDER / "results.jsonl").open("a") as file:
        untested = [work for work in jobs if not (work.quick or work.others)]
        for work in untested:
            row = {"key": keys[work.path], "number": work.number, "status": SURVIVED, "test": "", "tests": tests_now}
            file.write(json.dumps(row) + "\n")
        tested = [work for work in jobs if work.quick or work.others]
        for count, outcome in enumerate(outcomes(tested, sources), 1):
            if outcome.number == NO_CHANGE and outcome.status != SURVIVED:
                raise SystemExit(f"{outcome.path}: {outcome.test} fails without any change")
            row = {
                "key": keys[outcome.path],
                "number": outcome.number,
                "status": outcome.status,
                "test": outcome.test,
                "tests": tests_now,
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            if count % 50 == 0:
                print(f"{count} of {len(tested)} in {time.monotonic() - begun:.0f} s", flush=True)


def _results(todo: Sequence[Module], tests_now: str) -> dict[tuple[str, int], dict[str, str]]:
    """A mutant that was caught stays so; one that survived did so against these tests only."""
    keys = {module.key for module in todo}
    results = {}
    path = FOLDER / "results.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        if row["key"] in keys and (row["status"] != SURVIVED or row["tests"] == tests_now):
            results[row["key"], row["number"]] = row
    return results


def report(todo: Sequence[Module], results: dict[tuple[str, int], dict[str, str]]) -> list[dict[str, str]]:
    """Prints the survivors; gives a row of scores for each module."""
    rows = []
    for module in todo:
        statuses = Counter(
            results[module.key, number]["status"]
            for number in module.chosen
            if number not in module.equivalent and (module.key, number) in results
        )
        for number in module.chosen:
            row = results.get((module.key, number))
            if row is not None and row["status"] == SURVIVED and number not in module.equivalent:
                mutant = module.mutants[number]
                print(f"{module.path}: {mutant.where}: {mutant.line}\n    {mutant.before}  ->  {mutant.after}")
        survived = statuses[SURVIVED]
        caught = statuses.total() - survived
        equivalent = len(module.equivalent.intersection(module.chosen))
        score = f"{caught / statuses.total():.4f}" if statuses else ""
        counts = (len(module.mutants), statuses.total() + equivalent, equivalent, caught, survived)
        rows.append(dict(zip(COLUMNS, (module.path, *map(str, counts), score), strict=True)))
    return rows


def write_scores(rows: Sequence[dict[str, str]]) -> None:
    """The rows replace those of the same modules."""
    kept = {row["module"]: row for row in csv.DictReader(SCORES.open())} if SCORES.exists() else {}
    kept.update({row["module"]: row for row in rows})
    with SCORES.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept[name] for name in sorted(kept) if (ROOT / name).exists())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description="changes that a test must notice")
    parser.add_argument("words", nargs="*", metavar="WORD", help="modules that have one of these in their path")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="mutants of each module (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    given = parser.parse_args(arguments)
    begun = time.monotonic()
    todo = modules(given.words, given.sample, given.seed)
    if not todo:
        parser.error(f"no module has one of {given.words} in its path")
    rows = report(todo, run(todo, given.jobs))
    write_scores(rows)
    for row in rows:
        print(f"{row['module']:36}{row['tried']:>6} tried{row['survived']:>5} survived{row['score']:>9}")
    print(f"{time.monotonic() - begun:.0f} s")
    return 0 if all(row["score"] and float(row["score"]) >= REACH for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
