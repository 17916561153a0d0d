# PLACEHOLDER until the real module is written: overwrite me.
from __future__ import annotations

import os
from dataclasses import dataclass

from blake3 import blake3

from builders.descriptors.mbtiles import MBTilesSource


@dataclass(frozen=True)
class Stamp:
    digest: bytes
    newest: int


class _M(MBTilesSource):
    zooms = None
    resolution_m = None

    def stamp(self, cells):
        st = os.stat(self.path)
        return Stamp(
            blake3(repr((st.st_size, st.st_mtime_ns, st.st_ctime_ns, st.st_ino)).encode()).digest(),
            max(st.st_mtime_ns, st.st_ctime_ns),
        )


def open_source(path, tile_size):
    return _M(path)
