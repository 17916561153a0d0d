"""The examples at the heads of the public modules run, against a store that they name."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

from tests.support.missions import NOW
from tests.support.stores import ROOT_FILE, make_store

PUBLIC = ("store", "store.takeoff.aircraft", "store.takeoff.check", "store.takeoff.loading")


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_runs(name: str, tmp_path: Path) -> None:
    module = importlib.import_module(name)
    names = {
        "now": NOW,
        "root_bytes": ROOT_FILE,
        "state_folder": tmp_path / "state",
        "store_path": make_store(tmp_path / "store"),
    }
    (test,) = doctest.DocTestFinder(recurse=False).find(module, name, extraglobs=names)
    assert len(test.examples) > 2
    report: list[str] = []
    results = doctest.DocTestRunner().run(test, out=report.append)
    assert results.failed == 0, "".join(report)
