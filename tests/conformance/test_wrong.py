"""Every input that is well signed and wrong has the verdict that its case states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.conformance.wrong import Case, every

CASES = [
    pytest.param(case, id=str(case), marks=[pytest.mark.confined] if case.group == "bombs" else []) for case in every()
]


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: Case, tmp_path: Path) -> None:
    assert case.run(tmp_path) == case.now


def test_the_names_of_the_cases_are_unique() -> None:
    assert max(Counter(map(str, every())).values(), default=1) == 1
