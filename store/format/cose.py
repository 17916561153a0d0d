"""The envelope: COSE_Sign (RFC 9052, section 4.1), tag 98, payload embedded, Ed25519 signatures (RFC 9864).

One layout, compared byte for byte: the protected headers are constants but for the kid, the unprotected maps
are empty, signatures ascend by kid. So there is nothing in an envelope that is neither signed nor fixed, except
the signatures themselves. Who may sign is decided in `store.trust`.

Law: `Envelope.parse(e.render(t), t) == e`, and only canonical bytes parse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from store.errors import Corrupt, Invalid
from store.format.cbor import ascending, decode, encode

TAG_98 = b"\xd8\x62"
MAX_SIGNATURES = 8
KID_SIZE = 32
SIGNATURE_SIZE = 64
# {1: -19, 4: h'…32 bytes…'}: alg Ed25519 (RFC 9864) and the kid.
_SIGNER_HEADER = bytes.fromhex("a201320458") + bytes([KID_SIZE])
# Signatures, headers and framing on top of the payload.
OVERHEAD_LIMIT = 2048


def _body_header(content_type: str) -> bytes:
    """{16: content type} (RFC 9596). Integer keys are COSE's own, so the map is framed by hand."""
    return b"\xa1\x10" + encode(content_type)


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of one key over an envelope's payload."""

    kid: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if len(self.kid) != KID_SIZE or len(self.signature) != SIGNATURE_SIZE:
            raise Invalid(f"a signature is a kid of {KID_SIZE} bytes and {SIGNATURE_SIZE} bytes")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures, none of them checked yet."""

    content_type: str
    payload: bytes
    signatures: tuple[Signature, ...] = ()

    def to_be_signed(self, kid: bytes, aad: bytes) -> bytes:
        """The Sig_structure (RFC 9052, section 4.4) that the key `kid` signs."""
        return encode(["Signature", _body_header(self.content_type), _SIGNER_HEADER + kid, aad, self.payload])

    def with_signature(self, signature: Signature) -> Envelope:
        """This envelope with one more signature; that of the same kid is replaced."""
        others = [s for s in self.signatures if s.kid != signature.kid]
        return replace(self, signatures=tuple(sorted([*others, signature], key=lambda s: s.kid)))

    def render(self) -> bytes:
        """The canonical bytes. Raises Invalid for more signatures than the format has room for."""
        if len(self.signatures) > MAX_SIGNATURES:
            raise Invalid(f"an envelope has at most {MAX_SIGNATURES} signatures")
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
        """The envelope of canonical bytes. Raises Corrupt for anything else; no signature is checked."""
        what = "the envelope"
        if not data.startswith(TAG_98):
            raise Corrupt(f"{what} is no COSE_Sign message", kind="bad-envelope")
        value = decode(data[len(TAG_98) :], limit=payload_limit + OVERHEAD_LIMIT, what=what)
        if type(value) is not list or len(value) != 4:
            raise Corrupt(f"{what} is not an array of four", kind="bad-envelope")
        header, unprotected, payload, signatures = value
        if header != _body_header(content_type) or type(header) is not bytes:
            raise Corrupt(f"{what} does not say {content_type}", kind="bad-envelope")
        if type(unprotected) is not dict or unprotected:
            raise Corrupt(f"{what} has unprotected headers", kind="bad-envelope")
        if type(payload) is not bytes or not 0 < len(payload) <= payload_limit:
            raise Corrupt(f"{what} has no payload of 1 to {payload_limit} bytes", kind="bad-envelope")
        if type(signatures) is not list or len(signatures) > MAX_SIGNATURES:
            raise Corrupt(f"{what} has no list of at most {MAX_SIGNATURES} signatures", kind="bad-envelope")
        parsed = tuple(_signature(item) for item in signatures)
        ascending([s.kid for s in parsed], "the kids of the signatures")
        return cls(content_type, payload, parsed)


def _signature(item: Any) -> Signature:
    if type(item) is not list or [type(part) for part in item] != [bytes, dict, bytes] or item[1]:
        raise Corrupt("a signature of the envelope is malformed", kind="bad-envelope")
    header, _, signature = item
    kid = header[len(_SIGNER_HEADER) :]
    if not header.startswith(_SIGNER_HEADER) or len(kid) != KID_SIZE or len(signature) != SIGNATURE_SIZE:
        raise Corrupt("a signature of the envelope is not Ed25519 with a 32-byte kid", kind="bad-envelope")
    return Signature(kid, signature)
