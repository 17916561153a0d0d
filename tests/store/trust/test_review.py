"""The code of a payload that is to be signed: one for each payload, and none for two types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Invalid, Refused
from store.format import manifest, release
from store.format.code import short_code
from store.format.cose import Envelope, Signature
from store.format.ids import derive
from store.trust import root
from store.trust.review import require_code, signing_code
from tests.support.missions import ROOT

TYPES = (manifest.CONTENT_TYPE, release.CONTENT_TYPE, root.CONTENT_TYPE)


@given(st.binary(min_size=1, max_size=100), st.binary(min_size=1, max_size=100))
def test_other_payloads_and_other_types_have_other_codes(one: bytes, other: bytes) -> None:
    assert len({signing_code(Envelope(type_, one)) for type_ in TYPES}) == len(TYPES)
    for type_ in TYPES:
        assert (signing_code(Envelope(type_, one)) == signing_code(Envelope(type_, other))) == (one == other)


def test_signatures_change_no_code() -> None:
    signed = Envelope(manifest.CONTENT_TYPE, b"x", (Signature(bytes(32), bytes(64)),))
    assert signing_code(signed) == signing_code(Envelope(manifest.CONTENT_TYPE, b"x"))


def test_the_code_of_a_root_is_that_of_its_digest() -> None:
    assert signing_code(Envelope(root.CONTENT_TYPE, ROOT.render())) == short_code(ROOT.digest)


def test_golden() -> None:
    """Two people on two machines must read the same: FORMAT.md 1 and 10.3, written out."""
    for type_, context, code in (
        (manifest.CONTENT_TYPE, "flightbag 2026 manifest payload v1", "DG3BM-6YC5A"),
        (release.CONTENT_TYPE, "flightbag 2026 release payload v1", "8KFC0-PXGFE"),
        (root.CONTENT_TYPE, "flightbag 2026 trust root v1", "55SQE-ET1C1"),
    ):
        assert signing_code(Envelope(type_, b"payload")) == short_code(derive(context, b"payload")) == code


def test_another_code_is_refused_with_both() -> None:
    with pytest.raises(Refused) as caught:
        require_code("4X7QK-09DZM", "4x7qko9dzn", "the draft")
    assert caught.value.kind == "other-code"
    assert "the draft has the code 4X7QK-09DZM, and not 4X7QK-09DZN" in caught.value.message
    assert "a typing error, or it is not what was reviewed" in caught.value.message
    assert caught.value.remedy.startswith("compare the codes letter by letter")
    with pytest.raises(Invalid):
        require_code("4X7QK-09DZM", "yes", "the draft")
    require_code("4X7QK-09DZM", "4x7qko9dzm", "the draft")
