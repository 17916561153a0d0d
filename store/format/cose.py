"""The envelope (FORMAT.md 4.1): COSE_Sign (RFC 9052, section 4.1), tag 98, embedded payload, Ed25519 (RFC 9864).

The layout is fixed and compared byte for byte: the protected headers are constants except for the kid, the unprotected
maps are empty, and signatures ascend by kid. So every byte of an envelope is signed or fixed, except the signatures
themselves. This module checks no signature; `store.trust` decides who may sign.

Law: `Envelope.parse(e.render(), e.content_type, limit) == e`, and only canonical bytes parse.
"""

from __future__ import annotations

from typing import Any

from store.errors import Corrupt, Invalid
from store.format.cbor import ascending, decode, encode
from store.values import dataclass, replace

TAG_98 = b"\xd8\x62"
MAX_SIGNATURES = 8
KID_SIZE = 32
SIGNATURE_SIZE = 64
# {1: -19, 4: h'…32 bytes…'}: alg Ed25519 (RFC 9864) and the kid.
_SIGNER_HEADER = bytes.fromhex("a201320458") + bytes([KID_SIZE])
# Bytes of signatures, headers and framing in addition to the payload.
OVERHEAD_LIMIT = 2048


def _body_header(content_type: str) -> bytes:
    """{16: content type} (RFC 9596). The key is an integer, which `encode` refuses, so the map is framed by hand."""
    return b"\xa1\x10" + encode(content_type)


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of one key over the payload of an envelope: 32 bytes of kid, 64 bytes of signature. Not checked."""

    kid: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.kid) != KID_SIZE or len(self.signature) != SIGNATURE_SIZE:
            raise Invalid(f"a signature must have a kid of {KID_SIZE} bytes and {SIGNATURE_SIZE} bytes of its own")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures. No signature is checked."""

    content_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    @property
    def kids(self) -> tuple[bytes, ...]:
        """The kids of the signatures, ascending: of the keys that are said to have signed."""
        return tuple(signature.kid for signature in self.signatures)

    def to_be_signed(self, kid: bytes, aad: bytes) -> bytes:
        """Return the Sig_structure (RFC 9052, section 4.4) that the key `kid` signs; `aad` is the external_aad."""
        return encode(["Signature", _body_header(self.content_type), _SIGNER_HEADER + kid, aad, self.payload])

    def with_signature(self, signature: Signature) -> Envelope:
        """Return this envelope with one more signature, which replaces one of the same kid."""
        others = [s for s in self.signatures if s.kid != signature.kid]
        return replace(self, signatures=tuple(sorted([*others, signature], key=lambda s: s.kid)))

    def joined(self, other: Envelope) -> Envelope:
        """Return this envelope with the signatures of another one over the same payload that it lacks, as far as there
        is room for them. Where both have one of a kid, its own stays."""
        assert (self.content_type, self.payload) == (other.content_type, other.payload)
        kids = set(self.kids)
        more = [signature for signature in other.signatures if signature.kid not in kids]
        fitting = (*self.signatures, *more[: MAX_SIGNATURES - len(self.signatures)])
        return replace(self, signatures=tuple(sorted(fitting, key=lambda s: s.kid)))

    def render(self) -> bytes:
        """Return the canonical bytes. Raises Invalid for more than MAX_SIGNATURES signatures."""
        if len(self.signatures) > MAX_SIGNATURES:
            raise Invalid(f"the envelope has {len(self.signatures)} signatures, at most {MAX_SIGNATURES} are allowed")
        return TAG_98 + encode(
            [
                _body_header(self.content_type),
                {},
                self.payload,
                [[_SIGNER_HEADER + s.kid, {}, s.signature] for s in self.signatures],
            ]
        )

    @classmethod
    def parse(cls, data: bytes, content_type: str, payload_limit: int) -> Envelope:
        """Return the envelope of canonical bytes with a payload of 1 to `payload_limit` bytes.

        Raises Corrupt for any other bytes (kind bad-envelope, not-canonical, too-large or bad-order).
        """
        what = "the envelope"
        if not data.startswith(TAG_98):
            raise Corrupt(f"{what} is not a COSE_Sign message", kind="bad-envelope")
        value = decode(data[len(TAG_98) :], limit=payload_limit + OVERHEAD_LIMIT, what=what)
        if type(value) is not list or len(value) != 4:
            raise Corrupt(f"{what} is not an array of four items", kind="bad-envelope")
        header, unprotected, payload, signatures = value
        if header != _body_header(content_type) or type(header) is not bytes:
            raise Corrupt(f"{what} has another content type than {content_type}", kind="bad-envelope")
        if type(unprotected) is not dict or unprotected:
            raise Corrupt(f"{what} has unprotected headers", kind="bad-envelope")
        if type(payload) is not bytes or not 0 < len(payload) <= payload_limit:
            raise Corrupt(f"{what} lacks a payload of 1 to {payload_limit} bytes", kind="bad-envelope")
        if type(signatures) is not list or len(signatures) > MAX_SIGNATURES:
            raise Corrupt(f"{what} lacks a list of at most {MAX_SIGNATURES} signatures", kind="bad-envelope")
        parsed = tuple(_signature(item) for item in signatures)
        ascending([s.kid for s in parsed], "the kids of the signatures")
        return cls(content_type, payload, parsed)


def _signature(item: Any) -> Signature:
    if type(item) is not list or [type(part) for part in item] != [bytes, dict, bytes] or item[1]:
        raise Corrupt("a signature of the envelope is malformed", kind="bad-envelope")
    header, _, signature = item
    kid = header[len(_SIGNER_HEADER) :]
    if not header.startswith(_SIGNER_HEADER) or len(kid) != KID_SIZE or len(signature) != SIGNATURE_SIZE:
        raise Corrupt(f"a signature of the envelope is not Ed25519 with a kid of {KID_SIZE} bytes", kind="bad-envelope")
    return Signature(kid, signature)
