"""Removal of what operating systems drop in a store (FORMAT.md 2.9). Nothing that is of a store is touched."""

from __future__ import annotations

import os
from contextlib import suppress

from store.disk.droppings import is_dropping
from store.disk.durable import Disk
from store.disk.layout import BAGS, INDEX, LOCKS, QUARANTINE, SMALL_FILES, TMP, TRASH
from store.disk.media import OBJECTS, SHARD_LIMIT, Media
from store.disk.staging import remove_tree
from store.errors import Corrupt, NotFound, Unavailable
from store.ground import releases

_FOLDERS = (
    *("", *SMALL_FILES, releases.FOLDER, INDEX, LOCKS, TMP, TRASH, QUARANTINE, BAGS, OBJECTS),
    *(f"{OBJECTS}/{first:02x}" for first in range(256)),
)


def droppings(media: Media) -> list[str]:
    """Return the paths of what operating systems dropped in a store, ascending by folder.

    Raise Unavailable for a folder that cannot be listed.
    """
    found = []
    for folder in _FOLDERS:
        with suppress(NotFound, Corrupt):  # an audit reports what lies in the place of a folder
            names = sorted(name for name in media.first_names(folder, SHARD_LIMIT) if is_dropping(name))
            found += [os.path.join(folder, name) for name in names]
    return found


def clean(media: Media, disk: Disk) -> tuple[list[str], list[tuple[str, str]]]:
    """Remove what operating systems dropped in a store. Return the paths of what is gone, and (path, why) of what could
    not be removed."""
    removed, left = [], []
    for name in droppings(media):
        try:
            remove_tree(disk, media.absolute(name))
            removed.append(name)
        except Unavailable as error:
            left.append((name, error.message))
    return removed, left
