"""The mutants are what they say, and a test that fails is what catches one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.mutate.__main__ import TARGETS
from tests.mutate.mutants import Mutations
from tests.support.stores import REPOSITORY_ROOT

SOURCE = '''\
"""Docstring."""
LIMIT = 3
def f(a, b=0, *, sync=True):
    """Docstring."""
    assert a < 9
    if not a <= LIMIT:
        raise ValueError(f"{a + 1}")
    try:
        g(a, b, sync=sync)
    except (KeyError, OSError):
        return None
    return [x for x in a[1:] if x and b]
'''
MUTANTS = """\
3 -> 4
3 -> 2
0 -> 1
0 -> -1
True -> False
f not a <= LIMIT -> a <= LIMIT
f a <= LIMIT -> a < LIMIT
f a <= LIMIT -> a > LIMIT
f raise ValueError(f'{a + 1}') -> pass
f g(a, b, sync=sync) -> pass
f g(a, b, sync=sync) -> g(b, a, sync=sync)
f g(a, b, sync=sync) -> g(a, b)
f (KeyError, OSError) -> (OSError,)
f (KeyError, OSError) -> (KeyError,)
f except (KeyError, OSError): return None -> except (KeyError, OSError): raise
f [x for x in a[1:] if x and b] -> None
f [x for x in a[1:] if x and b] -> [x for x in a[1:]]
f [1:] -> [:]
f 1 -> 2
f 1 -> 0
f x and b -> x or b
f x and b -> b
f x and b -> x
"""


def test_mutants_of_a_module() -> None:
    mutants = Mutations("x.py", SOURCE).mutants
    assert [f"{mutant.where} {mutant.before} -> {mutant.after}".strip() for mutant in mutants] == MUTANTS.splitlines()
    assert [mutant.first_line for mutant in mutants if mutant.before.startswith("raise")] == [7]
    assert [mutant.first_line for mutant in mutants if mutant.at_import] == [2, 2, 3, 3, 3]


@pytest.mark.parametrize(
    "path", sorted(path.relative_to(REPOSITORY_ROOT).as_posix() for path in REPOSITORY_ROOT.glob(TARGETS[0]))
)
def test_each_mutant_is_other_code_and_leaves_the_module_as_it_was(path: str) -> None:
    mutations = Mutations(path, (REPOSITORY_ROOT / path).read_text())
    original = mutations.original(path)
    for number in range(len(mutations.mutants)):
        changed = mutations.code(number, path)
        assert changed != original or mutations.mutants[number].after == "pass"  # a last `return` changes nothing
    assert mutations.original(path) == original


# In a process of its own: the tool starts from one that has loaded nothing of the project.
PROGRAM = """
import json, sys
from tests.mutate.run import Job, outcomes
path, jobs = sys.argv[1], json.loads(sys.argv[2])
source = open(path).read()
work = [Job(path, number, tuple(quick), tuple(others), 1) for number, quick, others in jobs]
print(json.dumps(sorted([outcome.number, outcome.status, outcome.test] for outcome in outcomes(work, {path: source}))))
"""


def test_a_failing_test_catches_a_mutant_of_a_function_and_one_of_a_constant() -> None:
    path = "store/format/cbor.py"
    file = "tests/store/format/test_cbor.py"
    mutants = Mutations(path, (REPOSITORY_ROOT / path).read_text()).mutants
    numbers = {(mutant.before, mutant.after): number for number, mutant in enumerate(mutants)}
    inside = numbers["len(key.encode()) > MAX_KEY_BYTES", "len(key.encode()) >= MAX_KEY_BYTES"]
    constant = next(number for number, mutant in enumerate(mutants) if (mutant.before, mutant.after) == ("23", "22"))
    notices, blind = f"{file}::test_key_and_integer_bounds_pass", f"{file}::test_ascending_is_order_and_uniqueness"
    jobs = [(-1, [notices], [notices]), (inside, [blind, notices], []), (constant, [], [notices]), (0, [blind], [])]
    command = [sys.executable, "-c", PROGRAM, path, json.dumps(jobs)]
    run = subprocess.run(command, cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [
        [-1, "survived", ""],
        [0, "survived", ""],
        [constant, "caught", notices],
        [inside, "caught", notices],
    ]
