"""The question of a confined process to a shared cache: it may be anything, and it is answered once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from builders.artifacts.supply import SUPPLIED, WANTED, WANTED_LIMIT, Offer, wanted_to_bytes
from builders.confinement import _answer
from store.errors import Corrupt, NotFound
from store.format.ids import BuildKey
from tests.support.missions import build_key


def nothing(asked: Mapping[BuildKey, int]) -> Mapping[BuildKey, Offer]:
    return {}


def test_it_is_answered_once(tmp_path: Path) -> None:
    asked: list[Mapping[BuildKey, int]] = []
    (tmp_path / WANTED).write_bytes(wanted_to_bytes({build_key("one"): 7}))
    _answer(tmp_path, lambda keys: (asked.append(keys), {})[1])
    assert (asked, (tmp_path / SUPPLIED).read_bytes()) == ([{build_key("one"): 7}], b"{}")
    with pytest.raises(Corrupt, match="a second time"):
        _answer(tmp_path, nothing)


def test_a_question_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        _answer(tmp_path, nothing)
    for data in (b"x", bytes(WANTED_LIMIT + 40)):
        (tmp_path / WANTED).write_bytes(data)
        with pytest.raises(Corrupt):
            _answer(tmp_path, nothing)
    (tmp_path / WANTED).unlink()
    (tmp_path / "elsewhere").write_bytes(b"")
    (tmp_path / WANTED).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Corrupt):
        _answer(tmp_path, nothing)


def test_no_answer_goes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / WANTED).write_bytes(b"")
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / SUPPLIED).symlink_to(tmp_path / "mine")
    with pytest.raises(Corrupt):
        _answer(tmp_path, nothing)
    assert (tmp_path / "mine").read_bytes() == b"mine"
