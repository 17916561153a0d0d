"""A ref (FORMAT.md 2.2): the file that names the current manifest of a mission. Pins and names of releases look alike.

A ref is unsigned and only a pointer: the manifest that it leads to must carry the same mission id.
"""

from __future__ import annotations

from store.errors import Corrupt, FlightbagError
from store.findings import COPY_AGAIN
from store.format.ids import ObjectId

REF_SIZE = 65


def ref_id(data: bytes, what: str = "the mission ref", *, remedy: str = COPY_AGAIN) -> ObjectId:
    """Return the object id that a ref names. Raises Corrupt (kind bad-ref) unless it is 64 hex digits and a newline.

    `what` names the ref in the message.
    """
    try:
        text = data.decode("ascii")
        if len(text) == REF_SIZE and text.endswith("\n"):
            return ObjectId.parse(text[:-1])
    except (UnicodeDecodeError, FlightbagError):
        pass
    raise Corrupt(
        f"{what} is not an object id of {REF_SIZE - 1} hex digits and a newline",
        remedy=remedy,
        kind="bad-ref",
        expected=f"{REF_SIZE} bytes",
        actual=f"{len(data)} bytes",
    )
