"""Errors carry their facts as attributes, and keep all of them when their message is made longer."""

from __future__ import annotations

import errno
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from store.disk.locks import Locked
from store.errors import (
    Conflict,
    Corrupt,
    FlightbagError,
    Invalid,
    NoStore,
    NotFound,
    Refused,
    Unavailable,
    Untrusted,
    either,
    instead_of,
    no_space,
)
from store.format.ids import ObjectId

CLASSES = [FlightbagError, Invalid, NotFound, Corrupt, Untrusted, Conflict, Refused, Unavailable, Locked, NoStore]


def test_an_error_without_facts() -> None:
    error = FlightbagError("it broke")
    assert (error.message, error.remedy, error.kind, error.errno, error.object_id) == ("it broke", "", "", None, "")
    assert error.fields == {}
    assert str(error) == "it broke"


def test_the_text_names_the_remedy() -> None:
    assert str(FlightbagError("it broke", remedy="mend it")) == "it broke; mend it"


def test_attributes_and_fields_agree() -> None:
    error = Unavailable("x cannot be read", kind="unreadable", errno=errno.EIO, path="x", object=ObjectId.of(b"x"))
    assert (error.kind, error.errno, error.object_id) == ("unreadable", errno.EIO, str(ObjectId.of(b"x")))
    assert error.fields == {"kind": "unreadable", "errno": errno.EIO, "path": "x", "object": ObjectId.of(b"x")}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("number", [None, errno.ENOSPC])
@pytest.mark.parametrize("name", ["", "locked"])
def test_restated_keeps_everything_but_the_message(kind: type[FlightbagError], number: int | None, name: str) -> None:
    cause = OSError(errno.ENOSPC, "no space")
    with pytest.raises(kind) as caught:
        raise kind("short", remedy="wait", kind=name, errno=number, path="p", pid=7) from cause
    error = caught.value
    longer = error.restated("a longer message", mission="north", path="q")
    assert type(longer) is kind
    assert (longer.message, longer.remedy) == ("a longer message", "wait")
    assert (longer.kind, longer.errno) == (name, number)
    assert longer.fields == {**error.fields, "mission": "north", "path": "q"}
    assert longer.__cause__ is cause
    # The original stays as it was raised.
    assert (error.message, error.fields["path"]) == ("short", "p")
    assert "mission" not in error.fields


def test_an_error_crosses_a_process() -> None:
    error = Corrupt("bad", remedy="again", kind="bit-flip", errno=5, path="p")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is Corrupt
    assert (back.message, back.remedy, back.kind, back.errno, back.fields) == (
        "bad",
        "again",
        "bit-flip",
        5,
        error.fields,
    )


@pytest.mark.parametrize(
    ("word", "names", "remedy"),
    [
        ("north-rigde", ["a", "north-ridge", "south-ridge"], "give north-ridge or south-ridge"),
        ("NORTH", ["north", "x"], "give north"),
        ("camera", ["engines/net.onnx", "files/calibration/camera.yaml"], "give files/calibration/camera.yaml"),
        ("zzz", ["a", "b", "c", "d", "e"], "give a, b, c or one of 2 more"),
        ("zzz", ["a"], "give a"),
        ("", ["a"], "give a"),
        ("zzz", [], ""),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(word: str, names: list[str], remedy: str) -> None:
    assert instead_of(word, names) == remedy


def test_only_a_temporary_file_is_told_of_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TMPDIR does not make room in a store."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    assert "TMPDIR" in no_space(str(tmp_path / "scratch" / "flightbag-1")).remedy
    for path in (tmp_path / "store" / "index", tmp_path / "scratch-2" / "a"):
        error = no_space(str(path))
        assert (str(path) in error.message, "free some space there" in error.remedy) == (True, True)
        assert "TMPDIR" not in error.remedy
    unknown = no_space("")
    assert str(tmp_path / "scratch") in unknown.message
    assert "free some space" in unknown.remedy


@pytest.mark.parametrize(
    ("names", "text"),
    [((), ""), (("a",), "a"), (("a", "b"), "a or b"), (["a", "b", "c"], "a, b or c"), (list("abcd"), "a, b, c or d")],
)
def test_alternatives_have_one_or(names: Sequence[str], text: str) -> None:
    assert either(names) == text
