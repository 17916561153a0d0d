"""A build record of a shared cache (FORMAT.md 5.6): what a build key was built to. A value, and canonical bytes.

This module knows no signatures; `store.remotes.shared_cache` decides whether a record counts.

Law: `Built.parse(b.render()) == b`, and only canonical bytes of a valid record parse.
"""

from __future__ import annotations

from store.errors import Corrupt
from store.format.cbor import INT_MAX, Fields, decode, encode
from store.format.cose import OVERHEAD_LIMIT
from store.format.ids import DIGEST_SIZE, BuildKey, ObjectId, sized_object
from store.format.manifest import TIME_MAX
from store.values import dataclass

CONTENT_TYPE = "application/vnd.flightbag.built+cbor"
AAD_LABEL = "flightbag/built/1"
PAYLOAD_LIMIT = 1024
FILE_LIMIT = PAYLOAD_LIMIT + OVERHEAD_LIMIT
VERSION = 1
MAX_OBJECTS, MAX_SIZE = 3, 2**36


@dataclass(frozen=True, slots=True)
class Built:
    """`objects` are (id, size) of what `key` was built to, in the order of a build record (FORMAT.md 4.3). `epoch` is
    that of the trust root that it was signed under, `issued_at` unix seconds."""

    key: BuildKey
    objects: tuple[tuple[ObjectId, int], ...]
    epoch: int
    issued_at: int

    def render(self) -> bytes:
        """Return the canonical payload. Raises Corrupt where the value breaks a rule of the format."""
        data = encode(
            {
                "version": VERSION,
                "key": bytes(self.key),
                "objects": [[bytes(id_), size] for id_, size in self.objects],
                "epoch": self.epoch,
                "issued_at": self.issued_at,
            }
        )
        self.parse(data)
        return data

    @classmethod
    def parse(cls, data: bytes) -> Built:
        """Return the record of a canonical payload; raises Corrupt for any other bytes."""
        fields = Fields(decode(data, limit=PAYLOAD_LIMIT, what="the build record"), "built")
        fields.integer("version", VERSION, VERSION)
        built = cls(
            key=BuildKey(fields.binary("key", DIGEST_SIZE)),
            objects=tuple(
                sized_object(item, "built.objects", MAX_SIZE) for item in fields.array("objects", 1, MAX_OBJECTS)
            ),
            epoch=fields.integer("epoch", 1, INT_MAX),
            issued_at=fields.integer("issued_at", 0, TIME_MAX),
        )
        fields.end()
        if len({id_ for id_, _ in built.objects}) < len(built.objects):
            raise Corrupt("built.objects has an object twice", kind="bad-field", field="built.objects")
        return built
