"""The row cache: which rows of a cell were described before, and of which bytes, so that one changed tile embeds one
tile.

An entry is of a row recipe, a zoom and a cell, and says which object in the store is the shard, and of each of its
views a hash of the bytes of every tile in it. The rows themselves are read from that shard, by its object id, so they
are checked by its hash; an entry whose shard is gone serves nothing. Entries are files of their own in the user's
cache, checksummed; a damaged or foreign one is no entry.
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

# 200,000 cells are the map of a continent, and 2 GB.
MAX_ENTRIES = 200_000
MAX_BYTES = 1 << 20
_MAGIC = b"flightbag rows 1\n"


@dataclass(frozen=True, slots=True)
class SeenCell:
    """The shard that a cell was built to, `origins` uint64[n] of its views, and `seen` uint8[n, 32]: what each
    showed."""

    shard: ObjectId
    size: int
    origins: NDArray[np.uint64]
    seen: NDArray[np.uint8]


class RowCache:
    """The entries of one folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, recipe: RowRecipe, zoom: int, cell: int) -> SeenCell | None:
        """What is known of the cell with this tile id; None where nothing is."""
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
        return SeenCell(shard, size, pairs["id"], pairs["hash"])

    def keep(self, recipe: RowRecipe, zoom: int, cell: int, seen: SeenCell) -> None:
        """Keeps what was seen. A full disk keeps nothing."""
        body = _MAGIC + bytes(seen.shard) + seen.size.to_bytes(8, "little") + tile_list(seen.origins, seen.seen)
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
        """Where there are far too many entries, the older half goes."""
        with suppress(OSError):
            entries = list(self.folder.glob("*/*.rows"))
            if len(entries) > MAX_ENTRIES:
                for path in sorted(entries, key=lambda path: path.stat().st_mtime)[: len(entries) // 2]:
                    path.unlink(missing_ok=True)

    def _path(self, recipe: RowRecipe, zoom: int, cell: int) -> Path:
        return self.folder / blake3(encode(recipe.fields())).hexdigest()[:32] / f"{zoom}-{cell}.rows"


def shown(footprint: NDArray[np.uint64], ids: NDArray[np.uint64], hashes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[n, 32]: a hash of what each view shows: of the hashes of its tiles, in their order. `footprint` is
    uint64[n, t, t]; all its tiles are among the ascending `ids` uint64[m], whose hashes are uint8[m, 32]."""
    places = np.searchsorted(ids, footprint)
    digests = b"".join(blake3(hashes[row].tobytes()).digest() for row in places)
    return np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_SIZE)
