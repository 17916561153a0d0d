"""`quarantine/`: damaged or misplaced things go here before something right takes their place.

Nothing in quarantine is ever replaced, or deleted unless a person empties it (`gc --empty`), and nothing in it is used
unless its bytes hash to the id that is asked for. Names are those of FORMAT.md 2: `quarantine/<time>/<name>`.
"""

from __future__ import annotations

import os
import time

from store.disk.durable import Disk
from store.disk.layout import QUARANTINE
from store.disk.media import OBJECTS, Media
from store.errors import NotFound

# A file system allows names of 255 bytes; the rest is room for a number.
_NAME_BYTES = 200


def set_aside(media: Media, disk: Disk, name: str) -> str:
    """Move whatever lies under a name of the store to `quarantine/<time>/` and return its new name. Durable.

    The thing itself is not opened. Raises Corrupt for a link in the path to it, NotFound where nothing has the name.
    """
    folder = os.path.dirname(name)
    media.file_type(name)
    if name == QUARANTINE:
        # A crash right after this rename leaves a stray, which the next repair moves.
        name = f"{QUARANTINE}.{os.urandom(4).hex()}"
        disk.rename(media.absolute(QUARANTINE), media.absolute(name))
    target = _target(media, disk, name)
    disk.rename(media.absolute(name), media.absolute(target))
    for path in (os.path.dirname(target), QUARANTINE, "", folder):
        disk.sync_directory(media.absolute(path))
    return target


def copy_aside(media: Media, disk: Disk, name: str, limit: int) -> str:
    """Copy a file of at most `limit` bytes to quarantine and return the name of the copy. Durable.

    The file can then be replaced in one step. Raises Corrupt for a longer file, NotFound where there is none.
    """
    data = media.read(name, limit)
    target = _target(media, disk, name)
    path = media.absolute(target)
    fd = disk.create(path)
    try:
        disk.write(fd, data, path)
        disk.sync_file(fd, path)
    finally:
        os.close(fd)
    for folder in (os.path.dirname(target), QUARANTINE, ""):
        disk.sync_directory(media.absolute(folder))
    return target


def _target(media: Media, disk: Disk, name: str) -> str:
    """A free name in a folder of quarantine, which is made if it is missing."""
    folder = f"{QUARANTINE}/{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    disk.make_directory(media.absolute(QUARANTINE))
    disk.make_directory(media.absolute(folder))
    return f"{folder}/{_free_name(media.absolute(folder), _quarantine_name(name))}"


def present(media: Media, name: str) -> bool:
    """Whether anything at all lies under a name of the store."""
    try:
        media.file_type(name)
    except NotFound:
        return False
    return True


def _quarantine_name(name: str) -> str:
    """The object's id for `objects/ab/cdef…`, `ab` for `objects/ab`, `folder--name` for anything else (FORMAT.md 2)."""
    folder, _, rest = name.partition("/")
    text = rest.replace("/", "") if folder == OBJECTS and rest else name.replace("/", "--")
    return os.fsdecode(os.fsencode(text)[-_NAME_BYTES:])


def _free_name(folder: str, name: str) -> str:
    """The name, with a number added where it exists already: nothing in quarantine is replaced."""
    number, free = 0, name
    while os.path.lexists(os.path.join(folder, free)):
        number += 1
        free = f"{name}.{number}"
    return free
