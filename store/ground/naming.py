"""Short ids: the object or the manifest of a store that the first digits of an id name.

What a person confirms with a code or a whole id is never looked up here: somebody could make a thing that begins alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from store.disk import log
from store.errors import NotFound
from store.format.ids import ObjectId, begun_by, is_hex, may_begin
from store.ground.log_history import LogHistory
from store.ground.repository import Repository


def object_named(repository: Repository, text: str) -> ObjectId:
    """Return the id of the object whose id is or begins with `text`. A whole id is not looked for.

    Raise as `begun_by`, and Unavailable where the folder of such objects cannot be listed.
    """
    if is_hex(text):
        return ObjectId.parse(text)

    folders = [int(text[:2], 16)] if may_begin(text) else []
    try:
        return begun_by(text, _objects(repository, folders), "object")
    except NotFound:  # the nearest one may lie in another folder
        return begun_by(text, _objects(repository, range(256)), "object")


def _objects(repository: Repository, folders: Iterable[int]) -> list[ObjectId]:
    return [id_ for first in folders for id_, _ in repository.media.objects(first)]


def manifest_named(repository: Repository, mission: str, text: str) -> ObjectId:
    """Return the id of the manifest of a mission whose id is or begins with `text`, by the log of the store. A whole id
    is not looked for. Raise as `begun_by`, and as `log.events`."""
    if is_hex(text):
        return ObjectId.parse(text)
    moves = LogHistory.of(log.events(repository.media)).published(mission)
    return begun_by(text, {move.manifest for move in moves}, f"manifest of {mission}")
