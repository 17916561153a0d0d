"""A receipt (FORMAT.md 5.4): that somebody has verified a mission, or flown a flight. A value, and canonical bytes.

This module knows no signatures. `store.ground.receipts` signs receipts and reads them, and says whose they are.

Law: `Receipt.parse(r.render()) == r`, and only canonical bytes of a valid receipt parse.
"""

from __future__ import annotations

from typing import Literal

from store.errors import Corrupt
from store.format.cbor import INT_MAX, Fields, Value, ascending, decode, encode, integers
from store.format.cose import OVERHEAD_LIMIT
from store.format.host import NEED, objection
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import AIRCRAFT_ID, FLIGHT_ID, MISSION_ID, TIME_MAX
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.receipt+cbor"
AAD_LABEL = "flightbag/receipt/1"
PAYLOAD_LIMIT = 6 * 2**10
RECEIPT_LIMIT = PAYLOAD_LIMIT + OVERHEAD_LIMIT
VERSION = 1
MAX_PROOFS = 64
_KEY_SIZE = 32

Clock = Literal["trusted", "known"]


@dataclass(frozen=True, slots=True)
class Verified:
    """What a takeoff check that said GO has looked at.

    `root` is the version of the trust root that judged, `host` the host class that was asked, None for none. `objects`
    and `bytes_read` measure the closure, which was read as a whole; `from_medium` is whether past the page cache.
    `proofs` are digests (FORMAT.md 10.5) on which the GO rests.
    """

    mission: str
    manifest: ObjectId
    epoch: int
    sequence: int
    root: int
    objects: int
    bytes_read: int
    from_medium: bool
    host: str | None = None
    proofs: tuple[bytes, ...] = ()

    def value(self) -> Value:
        """Return the map as it is encoded in the payload."""
        value: dict[str, Value] = {
            "mission": self.mission,
            "manifest": bytes(self.manifest),
            "issue": [self.epoch, self.sequence],
            "root": self.root,
            "objects": self.objects,
            "bytes": self.bytes_read,
            "medium": int(self.from_medium),
            "proofs": list(self.proofs),
        }
        return value if self.host is None else {**value, "host": self.host}

    @classmethod
    def parse(cls, fields: Fields) -> Verified:
        """Return the value of a decoded map. Raises Corrupt, which names the field, for any other map."""
        epoch, sequence = integers(fields.array("issue", 2, 2), 1, INT_MAX, "receipt.verified.issue")
        host = fields.text("host", NEED) if "host" in fields else None
        if wrong := host and objection(host):
            raise Corrupt(f"receipt.verified.host: {wrong}", kind="bad-field", field="receipt.verified.host")
        verified = cls(
            mission=fields.text("mission", MISSION_ID),
            manifest=ObjectId(fields.binary("manifest", DIGEST_SIZE)),
            epoch=epoch,
            sequence=sequence,
            root=fields.integer("root", 1, INT_MAX),
            objects=fields.integer("objects", 0, INT_MAX),
            bytes_read=fields.integer("bytes", 0, INT_MAX),
            from_medium=bool(fields.integer("medium", 0, 1)),
            host=host,
            proofs=_proofs(fields.array("proofs", 0, MAX_PROOFS)),
        )
        fields.end()
        return verified


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the holder of a key says. `key` is the public key, 32 bytes; `aircraft` the id in the state, None at a desk.

    `at` is unix seconds: with the clock `trusted` the time of the check, with `known` a time that had passed by then.
    `verified` is None where the aircraft consumed the flight.
    """

    key: bytes
    aircraft: str | None
    flight: str
    at: int
    clock: Clock
    verified: Verified | None

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        value: dict[str, Value] = {
            "version": VERSION,
            "key": self.key,
            "flight": self.flight,
            "at": self.at,
            "clock": self.clock,
        }
        if self.aircraft is not None:
            value["aircraft"] = self.aircraft
        if self.verified is not None:
            value["verified"] = self.verified.value()
        data = encode(value)
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Receipt:
        """Return the receipt of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the receipt"), "receipt")
        fields.integer("version", VERSION, VERSION)
        clock = fields.choice("clock", ("trusted", "known"))
        receipt = cls(
            key=fields.binary("key", _KEY_SIZE),
            aircraft=fields.text("aircraft", AIRCRAFT_ID) if "aircraft" in fields else None,
            flight=fields.text("flight", FLIGHT_ID),
            at=fields.integer("at", 0, TIME_MAX),
            clock="trusted" if clock == "trusted" else "known",
            verified=Verified.parse(fields.fields("verified")) if "verified" in fields else None,
        )
        fields.end()
        if receipt.verified is None and receipt.aircraft is None:
            raise Corrupt("receipt.aircraft is missing", kind="bad-field", field="receipt.aircraft")
        return receipt


def _proofs(items: list[object]) -> tuple[bytes, ...]:
    proofs = tuple(item for item in items if type(item) is bytes and len(item) == DIGEST_SIZE)
    if len(proofs) != len(items):
        text = "receipt.verified.proofs holds something else than digests"
        raise Corrupt(text, kind="bad-field", field="receipt.verified.proofs")
    ascending(proofs, "receipt.verified.proofs")
    return proofs
