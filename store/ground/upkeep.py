"""Upkeep of the index: the rows of the object files in the store, and the build keys of its published missions."""

from __future__ import annotations

import time
from functools import partial

from store.disk.index import Index, Record, Row, open_index
from store.disk.layout import RESULTS
from store.disk.media import FileStamp, Media
from store.errors import FlightbagError, Unavailable
from store.format.entries import EntryTable
from store.format.ids import BuildKey, ObjectId
from store.format.ref import ref_id
from store.ground.orders import accepted_result, keys_in
from store.ground.repository import Repository
from store.takeoff.mission import Opened


def rebuild(media: Media, index: Index) -> None:
    """Enter every object file, marked as never hashed. `absorb` enters the build keys."""
    for first in range(256):
        index.commit(objects=_files(media, first))


def _files(media: Media, first: int) -> dict[ObjectId, Row]:
    """Return rows for the object files of one folder, marked as never hashed."""
    now = int(time.time())
    files = media.objects(first)
    return {id_: Row.of(FileStamp.of(status), inserted=now, verified=0) for id_, status in files}


def mend_index(repository: Repository) -> tuple[int, int]:
    """Make the index list the object files in the store. Return the numbers of rows removed and added.

    The caller holds the store alone.
    """
    removed = added = 0
    with open_index(repository.media, repository.disk, partial(rebuild, repository.media)) as index:
        for first in range(256):
            rows, files = index.rows(first), _files(repository.media, first)
            gone = rows.keys() - files.keys()
            new = {id_: files[id_] for id_ in files.keys() - rows.keys()}
            if gone or new:
                index.commit(objects=new, gone=gone)
            removed, added = removed + len(gone), added + len(new)
    return removed, added


def absorb(repository: Repository, index: Index) -> None:
    """Enter the build keys of the published manifests and of the results that verify. An unsigned or planted one enters
    none."""
    for mission in repository.missions():
        try:
            id_ = ref_id(repository.evidence.ref(mission))
            if index.absorbed(id_):
                continue
            opened = repository.current(mission)
        except FlightbagError:
            continue  # the takeoff check and an audit report the damage; here its build keys must not be believed
        absorb_manifest(index, opened)
    for key in keys_in(repository.media, RESULTS):
        if index.record(key) is None and (record := result_record(repository, key)) is not None:
            index.commit(records={key: record})


def result_record(repository: Repository, key: BuildKey) -> Record | None:
    """Return the build record of a key that a device's result states, None where the store has no result that holds."""
    try:
        result = accepted_result(repository.evidence, key, repository.trust_root().root)
    except Unavailable:
        raise
    except FlightbagError:
        return None  # an audit reports the damage
    return Record(tuple(id_ for id_, _ in result.objects), {"from": "result", "at": result.issued_at})


def absorb_manifest(index: Index, opened: Opened) -> None:
    """Enter the build keys of one verified manifest."""
    provenance = {"from": "manifest", "manifest": str(opened.manifest_id), "at": opened.manifest.issue.issued_at}
    records = {key: Record(ids, provenance) for key, ids in records_of(opened.table).items()}
    index.commit(records=records, absorbed=[opened.manifest_id])


def records_of(table: EntryTable) -> dict[BuildKey, tuple[ObjectId, ...]]:
    """Return the build keys of a table's entries, each with the objects that were built for it."""
    records: dict[BuildKey, tuple[ObjectId, ...]] = {}
    for entry in table.entries:
        if entry.key is not None and entry.id not in records.get(entry.key, ()):
            records[entry.key] = (*records.get(entry.key, ()), entry.id)
    return records
