"""Examples in docstrings, run as tests."""

from __future__ import annotations

import doctest
from types import ModuleType
from typing import Any


def run_examples(module: ModuleType, names: dict[str, Any]) -> int:
    """How many examples of a module's docstring ran; fails where one gives something else."""
    [test] = [one for one in doctest.DocTestFinder(recurse=False).find(module, globs=names) if one.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test)
    assert runner.failures == 0
    return runner.tries
