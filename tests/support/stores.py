"""Small stores on disk: NORTH and SOUTH of `tests.support.missions`, published through the real `Repository`; helpers
that check, damage, copy and compare a store."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from store.audit.fsck import Audit, fsck
from store.audit.scope import FULL, QUICK
from store.disk.durable import Disk
from store.disk.index import Index
from store.disk.media import Media, object_path
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from store.takeoff.check import takeoff_check
from store.takeoff.mission import Verdict
from tests.support.missions import CONTENTS, FACTS, NOW, ROOT, Flight, flight, root_draft, sign_root

REPOSITORY_ROOT = Path(__file__).parents[2]
ROOT_FILE = sign_root(ROOT, "root-a")
ENGINE = "engines/net/net.onnx"
SHARD = "descriptors/net/16/12-1150-1410.safetensors"
CAMERA = "files/calibration/camera.yaml"

NORTH = flight()
# Shares engine and shard with NORTH; its camera file and one more shard are its own.
SOUTH = flight(
    {
        **{name: data for name, data in CONTENTS.items() if name != CAMERA},
        "descriptors/net/16/13-1150-1411.safetensors": b"\x20\x21" * 60,
        "files/calibration/other.yaml": b"fx: 2.0\n",
    },
    mission=replace(FACTS, id="south-ridge", flight="2026-11-23-02"),
)


def later(one: Flight, by: int = 1, **contents: bytes) -> Flight:
    """The mission of the next issue: its sequence is higher by `by`, and `contents` replace files/<name>."""
    files = {f"files/{name}": data for name, data in contents.items()}
    facts, issue = one.manifest.mission, one.manifest.issue
    return flight({**one.contents, **files}, mission=facts, issue=replace(issue, sequence=issue.sequence + by))


def publish(store: Path, *flights: Flight, disk: Disk | None = None) -> None:
    """Inserts the objects of each mission and publishes it, the way a build does."""
    with Repository.open(store, disk) as repository, writing(repository) as writer:
        for one in flights:
            with writer.inserting() as batch:
                for data in one.contents.values():
                    batch.add_bytes(data)
                batch.commit()
            writer.publish(one.id, one.signed, one.table.render())


def make_store(store: Path, *flights: Flight, root: bytes = ROOT_FILE) -> Path:
    """A store at `store` with a trust root and these missions; none given, NORTH and SOUTH."""
    with Repository.init(store) as repository:
        rotate(repository, root_draft(root), now=NOW)
    publish(store, *(flights or (NORTH, SOUTH)))
    return store


def copy_of(store: Path, target: Path) -> Path:
    """A plain copy, as `cp -r` makes it."""
    shutil.copytree(store, target, symlinks=True, copy_function=shutil.copyfile)
    return target


def check(store: Path, mission: str) -> Verdict:
    """The takeoff check under the pinned root that the stores of this module are made with."""
    return takeoff_check(store, mission, trust=ROOT_FILE, now=NOW)


def audit(store: Path, *, full: bool = True) -> Audit:
    with Media(store) as media:
        return fsck(media, FULL if full else QUICK)


def known_ids(index: Index) -> set[ObjectId]:
    """The ids of all objects that an index knows."""
    return {id_ for first in range(256) for id_ in index.rows(first)}


def file_of(store: Path, id_: ObjectId) -> Path:
    return store / object_path(id_)


def overwrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file's bytes in place, also those of a read-only object."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(change(path.read_bytes()))
    path.chmod(stat.S_IMODE(mode))


def flip(path: Path, at: int = 0) -> None:
    """Flips one bit of a file."""
    overwrite(path, lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])


def listing(folder: Path, *, but: tuple[str, ...] = ()) -> Mapping[str, tuple[object, ...]]:
    """Everything under a folder that a write would change: type, mode, size, mtime, ctime, link or hash.

    Names at the top level that are in `but` are left out.
    """
    seen: dict[str, tuple[object, ...]] = {}
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(top, name)
            where = str(path.relative_to(folder))
            if where.split("/")[0] in but:
                continue
            status = path.lstat()
            content: object = ""
            if path.is_symlink():
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            seen[where] = (status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content)
    return seen
