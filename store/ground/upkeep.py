"""Upkeep of the index: it lists the object files that the store has, and the build keys of its published missions."""

from __future__ import annotations

import time
from functools import partial

from store.disk.index import Index, Record, Row, open_index
from store.disk.media import FileStamp, Media
from store.errors import FlightbagError
from store.format.entries import EntryTable
from store.format.ids import BuildKey, ObjectId
from store.format.ref import ref_id
from store.ground.repository import Repository
from store.takeoff.mission import Opened


def rebuild(media: Media, index: Index) -> None:
    """Enters every object file, as never hashed; build keys come by `absorb`."""
    for first in range(256):
        index.commit(objects=_files(media, first))


def _files(media: Media, first: int) -> dict[ObjectId, Row]:
    """Rows for the object files of one folder, as never hashed."""
    now = int(time.time())
    files = media.objects(first)
    return {id_: Row.of(FileStamp.of(status), inserted=now, verified=0) for id_, status in files}


def mend_index(repository: Repository) -> tuple[int, int]:
    """Makes the index say which object files there are; the numbers of rows that went and came.

    The caller holds the store alone.
    """
    went = came = 0
    with open_index(repository.media, repository.disk, partial(rebuild, repository.media)) as index:
        for first in range(256):
            rows, files = index.rows(first), _files(repository.media, first)
            gone = rows.keys() - files.keys()
            new = {id_: files[id_] for id_ in files.keys() - rows.keys()}
            if gone or new:
                index.commit(objects=new, gone=gone)
            went, came = went + len(gone), came + len(new)
    return went, came


def absorb(repository: Repository, index: Index) -> None:
    """Learns the build keys of published manifests that verify. An unsigned or planted one teaches nothing."""
    for mission in repository.missions():
        try:
            id_ = ref_id(repository.evidence.ref(mission))
            if index.absorbed(id_):
                continue
            opened = repository.current(mission)
        except FlightbagError:
            continue  # verify and fsck say what is wrong with it; here it only must not be believed
        absorb_manifest(index, opened)


def absorb_manifest(index: Index, opened: Opened) -> None:
    provenance = {"from": "manifest", "manifest": str(opened.manifest_id), "at": opened.manifest.issue.issued_at}
    records = {key: Record(ids, provenance) for key, ids in records_of(opened.table).items()}
    index.commit(records=records, absorbed=[opened.manifest_id])


def records_of(table: EntryTable) -> dict[BuildKey, tuple[ObjectId, ...]]:
    """The build keys that a table's entries carry, and the objects that they were built to."""
    records: dict[BuildKey, tuple[ObjectId, ...]] = {}
    for entry in table.entries:
        if entry.key is not None and entry.id not in records.get(entry.key, ()):
            records[entry.key] = (*records.get(entry.key, ()), entry.id)
    return records
