"""The layout of a store folder (FORMAT.md 2): names of files and folders, and the check that a folder is a store.

Each name is defined once: here, except for `objects/` and the path of an object (`media`) and the log (`log`). This
module writes nothing; `ground.repository` makes a store.
"""

from __future__ import annotations

import os
import re
from itertools import islice

from store.disk.media import OBJECTS, Media
from store.disk.opening import nearest as similar
from store.errors import Corrupt, Invalid, NoStore, NotFound, Unavailable, either
from store.format.toml import parse_toml

MISSIONS, TRUST = "missions", "trust"
PINS, DRAFTS = "pins", "drafts"
ORDERS, RESULTS = "orders", "results"
WITHDRAWN = "withdrawn"
RECEIPTS = "receipts"
# Folders of small files, which are replaced by name.
SMALL_FILES = (DRAFTS, MISSIONS, ORDERS, PINS, RECEIPTS, RESULTS, TRUST, WITHDRAWN)
INDEX, LOCKS = "index", "lock"
TMP = "tmp"
QUARANTINE = "quarantine"
TRASH = "trash"
BAGS = "bags"
# The folder of a checkout that is laid out as a store (FORMAT.md 2.8).
RECORD = ".flightbag"
# The slots of an aircraft's state (FORMAT.md 10.1), its key, and all that lies in its folder.
SLOTS = ("a", "b")
KEY = "key"
OF_STATE = frozenset({*SLOTS, KEY, RECEIPTS, TMP, LOCKS})
# `trust/<version>.root.cbor`; the version has no leading zero and fits 64 bits with a sign.
ROOT_FILE = re.compile(r"([1-9][0-9]{0,17})\.root\.cbor")
FORMAT = 1
TOML = "flightbag.toml"
TOML_LIMIT = 4096
_TOML_REMEDY = "the file holds format, id and created: copy it from a copy of this store, or sync to a new store"
_MOUNT = "if it lies on a medium, mount it, and run this again"
# The most names that a look for stores below a folder takes in, and the most stores that a message names.
_LOOKED_AT, _NAMED = 1000, 3
_STORE_ID = re.compile(r"[0-9a-f]{32}")


def open_store(path: str | os.PathLike[str], *, drop_cache: bool | None = False) -> Media:
    """Open the folder of a store of this format; `drop_cache` as for `Media`.

    Raise NoStore if there is none at `path`, and Unavailable if the folder cannot be read.
    """
    try:
        media = Media(path, drop_cache=drop_cache)
    except (NotFound, Corrupt) as error:
        raise no_store(path) from error
    try:
        check_format(media)
    except BaseException:
        media.close()
        raise
    return media


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise Invalid unless a store can be made in this folder: it is empty but for what operating systems drop there,
    or an interrupted `init` left it."""
    try:
        media = Media(path)
    except Corrupt as error:
        text = f"{os.fspath(path)} is not a folder, so no store can be made there"
        raise Invalid(text, remedy="give a folder that does not exist yet") from error
    with media:
        names = set(media.names_if_there(""))
        if TOML in names:
            raise Invalid(f"{media.path} is a store already", remedy="use it, or give another folder")
        folders = names & {MISSIONS, OBJECTS, TRUST}
        if names - folders - {TMP} or any(
            media.file_type(name) != "directory" or media.names_if_there(name) for name in folders
        ):
            below = _listed(_stores_below(media.path))
            remedy = f"give {below}" if below else "give a folder that does not exist yet"
            raise Invalid(f"{media.path} is neither a store nor empty", remedy=remedy)


def check_format(media: Media) -> None:
    """Raise NoStore unless `media` is a store of this format, and Unavailable if that cannot be read.

    Kinds: `no-store` for a folder without `flightbag.toml`, `in-store` if it lies in a store, `bad-store` for a file
    that is malformed, `other-format`.
    """
    path = media.absolute(TOML)
    try:
        data = media.read(TOML, TOML_LIMIT)
    except NotFound as error:
        raise no_store(media.path) from error
    except Corrupt as error:
        raise NoStore(error.message, remedy=_TOML_REMEDY, kind="bad-store", path=path) from error
    try:
        value = parse_toml(data)
        format_, id_ = value["format"], value["id"]
    except (ValueError, KeyError) as error:
        raise NoStore(f"{path} is malformed", remedy=_TOML_REMEDY, kind="bad-store", path=path) from error
    if type(format_) is int and format_ != FORMAT:
        older = format_ < FORMAT
        raise NoStore(
            f"{media.path} is a store of format {format_}; this program reads format {FORMAT}",
            remedy="build and sync its missions to a new store with this program"
            if older
            else "use the version of flightbag that wrote it, or a newer one",
            kind="other-format",
            path=media.path,
        )
    if type(format_) is not int or type(id_) is not str or not _STORE_ID.fullmatch(id_):
        raise NoStore(f"{path} lacks the format or the store id", remedy=_TOML_REMEDY, kind="bad-store", path=path)


def no_store(path: str | os.PathLike[str]) -> NoStore:
    """Return the error for a path that is not a store: what lies there, and where a store lies instead.

    The look is bounded: the folders above the path, and a thousand names up to two levels below it.
    """
    top = os.fspath(path)
    if (above := store_above(top)) is not None:
        text = f"{top} is not a store: it lies in the store {above}"
        return NoStore(text, remedy=f"give {above}", kind="in-store", path=os.path.abspath(top))
    message, remedy = _diagnosis(top)
    return NoStore(f"{top} {message}", remedy=remedy, kind="no-store", path=os.path.abspath(top))


def _diagnosis(path: str) -> tuple[str, str]:
    """Return the predicate of a message about a path that is not a store, and the remedy."""
    if not os.path.exists(path):
        return _diagnosis_of_nothing(path)
    if not os.path.isdir(path):
        return "is a file, and a store is a folder", "give the folder of a store"
    names = _names(path)
    folder = os.path.basename(os.path.abspath(path))
    if RECORD in names or folder == RECORD:
        checkout = path if RECORD in names else os.path.dirname(os.path.abspath(path))
        text = "is a checkout, the plain files of one mission, and not a store"
        return text, f"run `flightbag checkout --check {checkout} --trust ROOT`, or give the folder of a store"
    if any(os.path.isfile(os.path.join(path, slot)) for slot in SLOTS) and {*names} <= OF_STATE:
        return "is the state of an aircraft, and not a store", "give it as --state, and the folder of a store as STORE"
    if OBJECTS in names and _names(os.path.join(path, OBJECTS)):
        return (
            f"has objects but no {TOML}: the copy is incomplete, or the file was lost",
            f"copy the store again, or copy {TOML} from the store that this one is a copy of",
        )
    if below := _stores_below(path):
        return "is not a store, and one lies below it" if len(below) == 1 else (
            "is not a store, and several lie below it"
        ), f"give {_listed(below)}"
    if not names:
        return "is an empty folder", f"{_MOUNT}; `flightbag init` makes a new store"
    return f"is not a store: it has no {TOML}", "give the folder of a store; `flightbag init` makes one in a new folder"


def _diagnosis_of_nothing(path: str) -> tuple[str, str]:
    """Return what `_diagnosis` does, for a path at which nothing lies."""
    if os.path.islink(path):
        return f"is a link to {os.readlink(path)}, which does not exist", _MOUNT
    nearest = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(nearest):
        nearest = os.path.dirname(nearest)
    if nearest == os.sep:
        return "does not exist", "check the path"
    if not _names(nearest):
        return f"does not exist, and {nearest} is empty", _MOUNT
    if (meant := similar(path)) and os.path.lexists(os.path.join(meant, TOML)):
        return "does not exist", f"give {meant}"
    if below := _stores_below(nearest):
        return "does not exist", f"check the path; the nearest stores: {_listed(below)}"
    return "does not exist", f"check the path; {_MOUNT}"


def store_above(path: str | os.PathLike[str]) -> str | None:
    """Return the folder of the store that a path lies in, below its top; None if it lies in no store."""
    above, before = os.path.dirname(os.path.realpath(path)), ""
    while above != before:
        if os.path.lexists(os.path.join(above, TOML)):
            return above
        above, before = os.path.dirname(above), above
    return None


def store_around(folder: str | os.PathLike[str]) -> str | None:
    """Return the store that a folder is or lies in: from this folder upwards, as far as its file system goes, the first
    with a `flightbag.toml`. None if there is none.

    A folder that lacks this file and yet looks like a store hides the ones above it. Raise NoStore for such a folder,
    and Unavailable for one that cannot be looked at.
    """
    place, device = os.path.realpath(folder), None
    while True:
        try:
            status = os.stat(place)
            if device is not None and status.st_dev != device:
                return None  # a medium that lacks its store must not be taken for the disk that it is mounted on
            device = status.st_dev
            if _is_there(os.path.join(place, TOML)):
                return place
            names = {name for name in (MISSIONS, OBJECTS, TRUST) if _is_there(os.path.join(place, name))}
        except OSError as error:
            text = f"{place} cannot be looked at: {error.strerror}"
            raise Unavailable(text, remedy="give the folder of the store", kind="unreadable", path=place) from error
        if len(names) > 1 or (names == {OBJECTS} and _names(os.path.join(place, OBJECTS), 1)):
            raise no_store(place)
        above = os.path.dirname(place)
        if above == place:
            return None
        place = above


def _is_there(path: str) -> bool:
    """Return whether anything has this path. Raise OSError where that cannot be seen."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _stores_below(top: str) -> list[str]:
    """Return the stores up to two levels below a folder, as far as `_LOOKED_AT` names show them. Follow no link."""
    stores: list[str] = []
    folders, left = [top], _LOOKED_AT
    for _ in range(2):
        deeper = []
        for folder in folders:
            names = _names(folder, left)
            left -= len(names)
            for inner in (os.path.join(folder, name) for name in names):
                if os.path.islink(inner) or not os.path.isdir(inner):
                    continue
                if os.path.lexists(os.path.join(inner, TOML)):
                    stores.append(inner)
                else:
                    deeper.append(inner)
        folders = deeper
    return stores


def _names(folder: str, most: int = 1000) -> list[str]:
    """Return the first names in a folder, ascending; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, most))
    except OSError:
        return []


def _listed(stores: list[str]) -> str:
    """Return the first few stores as a choice; "" for none."""
    more = [f"one of {len(stores) - _NAMED} more"] if len(stores) > _NAMED else []
    return either([*stores[:_NAMED], *more])
