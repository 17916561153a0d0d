"""A release approves exactly the bytes that it names, and only one encoding of it parses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid
from store.format.cbor import INT_MAX, decode, encode
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.format.release import MAX_APPROVALS, PAYLOAD_LIMIT, Approval, Release
from tests.support.missions import CONTENTS, NOW, table_of

HOST = "cpu-x86_64-avx2"
ENGINE = Approval("engines/net/net.onnx", "engine", ObjectId.of(b"engine"), 6, "cpu-x86_64")
INDEX = Approval("indexes/net/ivf/16.faiss", "index", ObjectId.of(b"index"), 5, "cpu")
RELEASE = Release("winter", NOW, HOST, (ENGINE, INDEX))


def changed(**fields: Any) -> bytes:
    return encode({**decode(RELEASE.render(), limit=PAYLOAD_LIMIT, what="the release"), **fields})


def row(approval: Approval) -> list[Any]:
    return [approval.name, approval.kind, bytes(approval.id), approval.size, approval.host]


def test_a_rendered_release_parses_to_itself() -> None:
    assert Release.parse(RELEASE.render()) == RELEASE
    assert changed() == RELEASE.render()


def test_only_what_needs_approval_is_in_a_release() -> None:
    table: EntryTable = table_of(CONTENTS)
    release = Release.of("winter", HOST, table.entries, issued_at=NOW)
    assert [approval.kind for approval in release.approvals] == ["engine"]
    entry = table.find("engines/net/net.onnx")
    assert entry is not None
    assert release.approvals == (Approval.of(entry),)
    assert (release.approvals[0].id, release.approvals[0].size) == (entry.id, entry.size)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"name": "no/segment"},
        {"name": ""},
        {"issued_at": -1},
        {"host": "sm87+cpu"},
        {"host": "cpu-x86_64-avx2+ort>=1.22"},
        {"host": "banana"},
        {"host": ""},
        {"entries": []},
        {"entries": [row(ENGINE)] * 2},
        {"entries": [row(INDEX), row(ENGINE)]},
        {"entries": [row(replace(ENGINE, host="cpu-aarch64"))]},
        {"entries": [row(replace(ENGINE, host="sm87+cpu"))]},
        {"entries": [row(replace(ENGINE, host="cpu-x86"))]},
        {"entries": [row(replace(ENGINE, host="cpu+ort>=1.22+ort>=1.23"))]},
        {"entries": [row(replace(ENGINE, kind="index"))]},
        {"entries": [row(replace(ENGINE, name="files/a", kind="file"))]},
        {"entries": [row(replace(ENGINE, name="engines"))]},
        {"entries": [row(replace(ENGINE, size=-1))]},
        {"entries": [[*row(ENGINE), 1]]},
        {"entries": [[*row(ENGINE)[:2], bytes(31), 6, "cpu"]]},
        {"entries": ["engine"]},
        {"more": 1},
    ],
)
def test_a_release_that_breaks_a_rule_is_corrupt(fields: dict[str, Any]) -> None:
    with pytest.raises(Corrupt) as caught:
        Release.parse(changed(**fields))
    assert caught.value.kind in ("bad-field", "bad-order")


@pytest.mark.parametrize("name", ["version", "name", "issued_at", "host", "entries"])
def test_a_missing_field_is_corrupt(name: str) -> None:
    value = decode(RELEASE.render(), limit=PAYLOAD_LIMIT, what="the release")
    del value[name]
    with pytest.raises(Corrupt):
        Release.parse(encode(value))


def test_nothing_is_rendered_that_would_not_parse() -> None:
    for release in (
        replace(RELEASE, approvals=(INDEX, ENGINE)),
        replace(RELEASE, approvals=()),
        replace(RELEASE, host="cpu-aarch64"),
        replace(RELEASE, approvals=(replace(ENGINE, size=INT_MAX + 1),)),
    ):
        with pytest.raises((Corrupt, Invalid)):
            release.render()


def test_at_most_so_many_approvals() -> None:
    many = tuple(replace(ENGINE, name=f"engines/n{number:03}/e.onnx") for number in range(MAX_APPROVALS + 1))
    assert len(Release.parse(replace(RELEASE, approvals=many[:-1]).render()).approvals) == MAX_APPROVALS
    with pytest.raises(Corrupt):
        replace(RELEASE, approvals=many).render()


@given(
    st.lists(
        st.builds(
            Approval,
            st.from_regex(r"engines/[a-z]{1,5}/[a-z]{1,5}\.onnx", fullmatch=True),
            st.just("engine"),
            st.just(ENGINE.id),
            st.integers(0, 2**60),
            st.sampled_from(["cpu", "cpu-x86_64", "cpu+ort>=1.22"]),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_any_release_comes_back_as_it_was(approvals: list[Approval]) -> None:
    made = Release("winter", NOW, "cpu-x86_64", tuple(sorted(approvals)))
    assert Release.parse(made.render()) == made


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Release.parse(data)
