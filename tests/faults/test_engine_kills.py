"""A few kills of compilations and one race; `make drill` does more."""

from __future__ import annotations

import sys

import pytest

from tests.faults.engine_kills import kill_compilations, race

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")


def test_a_killed_compilation_leaves_no_engine_no_lock_and_no_worker() -> None:
    of_workers, of_programs, losses = kill_compilations(2, seed=7)
    assert losses == []
    assert (of_workers, of_programs) == (1, 1)


def test_of_many_that_want_the_same_engines_one_compiles_each() -> None:
    built, wrong = race(4, 2)
    assert wrong == []
    assert sorted(built.values()) == [1, 1]
