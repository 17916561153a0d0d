"""The objects that missions, earlier manifests, pins and drafts need: an audit looks for them, a collection keeps them.

A `Need` takes 40 bytes an object, so that the closures of many large missions fit in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

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

    _ROW = DIGEST_SIZE + 8

    def __init__(self, holder: str, objects: Iterable[tuple[ObjectId, int]]) -> None:
        self.holder = holder
        self._rows = b"".join(bytes(id_) + size.to_bytes(8, "big") for id_, size in sorted(objects))

    def __len__(self) -> int:
        return len(self._rows) // self._ROW

    def __iter__(self) -> Iterator[tuple[ObjectId, int]]:
        return self._from(0)

    @property
    def mission(self) -> str | None:
        """The mission whose ref is the holder; None for any other holder."""
        folder, _, name = self.holder.partition("/")
        return name if folder == "missions" else None

    def of_shard(self, first: int) -> Iterator[tuple[ObjectId, int]]:
        """Yield the objects whose ids begin with the byte `first`."""
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if self._rows[middle * self._ROW] < first:
                low = middle + 1
            else:
                high = middle
        for id_, size in self._from(low):
            if id_[0] != first:
                return
            yield id_, size

    def _from(self, row: int) -> Iterator[tuple[ObjectId, int]]:
        for at in range(row * self._ROW, len(self._rows), self._ROW):
            middle = at + DIGEST_SIZE
            yield ObjectId(self._rows[at:middle]), int.from_bytes(self._rows[middle : at + self._ROW], "big")


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
