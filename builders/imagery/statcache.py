"""The stat cache: ids and hashes of the tiles of sources, valid as long as no file of a source can have changed.

An entry holds ids, hashes and faults, the stamps of the sources (`SourceStamp`), and the time before they were opened.
It is valid if the stamps are the same, and if every file is older than the entry by more than the coarsest tick of a
file system: a file that was written shortly before it was read can be written again without a change of its stamp (the
rule of git for racy timestamps). Only a plan, and the answer that nothing has to be built, may rest on the cache.

An entry is a file with a checksum in the user's cache. A damaged or foreign file counts as no entry, and nothing is
unpickled. Without the cache a build takes longer and gives the same result, so nothing here is synced to the disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.imagery.sources import SourceStamp
from store.format.ids import DIGEST_SIZE

# FAT keeps the times of a file in steps of two seconds.
GRANULARITY_NS = 2 * 10**9
MAX_ENTRIES = 64
# 10 million tiles.
MAX_BYTES = 512 << 20
_MAGIC = b"flightbag tiles 4\n"
_LENGTH = 8
_TYPES = ("<u8", "u1", "<u2", "u1", "<u8")


class ZoomHashes(NamedTuple):
    """The tiles of one zoom: ids uint64[n], hashes uint8[n, 32], index of the source uint16[n], what their first bytes
    are if not those of an image, uint8[n], and which picture they show, uint64[n] (`repetition.picture_of`)."""

    ids: NDArray[np.uint64]
    hashes: NDArray[np.uint8]
    sources: NDArray[np.uint16]
    faults: NDArray[np.uint8]
    pictures: NDArray[np.uint64]


TileHashes = Mapping[int, ZoomHashes]


class StatCache:
    """The entries in one folder. `keep` makes the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, request: bytes, stamps: Sequence[SourceStamp]) -> TileHashes | None:
        """The tile hashes of a request if the cache has them and the sources cannot have changed since, else None.

        `request` is any bytes that name sources, zooms and cells; `stamps` are those of the sources now.
        """
        entry = self._read(request)
        if entry is None:
            return None
        head, data = entry
        if head["stamps"] != [stamp.digest.hex() for stamp in stamps]:
            return None
        if any(stamp.newest + GRANULARITY_NS >= head["opened"] for stamp in stamps):
            return None
        hashes_by_zoom = {}
        at = 0
        for zoom, count in head["zooms"]:
            ids = np.frombuffer(data, "<u8", count, at)
            hashes = np.frombuffer(data, "u1", count * DIGEST_SIZE, at + ids.nbytes)
            sources = np.frombuffer(data, "<u2", count, at + ids.nbytes + hashes.nbytes)
            faults = np.frombuffer(data, "u1", count, at + ids.nbytes + hashes.nbytes + sources.nbytes)
            at += ids.nbytes + hashes.nbytes + sources.nbytes + faults.nbytes
            pictures = np.frombuffer(data, "<u8", count, at)
            at += pictures.nbytes
            hashes_by_zoom[zoom] = ZoomHashes(ids, hashes.reshape(count, DIGEST_SIZE), sources, faults, pictures)
        return hashes_by_zoom

    def keep(self, request: bytes, opened: int, stamps: Sequence[SourceStamp], tiles: TileHashes) -> None:
        """Write an entry. `opened` is the time in ns before the sources were opened. Does nothing if the disk is full
        or the entry is too large."""
        head = {
            "opened": opened,
            "stamps": [stamp.digest.hex() for stamp in stamps],
            "zooms": [[zoom, len(one.ids)] for zoom, one in tiles.items()],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        parts: list[Any] = [_MAGIC, len(text).to_bytes(_LENGTH, "little"), text]
        for one in tiles.values():
            parts += [np.ascontiguousarray(a, t).tobytes() for a, t in zip(one, _TYPES, strict=True)]
        data = b"".join(parts)
        if len(data) > MAX_BYTES:
            return
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
                try:
                    file.write(data + blake3(data).digest())
                    file.close()
                    os.replace(file.name, self._path(request))
                except BaseException:
                    os.unlink(file.name)
                    raise
            self._prune()

    def _path(self, request: bytes) -> Path:
        return self.folder / f"{blake3(request).hexdigest()}.tiles"

    def _read(self, request: bytes) -> tuple[dict[str, Any], memoryview] | None:
        """(head, arrays) of the entry of a request; None if it is absent or damaged."""
        try:
            with open(self._path(request), "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError:
            return None
        body = memoryview(data)[:-DIGEST_SIZE]
        if not data.startswith(_MAGIC) or blake3(body).digest() != data[-DIGEST_SIZE:]:
            return None
        start = len(_MAGIC) + _LENGTH
        size = int.from_bytes(body[len(_MAGIC) : start], "little")
        head: dict[str, Any] = json.loads(bytes(body[start : start + size]))
        return head, body[start + size :]

    def _prune(self) -> None:
        """Remove the oldest entries above the limit."""
        entries = sorted(self.folder.glob("*.tiles"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-MAX_ENTRIES]:
            path.unlink(missing_ok=True)
