"""`quarantine/`: where what is wrong goes when something right takes its place. Nothing in it is ever deleted or used
unless its bytes hash to what is asked for.
"""

from __future__ import annotations

import os
import secrets
import time

from store.disk.durable import Disk
from store.disk.layout import QUARANTINE
from store.disk.media import Media
from store.errors import NotFound

# What a file system takes as a name is 255 bytes; a number may be added.
_NAME_BYTES = 200


def set_aside(media: Media, disk: Disk, name: str) -> str:
    """Moves what lies under a name of the store to `quarantine/<time>/`, whatever it is, and gives its new name.

    The thing itself is not opened. Raises Corrupt for a link on the way to it, NotFound where there is nothing.
    """
    folder = os.path.dirname(name)
    media.directory(folder)
    if name == QUARANTINE:
        # A crash right after this leaves a stray, which the next repair moves on.
        name = f"{QUARANTINE}.{secrets.token_hex(4)}"
        disk.rename(media.absolute(QUARANTINE), media.absolute(name))
    kept = _place(media, disk, name)
    disk.rename(media.absolute(name), media.absolute(kept))
    for path in (os.path.dirname(kept), QUARANTINE, "", folder):
        disk.sync_directory(media.absolute(path))
    return kept


def copy_aside(media: Media, disk: Disk, name: str, limit: int) -> str:
    """Copies a file of at most `limit` bytes to quarantine, so that it can be replaced in one step. Durable."""
    data = media.read(name, limit)
    kept = _place(media, disk, name)
    path = media.absolute(kept)
    fd = disk.create(path)
    try:
        disk.write(fd, data, path)
        disk.sync_file(fd, path)
    finally:
        os.close(fd)
    for folder in (os.path.dirname(kept), QUARANTINE, ""):
        disk.sync_directory(media.absolute(folder))
    return kept


def _place(media: Media, disk: Disk, name: str) -> str:
    """A free name in a folder of quarantine, which is made."""
    day = f"{QUARANTINE}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    disk.make_directory(media.absolute(QUARANTINE))
    disk.make_directory(media.absolute(day))
    return f"{day}/{_free(media.absolute(day), _kept_as(name))}"


def present(media: Media, name: str) -> bool:
    """Whether anything at all lies under a name of the store."""
    try:
        media.file_type(name)
    except NotFound:
        return False
    return True


def _kept_as(name: str) -> str:
    """`objects/ab/cdef…` is kept under the object's id, `objects/ab` as `ab`, anything else as `folder--name`."""
    folder, _, rest = name.partition("/")
    text = rest.replace("/", "") if folder == "objects" and rest else name.replace("/", "--")
    return os.fsdecode(os.fsencode(text)[-_NAME_BYTES:])


def _free(folder: str, name: str) -> str:
    """The name, with a number where it is taken: nothing in quarantine is replaced."""
    number, free = 0, name
    while os.path.lexists(os.path.join(folder, free)):
        number += 1
        free = f"{name}.{number}"
    return free
