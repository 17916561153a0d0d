"""What a sync saw at a target: a view in the cache of the user, which spares the next sync a look at each object.

A record of a target has the state of each of its 256 folders of objects, and the manifests of which every object was
looked at after that. The state is the folder's own (inode and times) and the names in it. A folder that has this state
still is trusted: no name came or went, and no file was replaced. What was changed within a file is not seen, and its
size neither: `sync --checksum`, the takeoff check and an audit see it.

- A folder that changed shortly before it was looked at is not trusted (the rule of git for racy timestamps).
- A record is written where the file system is one that is known to keep the times of folders and to write everything
  out, when it has done so: no power cut takes back what was seen.
- A record is of one path and one store. One that is damaged, foreign or older counts as none.

Only the answer that nothing has to be copied rests on a record, and nothing that flies. To delete it costs time only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.layout import TOML, TOML_LIMIT
from store.disk.media import Media
from store.errors import FlightbagError
from store.format.ids import ObjectId
from store.values import dataclass

_SHARDS = 256
# FAT keeps the times of a file in steps of two seconds.
_GRANULARITY_NS = 2 * 10**9
_MOST_RECORDS = 64
_MOST_BYTES = 4 << 20
_VERSION = "flightbag seen 1"


@dataclass(frozen=True, slots=True)
class Look:
    """The beginning of a look at a target: which folders of objects are as the record has them (`trusted`, by number),
    and the manifests of the record, of which every object was seen whole then."""

    trusted: frozenset[int]
    manifests: frozenset[ObjectId]
    # What `Seen.keep` writes: where, of which store, and the states of the folders, "" for one that cannot be trusted.
    path: Path
    store: str
    states: tuple[str, ...]

    def covers(self, manifest: ObjectId) -> bool:
        """Whether every object of this manifest is there, as far as a record can say that."""
        return len(self.trusted) == _SHARDS and manifest in self.manifests


class Seen:
    """The records in one folder. `keep` makes the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def look(self, media: Media) -> Look:
        """Begin a look at a target. Raise Unavailable where a folder cannot be listed."""
        begun = time.time_ns()
        path = self._folder / f"{blake3(os.fsencode(os.path.realpath(media.path))).hexdigest()}.json"
        store = blake3(media.read(TOML, TOML_LIMIT)).hexdigest()
        states = []
        for first in range(_SHARDS):
            state = media.shard_state(first)
            fresh = state is None or state.newest + _GRANULARITY_NS >= begun
            states.append("" if state is None or fresh else state.digest.hex())
        try:
            with open(path, "rb") as file:
                record = json.loads(file.read(_MOST_BYTES))
            if (record["version"], record["store"]) != (_VERSION, store):
                raise ValueError
            recorded = [str(state) for state in record["states"]]
            manifests = frozenset(ObjectId.parse(id_) for id_ in record["manifests"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError, FlightbagError):
            recorded, manifests = [], frozenset()
        pairs = zip(states, recorded, strict=False)
        trusted = frozenset(first for first, (now, then) in enumerate(pairs) if now and now == then)
        return Look(trusted, manifests, path, store, tuple(states))

    def keep(self, look: Look, manifests: Iterable[ObjectId], media: Media, disk: Disk) -> None:
        """Record that every object of these manifests was seen whole after `look` began. Do nothing where that cannot
        be kept."""
        known = frozenset(manifests)
        if known == look.manifests and len(look.trusted) == _SHARDS:
            return  # the record has it
        record = {
            "version": _VERSION,
            "store": look.store,
            "states": look.states,
            "manifests": sorted(map(str, known)),
        }
        data = json.dumps(record).encode()
        if len(data) > _MOST_BYTES or not disk.sync_file_system(media.path):
            return
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            import tempfile  # not above: a sync with nothing to do keeps what it knows

            with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
                try:
                    file.write(data)
                    file.close()
                    os.replace(file.name, look.path)
                except BaseException:
                    os.unlink(file.name)
                    raise
            for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[:-_MOST_RECORDS]:
                path.unlink(missing_ok=True)
