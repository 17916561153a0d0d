"""Release statements: what is rendered parses, and arbitrary bytes do not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt
from store.format.release import Approval, Release
from tests.support.missions import NOW
from tests.support.stores import ENGINE, NORTH

APPROVAL = Approval.of(NORTH.entry(ENGINE))


@given(
    st.lists(
        st.builds(
            Approval,
            st.from_regex(r"engines/[a-z]{1,5}/[a-z]{1,5}\.onnx", fullmatch=True),
            st.just("engine"),
            st.just(APPROVAL.id),
            st.integers(0, 2**60),
            st.sampled_from(["cpu", "cpu-x86_64"]),
        ),
        min_size=1,
        max_size=8,
        unique=True,
    )
)
def test_comes_back_as_it_was(approvals: list[Approval]) -> None:
    made = Release("winter", NOW, "cpu-x86_64", tuple(sorted(approvals)))
    assert Release.parse(made.render()) == made


@given(st.binary(max_size=200))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Release.parse(data)
