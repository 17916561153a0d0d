"""The review before a signature (FORMAT.md 10.3): the code of exactly the payload that is signed, and its comparison.

A draft vouches for nothing: whoever can write the file can put another one in its place, also between the moment that a
person looks at it and the moment that the key signs. The person therefore gives the code of what was reviewed, and the
bytes that have this code are the bytes that are signed.
"""

from __future__ import annotations

from store.errors import Refused
from store.format import manifest, release, withdrawal
from store.format.code import read_code, short_code
from store.format.cose import Envelope
from store.format.ids import derive
from store.trust import root

# The digest of a payload, by its type: no two types share one. That of a root is the digest that its successor names.
_CONTEXTS = {
    root.CONTENT_TYPE: root.DOMAIN_CONTEXT,
    manifest.CONTENT_TYPE: "flightbag 2026 manifest payload v1",
    release.CONTENT_TYPE: "flightbag 2026 release payload v1",
    withdrawal.CONTENT_TYPE: "flightbag 2026 withdrawal payload v1",
}


def digest_of_payload(envelope: Envelope) -> bytes:
    """Return the digest of the payload of a root, a manifest, a release or a withdrawal, whoever has signed it."""
    return derive(_CONTEXTS[envelope.content_type], envelope.payload)


def signing_code(envelope: Envelope) -> str:
    """Return the code of the payload, by which people name what they review and sign."""
    return short_code(digest_of_payload(envelope))


def require_code(actual: str, expect: str, what: str) -> None:
    """Raise Refused (kind other-code) unless the code that a person expects of `what` is the actual one.

    Raise Invalid for a text that is not a code.
    """
    expected = read_code(expect)
    if expected != actual:
        raise Refused(
            f"{what} has the code {actual}, and not {expected}, which is expected: a typing error, or it is not what "
            "was reviewed",
            remedy="compare the codes letter by letter; where they differ, sign nothing, look at it again, and find "
            "out who changed it",
            kind="other-code",
            expected=expected,
            actual=actual,
        )
