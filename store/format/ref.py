"""A ref: the file that names the manifest which is current for a mission. Pins are written alike."""

from __future__ import annotations

from store.errors import Corrupt, FlightbagError
from store.findings import COPY_AGAIN
from store.format.ids import ObjectId

REF_SIZE = 65


def ref_id(data: bytes) -> ObjectId:
    """The manifest id of a ref's bytes. Raises Corrupt unless they are 64 hex digits and a newline."""
    try:
        text = data.decode("ascii")
        if len(text) == REF_SIZE and text.endswith("\n"):
            return ObjectId.parse(text[:-1])
    except (UnicodeDecodeError, FlightbagError):
        pass
    raise Corrupt(
        f"the mission ref is not {REF_SIZE} bytes of one object id and a newline",
        remedy=COPY_AGAIN,
        kind="bad-ref",
        expected=f"{REF_SIZE} bytes",
        actual=f"{len(data)} bytes",
    )
