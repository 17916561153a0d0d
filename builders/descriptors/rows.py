"""The row cache: which rows of a cell were described before, and of which bytes, so that a build after one changed tile
describes one tile (decision 0013).

An entry belongs to a row recipe, a zoom and a cell. It names the object in the store that is the cell's shard, and has
for each view of it a hash of the bytes of all its tiles. The rows themselves are read from that shard by its object id,
so its hash checks them; an entry whose shard is gone is of no use. Each entry is a file in the user's cache, with a
checksum; a damaged file counts as no entry.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.recipe import RowRecipe, tile_list
from store.format.cbor import encode
from store.format.ids import DIGEST_SIZE, ObjectId

# 500,000 cells are 10^8 tiles, a country at 30 cm a pixel, and some more: 5 GB at most.
MAX_ENTRIES = 500_000
MAX_BYTES = 1 << 20
_MAGIC = b"flightbag rows 1\n"


@dataclass(frozen=True, slots=True)
class CachedCell:
    """The shard of a cell: its object and size, the `origins` uint64[n] of its views, and `digests` uint8[n, 32]: the
    `view_digests` of its views when they were described."""

    shard: ObjectId
    size: int
    origins: NDArray[np.uint64]
    digests: NDArray[np.uint8]


class RowCache:
    """The entries of one folder; the first entry creates it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, recipe: RowRecipe, zoom: int, cell: int) -> CachedCell | None:
        """Return the entry of the cell with this tile id, or None."""
        try:
            with open(self._path(recipe, zoom, cell), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        body = memoryview(data)[:-DIGEST_SIZE]
        if not data.startswith(_MAGIC) or blake3(body).digest() != data[-DIGEST_SIZE:]:
            return None
        rest = body[len(_MAGIC) :]
        shard, size = ObjectId(bytes(rest[:DIGEST_SIZE])), int.from_bytes(rest[DIGEST_SIZE : DIGEST_SIZE + 8], "little")
        pairs = np.frombuffer(rest[DIGEST_SIZE + 8 :], [("id", "<u8"), ("hash", "u1", DIGEST_SIZE)])
        return CachedCell(shard, size, pairs["id"], pairs["hash"])

    def keep(self, recipe: RowRecipe, zoom: int, cell: int, entry: CachedCell) -> None:
        """Write the entry. Does nothing where the disk is full or the folder cannot be written."""
        body = _MAGIC + bytes(entry.shard) + entry.size.to_bytes(8, "little") + tile_list(entry.origins, entry.digests)
        path = self._path(recipe, zoom, cell)
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                try:
                    file.write(body + blake3(body).digest())
                    file.close()
                    os.replace(file.name, path)
                except BaseException:
                    os.unlink(file.name)
                    raise

    def prune(self) -> None:
        """Remove the older half of the entries if the folder has more than MAX_ENTRIES."""
        with suppress(OSError):
            entries = list(self.folder.glob("*/*.rows"))
            if len(entries) > MAX_ENTRIES:
                for path in sorted(entries, key=lambda path: path.stat().st_mtime)[: len(entries) // 2]:
                    path.unlink(missing_ok=True)

    def _path(self, recipe: RowRecipe, zoom: int, cell: int) -> Path:
        return self.folder / blake3(encode(recipe.fields())).hexdigest()[:32] / f"{zoom}-{cell}.rows"


def view_digests(
    footprint: NDArray[np.uint64], ids: NDArray[np.uint64], hashes: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return uint8[n, 32]: for each view, a hash of the hashes of its tiles in their order. `footprint` is uint64[n, t,
    t]; all its tiles are among the ascending `ids` uint64[m], whose hashes are uint8[m, 32]."""
    places = np.searchsorted(ids, footprint)
    digests = b"".join(blake3(hashes[row].tobytes()).digest() for row in places)
    return np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_SIZE)
