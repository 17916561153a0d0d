"""The objects that missions, earlier manifests, pins and drafts need: an audit looks for them, a collection keeps them.

A `Need` takes 40 bytes an object, so that the closures of many large missions fit in memory together.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from struct import Struct

from store.disk.media import Media, object_path
from store.errors import FlightbagError
from store.format import manifest
from store.format.cose import Envelope
from store.format.ids import DIGEST_SIZE, ObjectId
from store.format.manifest import ENVELOPE_LIMIT, Manifest
from store.format.ref import REF_SIZE, ref_id
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Opened
from store.takeoff.verify import read_table

# The size of an object without a signed size, as a release has.
UNKNOWN = 2**64 - 1
# So many manifests of each mission are kept, the current one included.
KEEP_LAST = 2


class Need:
    """Objects with their sizes, ascending by id. `holder` is the path of the ref, pin, draft or log that needs them."""

    _ROW = Struct(f">{DIGEST_SIZE}sQ")

    def __init__(self, holder: str, objects: Iterable[tuple[ObjectId, int]]) -> None:
        self.holder = holder
        self._rows = b"".join(self._ROW.pack(*row) for row in sorted(objects))

    def __len__(self) -> int:
        return len(self._rows) // self._ROW.size

    def __iter__(self) -> Iterator[tuple[ObjectId, int]]:
        return self._between(0, len(self))

    @property
    def mission(self) -> str | None:
        """The mission whose ref is the holder; None for any other holder."""
        folder, _, name = self.holder.partition("/")
        return name if folder == "missions" else None

    def of_shard(self, first: int) -> Iterator[tuple[ObjectId, int]]:
        """Yield the objects whose ids begin with the byte `first`."""
        return self._between(self._below(first), self._below(first + 1))

    def _below(self, first: int) -> int:
        """Return how many ids begin with a smaller byte."""
        return bisect_left(range(len(self)), first, key=lambda row: self._rows[row * self._ROW.size])

    def _between(self, start: int, end: int) -> Iterator[tuple[ObjectId, int]]:
        for raw, size in self._ROW.iter_unpack(self._rows[start * self._ROW.size : end * self._ROW.size]):
            yield ObjectId(raw), size


def need_of(holder: str, opened: Opened) -> Need:
    """Return the closure of a verified manifest as the need of `holder`."""
    sizes = opened.closure()
    for release in opened.manifest.releases:
        sizes.setdefault(release, UNKNOWN)
    return Need(holder, sizes.items())


def need_of_unsigned(holder: str, envelope: bytes, evidence: StoreEvidence) -> Need:
    """Return the need of a manifest, whoever signed it; the manifest itself is left out.

    Keeping too much does no harm. Raise Corrupt, NotFound or Unavailable.
    """
    parsed = Manifest.parse(Envelope.parse(envelope, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT).payload)
    table = read_table(evidence, parsed)
    sizes = {parsed.table: parsed.table_size, **dict.fromkeys(parsed.releases, UNKNOWN)}
    sizes.update((entry.id, entry.size) for entry in table.entries)
    return Need(holder, sizes.items())


def need_of_stored(holder: str, id_: ObjectId, evidence: StoreEvidence) -> Need:
    """Return the need of a manifest among the objects, the manifest included. Raise as `need_of_unsigned` does."""
    data = evidence.object(id_, ENVELOPE_LIMIT)
    return Need(holder, [*need_of_unsigned(holder, data, evidence), (id_, len(data))])


def pinned_id(media: Media, holder: str) -> ObjectId:
    """Return the id in a pin: like a ref, 64 hex digits and a newline. Raise Corrupt for other bytes."""
    return ref_id(media.read(holder, REF_SIZE), holder, remedy="")


def is_manifest(evidence: StoreEvidence, id_: ObjectId) -> bool:
    """Return whether an object is a manifest. Raise NotFound, Corrupt or Unavailable if it is not whole."""
    if evidence.media.stamp(object_path(id_)).size > ENVELOPE_LIMIT:
        return False
    data = evidence.object(id_, ENVELOPE_LIMIT)
    try:
        Envelope.parse(data, manifest.CONTENT_TYPE, manifest.PAYLOAD_LIMIT)
    except FlightbagError:
        return False
    return True
