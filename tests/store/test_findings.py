"""A finding has what its error says, and prints nothing that says nothing."""

from __future__ import annotations

import pytest

from store.errors import Conflict, Corrupt, FlightbagError, Invalid, NotFound, Unavailable, Untrusted
from store.findings import COPY_AGAIN, Finding
from store.format.ids import ObjectId

ID = ObjectId.of(b"x")


def test_the_facts_of_an_error() -> None:
    error = Corrupt(
        "bad", remedy="mend", kind="bit-flip", object=ID, entry="files/a", path="p", expected=4096, actual=8192
    )
    assert Finding.of(error, step="F", missions=("north",)) == Finding(
        "bit-flip", "bad", "F", str(ID), "files/a", "p", "4096", "8192", "mend", ("north",)
    )


def test_an_error_without_a_kind_is_malformed_or_unreadable() -> None:
    assert Finding.of(Invalid("bad")).kind == "malformed"
    assert Finding.of(Unavailable("busy")).kind == "unreadable"
    assert Finding.of(Unavailable("busy", kind="no-space")).kind == "no-space"


def test_the_callers_entry_counts_and_the_errors_remedy() -> None:
    error = Corrupt("bad", entry="files/a")
    assert Finding.of(error, entry="files/b", remedy=COPY_AGAIN).entry == "files/b"
    assert Finding.of(error, remedy=COPY_AGAIN).remedy == COPY_AGAIN
    assert Finding.of(Corrupt("bad", remedy="mend"), remedy=COPY_AGAIN).remedy == "mend"


@pytest.mark.parametrize("kind", [Invalid, NotFound, Corrupt, Untrusted, Conflict])
def test_only_unavailable_is_unreadable(kind: type[FlightbagError]) -> None:
    assert not Finding.of(kind("bad")).unreadable
    assert Finding.of(Unavailable("bad", kind="unreadable")).unreadable


def test_json_has_the_fields_that_have_a_value() -> None:
    assert Finding("missing", "gone").as_json() == {"kind": "missing", "message": "gone"}
    full = Finding("missing", "gone", object=str(ID), missions=("north",), unreadable=True)
    assert full.as_json() == {
        "kind": "missing",
        "message": "gone",
        "object": str(ID),
        "missions": ("north",),
        "unreadable": True,
    }
