"""The example at the head of `publication` runs: what somebody who embeds the build does."""

from __future__ import annotations

import doctest
from pathlib import Path

from builders import publication
from store.trust.keys import PrivateKey
from tests.support.field import Desk


def test_the_example_runs(desk: Desk, tmp_path: Path) -> None:
    names = {
        "mission_file": desk.write_mission("left"),
        "store_path": desk.store,
        "key": PrivateKey.of_pem(desk.key.read_bytes(), None),
        "cache_folder": tmp_path,
    }
    (test,) = (one for one in doctest.DocTestFinder(recurse=False).find(publication, globs=names) if one.examples)
    report: list[str] = []
    results = doctest.DocTestRunner().run(test, out=report.append)
    assert (results.attempted, results.failed) == (4, 0), "".join(report)
    assert desk.verify().status == 0
