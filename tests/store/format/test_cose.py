"""The envelope: one layout, byte for byte, and what is signed."""

from __future__ import annotations

from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import Corrupt, Invalid
from store.format.cose import MAX_SIGNATURES, OVERHEAD_LIMIT, Envelope, Signature

TYPE = "application/vnd.flightbag.test+cbor"
LIMIT = 1000

SIGNATURES = st.builds(Signature, st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
ENVELOPES = st.builds(
    lambda payload, signatures: Envelope(TYPE, payload, tuple(sorted(signatures, key=lambda s: s.kid))),
    st.binary(min_size=1, max_size=50),
    st.lists(SIGNATURES, max_size=MAX_SIGNATURES, unique_by=lambda signature: signature.kid),
)


def parse(data: bytes) -> Envelope:
    return Envelope.parse(data, TYPE, LIMIT)


@given(ENVELOPES)
def test_what_is_rendered_parses_to_itself(envelope: Envelope) -> None:
    assert parse(envelope.render()) == envelope


@given(ENVELOPES)
def test_it_is_cose_sign(envelope: Envelope) -> None:
    tag = cbor2.loads(envelope.render())
    assert tag.tag == 98
    body, unprotected, payload, signatures = tag.value
    assert (cbor2.loads(body), unprotected, payload) == ({16: TYPE}, {}, envelope.payload)
    assert [
        (cbor2.loads(header), unprotected, signature) for header, unprotected, signature in signatures
    ] == [({1: -19, 4: s.kid}, {}, s.signature) for s in envelope.signatures]  # fmt: skip


@given(ENVELOPES, st.binary(min_size=32, max_size=32), st.binary(max_size=40))
def test_what_is_signed_is_the_sig_structure_of_the_rfc(envelope: Envelope, kid: bytes, aad: bytes) -> None:
    context, body, signer, external, payload = cbor2.loads(envelope.to_be_signed(kid, aad))
    assert (context, external, payload) == ("Signature", aad, envelope.payload)
    assert (cbor2.loads(body), cbor2.loads(signer)) == ({16: TYPE}, {1: -19, 4: kid})


@given(ENVELOPES, st.data())
def test_a_changed_byte_makes_another_envelope_or_none(envelope: Envelope, data: st.DataObject) -> None:
    good = envelope.render()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes([good[at] ^ data.draw(st.integers(1, 255))]) + good[at + 1 :]
    try:
        parsed = parse(bad)
    except Corrupt:
        return
    assert parsed != envelope
    assert parsed.render() == bad


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    for candidate in (data, b"\xd8\x62" + data):
        with pytest.raises(Corrupt):
            parse(candidate)


def test_a_second_signature_of_a_kid_takes_the_place_of_the_first() -> None:
    first, second = Signature(bytes(32), bytes(64)), Signature(bytes(32), b"\x01" * 64)
    other = Signature(b"\x01" * 32, bytes(64))
    assert Envelope(TYPE, b"x").with_signature(other).with_signature(first).signatures == (first, other)
    assert Envelope(TYPE, b"x", (first, other)).with_signature(second).signatures == (second, other)


@pytest.mark.parametrize(("kid", "signature"), [(31, 64), (33, 64), (32, 63), (32, 65), (0, 0)])
def test_a_signature_has_its_sizes(kid: int, signature: int) -> None:
    with pytest.raises(Invalid):
        Signature(bytes(kid), bytes(signature))


def test_no_more_signatures_than_there_is_room_for() -> None:
    many = tuple(Signature(bytes([i]) * 32, bytes(64)) for i in range(MAX_SIGNATURES + 1))
    full = Envelope(TYPE, bytes(LIMIT), many[:-1]).render()
    assert len(full) <= LIMIT + OVERHEAD_LIMIT
    parse(full)
    with pytest.raises(Invalid):
        Envelope(TYPE, b"x", many).render()


def layout(**changes: Any) -> bytes:
    """An envelope with one good signature, put together from its parts, some of them changed."""
    header = cbor2.dumps({1: -19, 4: bytes(32)})
    parts: dict[str, Any] = {
        "tag": 98, "body": cbor2.dumps({16: TYPE}), "unprotected": {}, "payload": b"x", "header": header,
        "signer_unprotected": {}, "signature": bytes(64), "more": [],
    } | changes  # fmt: skip
    signature = [parts["header"], parts["signer_unprotected"], parts["signature"]]
    signatures = parts.get("signatures", [signature])
    value = [parts["body"], parts["unprotected"], parts["payload"], signatures, *parts["more"]]
    return cbor2.dumps(cbor2.CBORTag(parts["tag"], value), canonical=True)


def test_the_layout_by_hand_is_the_rendered_one() -> None:
    assert layout() == Envelope(TYPE, b"x", (Signature(bytes(32), bytes(64)),)).render()


def signed(kid: bytes) -> list[Any]:
    return [cbor2.dumps({1: -19, 4: kid}), {}, bytes(64)]


SIGNED, LATER = signed(bytes(32)), signed(b"\x01" * 32)
BAD = {
    "no_tag": layout()[2:],
    "cose_sign1": layout(tag=18),
    "another_tag": layout(tag=97),
    "tag_in_three_bytes": b"\xd9\x00\x62" + layout()[2:],
    "tag_twice": b"\xd8\x62" + layout(),
    "self_described": b"\xd9\xd9\xf7" + layout(),
    "another_content_type": layout(body=cbor2.dumps({16: "application/vnd.flightbag.root+cbor"})),
    "content_type_of_coap": layout(body=cbor2.dumps({16: 60})),
    "content_type_under_3": layout(body=cbor2.dumps({3: TYPE})),
    "body_header_with_more": layout(body=cbor2.dumps({16: TYPE, 2: [1]})),
    "body_header_empty": layout(body=b""),
    "body_header_as_a_map": layout(body={16: TYPE}),
    "body_header_not_canonical": layout(body=b"\xa1\x18\x10" + cbor2.dumps(TYPE)),
    "body_header_as_text": layout(body=TYPE),
    "unprotected_header": layout(unprotected={"a": 1}),
    "unprotected_null": layout(unprotected=None),
    "unprotected_array": layout(unprotected=[]),
    "detached_payload": layout(payload=None),
    "empty_payload": layout(payload=b""),
    "payload_as_text": layout(payload="x"),
    "payload_too_long": layout(payload=bytes(LIMIT + 1)),
    "beyond_every_bound": layout(payload=bytes(LIMIT + OVERHEAD_LIMIT)),
    "a_fifth_item": layout(more=[1]),
    "signatures_null": layout(signatures=None),
    "signatures_map": layout(signatures={}),
    "nine_signatures": layout(signatures=[signed(bytes([i]) * 32) for i in range(9)]),
    "signature_twice": layout(signatures=[SIGNED, SIGNED]),
    "signatures_in_another_order": layout(signatures=[LATER, SIGNED]),
    "signer_unprotected_header": layout(signer_unprotected={"a": 1}),
    "signer_unprotected_array": layout(signer_unprotected=[]),
    "signature_of_two_items": layout(signatures=[SIGNED[:2]]),
    "signature_of_four_items": layout(signatures=[[*SIGNED, 1]]),
    "signature_as_bytes": layout(signatures=[bytes(64)]),
    "signature_short": layout(signature=bytes(63)),
    "signature_long": layout(signature=bytes(65)),
    "signature_as_text": layout(signature="x" * 64),
    "eddsa_by_its_old_number": layout(header=cbor2.dumps({1: -8, 4: bytes(32)})),
    "ecdsa": layout(header=cbor2.dumps({1: -7, 4: bytes(32)})),
    "no_algorithm": layout(header=cbor2.dumps({4: bytes(32)})),
    "no_kid": layout(header=cbor2.dumps({1: -19})),
    "kid_short": layout(header=cbor2.dumps({1: -19, 4: bytes(31)})),
    "kid_long": layout(header=cbor2.dumps({1: -19, 4: bytes(33)})),
    "header_with_more": layout(header=cbor2.dumps({1: -19, 4: bytes(32), 5: b"x"})),
    "header_in_another_order": layout(header=b"\xa2" + cbor2.dumps({4: bytes(32)})[1:] + cbor2.dumps({1: -19})[1:]),
    "header_as_text": layout(header="x"),
    "trailing_byte": layout() + b"\x00",
    "cut": layout()[:-1],
    "indefinite_array": b"\xd8\x62\x9f" + layout()[3:] + b"\xff",
    "nothing": b"",
    "tag_alone": b"\xd8\x62",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refuses(name: str) -> None:
    with pytest.raises(Corrupt) as caught:
        parse(BAD[name])
    assert caught.value.fields["kind"] in ("bad-envelope", "not-canonical", "too-large", "bad-order")
