"""A store to audit and to repair."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import copy_of, make_store


@pytest.fixture(scope="module")
def first_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("first") / "store")


@pytest.fixture
def store(first_store: Path, tmp_path: Path) -> Path:
    """A copy, whose index is not believed and so not compared."""
    return copy_of(first_store, tmp_path / "store")
