"""Failures as they cross from the process that compiles to its parent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders.engines.failures import KINDS, failure, from_json, to_json, unexpected_failure, words_of
from store.errors import NO_SPACE, Invalid, Refused, Unavailable


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_crosses_as_what_it_is(kind: str) -> None:
    error = failure(kind, "what", number=3, names=["a"], path=Path("x"))
    there = from_json(json.loads(json.dumps(to_json(error))), log="end")
    assert type(there) is type(error) is KINDS[kind][0]
    assert (there.message, there.remedy) == ("what", KINDS[kind][1])
    assert there.fields == {"kind": kind, "number": 3, "names": ["a"], "log": "end"}


def test_a_failure_of_no_known_kind_crosses_as_failed_with_its_remedy() -> None:
    for error in (Invalid("what", remedy="do"), Refused("what", remedy="do", kind="no-backend")):
        there = from_json(json.loads(json.dumps(to_json(error))))
        assert (there.message, there.remedy, there.fields) == ("what", "do", {"kind": "failed"})
        assert type(there) is Unavailable


def test_a_field_that_the_parent_knows_better_is_the_parents() -> None:
    there = from_json(to_json(failure("failed", "what", model="mine", log="mine")), model="theirs", log="theirs")
    assert there.fields == {"kind": "failed", "model": "theirs", "log": "theirs"}


def test_what_nobody_foresaw_keeps_its_type_and_words_on_one_line(tmp_path: Path) -> None:
    assert unexpected_failure(KeyError("x"), tmp_path).message == "KeyError: 'x'"
    assert unexpected_failure(RuntimeError("first\n\n  second \r\n"), tmp_path).message == "RuntimeError: first; second"


@pytest.mark.parametrize("number", NO_SPACE)
def test_a_full_disk_is_named_with_its_path(tmp_path: Path, number: int) -> None:
    error = unexpected_failure(OSError(number, "words", "some/file"), tmp_path)
    assert (error.kind, error.errno, error.fields["path"]) == ("no-space", number, "some/file")
    there = from_json(json.loads(json.dumps(to_json(error))))
    assert (type(there), there.kind, there.remedy) == (Unavailable, "no-space", error.remedy)


def test_a_full_disk_is_seen_where_a_library_says_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert unexpected_failure(OSError("100 requested and 0 written"), tmp_path).kind == "failed"
    monkeypatch.setattr("builders.engines.failures.is_full", lambda _: True)
    error = unexpected_failure(OSError("100 requested and 0 written"), tmp_path)
    assert (error.kind, error.fields["path"]) == ("no-space", str(tmp_path))


def test_the_words_of_a_library_are_one_line() -> None:
    assert words_of(ValueError("a\n\n  b\r\nc\n")) == "a; b; c"
    assert words_of(ValueError("plain")) == "plain"
    assert words_of(ValueError()) == ""
