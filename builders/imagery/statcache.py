"""The stat cache: what the tile sources had, believed again as long as no file of theirs can have changed.

An entry holds the ids and hashes that were read, the stamps of the sources (`SourceStamp`), and when they were opened.
It serves if the stamps are still those, and if every file was older than the entry by more than the coarsest
file system counts time: one that was written while it was read, or right before, can be written again without a
trace (git's rule for racy timestamps). Only the verdict that nothing has to be built may rest on it.

An entry is a file of its own in the user's cache, checksummed; a damaged or foreign one is no entry. Never unpickled.
Losing the cache loses nothing but time, so nothing here is synced to the disk.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from builders.imagery.sources import SourceStamp
from store.format.ids import DIGEST_SIZE

# FAT counts the seconds of a file in twos.
GRANULARITY_NS = 2 * 10**9
MAX_ENTRIES = 64
# 10 million tiles.
MAX_BYTES = 512 << 20
_MAGIC = b"flightbag tiles 1\n"
_LENGTH = 8

# Zoom -> (ids uint64[n], hashes uint8[n, 32], number of the source uint16[n]).
Found = Mapping[int, tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint16]]]


class StatCache:
    """The entries of one folder, which is made when the first is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, request: bytes, stamps: Sequence[SourceStamp]) -> Found | None:
        """What a request (whatever names sources, zooms and cells) found when the sources were as they are now."""
        entry = self._read(request)
        if entry is None:
            return None
        head, data = entry
        if head["stamps"] != [stamp.digest.hex() for stamp in stamps]:
            return None
        if any(stamp.newest + GRANULARITY_NS >= head["opened"] for stamp in stamps):
            return None
        found = {}
        at = 0
        for zoom, count in head["zooms"]:
            ids = np.frombuffer(data, "<u8", count, at)
            hashes = np.frombuffer(data, "u1", count * DIGEST_SIZE, at + ids.nbytes)
            sources = np.frombuffer(data, "<u2", count, at + ids.nbytes + hashes.nbytes)
            found[zoom] = ids, hashes.reshape(count, DIGEST_SIZE), sources
            at += ids.nbytes + hashes.nbytes + sources.nbytes
        return found

    def keep(self, request: bytes, opened: int, stamps: Sequence[SourceStamp], found: Found) -> None:
        """Keeps what was found. `opened` is the time in ns before the sources were opened. A full disk keeps
        nothing."""
        head = {
            "opened": opened,
            "stamps": [stamp.digest.hex() for stamp in stamps],
            "zooms": [[zoom, len(ids)] for zoom, (ids, _, _) in found.items()],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        parts: list[Any] = [_MAGIC, len(text).to_bytes(_LENGTH, "little"), text]
        for ids, hashes, sources in found.values():
            parts += [np.ascontiguousarray(a, t).tobytes() for a, t in ((ids, "<u8"), (hashes, "u1"), (sources, "<u2"))]
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
        """(head, arrays) of an entry; None where there is none that is whole."""
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
        """The oldest entries go."""
        entries = sorted(self.folder.glob("*.tiles"), key=lambda path: path.stat().st_mtime)
        for path in entries[:-MAX_ENTRIES]:
            path.unlink(missing_ok=True)
