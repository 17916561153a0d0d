"""The layout of a store folder (FORMAT.md 2): names of files and folders, and the check that a folder is a store.

Each name is defined once: here, except for `objects/` and the path of an object (`media`) and the log (`log`). This
module writes nothing; `ground.repository` makes a store.
"""

from __future__ import annotations

import os
import re
import tomllib

from store.disk.media import OBJECTS, Media
from store.errors import Corrupt, Invalid, NotFound

MISSIONS, TRUST = "missions", "trust"
PINS, DRAFTS = "pins", "drafts"
INDEX, LOCKS = "index", "lock"
TMP = "tmp"
QUARANTINE = "quarantine"
TRASH = "trash"
# `trust/<version>.root.cbor`; the version has no leading zero and fits 64 bits with a sign.
ROOT_FILE = re.compile(r"([1-9][0-9]{0,17})\.root\.cbor")
FORMAT = 1
TOML = "flightbag.toml"
_TOML_LIMIT = 4096
_TOML_REMEDY = "the file holds format, id and created: copy it from a copy of this store, or sync to a new store"
_STORE_ID = re.compile(r"[0-9a-f]{32}")


def check_free(path: str | os.PathLike[str]) -> None:
    """Raise Invalid unless a store can be made in this folder: it is empty, or an interrupted `init` left it."""
    with Media(path) as media:
        names = set(media.names(""))
        if TOML in names:
            raise Invalid(f"{media.path} is a store already")
        folders = names & {MISSIONS, OBJECTS, TRUST}
        if names - folders - {TMP} or any(
            media.file_type(name) != "directory" or media.names(name) for name in folders
        ):
            raise Invalid(f"{media.path} is not empty", remedy="give a folder that does not exist yet")


def check_format(media: Media) -> None:
    """Raise an error unless `media` is a store of this format.

    NotFound: the folder has no `flightbag.toml`. Corrupt: the file is malformed. Invalid: it names another format.
    """
    try:
        data = media.read(TOML, _TOML_LIMIT)
    except NotFound as error:
        if media.names_if_there(OBJECTS):
            raise NotFound(
                f"{media.path} has objects but no {TOML}: the copy is incomplete, or the file was lost",
                remedy=f"copy the store again, or copy {TOML} from the store that this one is a copy of",
                kind="no-store",
                path=media.path,
            ) from error
        raise no_store(media.path) from error
    try:
        value = tomllib.loads(data.decode())
        format_, id_ = value["format"], value["id"]
    except (ValueError, KeyError, RecursionError) as error:
        path = media.absolute(TOML)
        raise Corrupt(f"{path} is malformed", remedy=_TOML_REMEDY, kind="bad-store", path=path) from error
    if type(format_) is int and format_ != FORMAT:
        raise Invalid(f"{media.path} is a store of format {format_}; this program reads format {FORMAT}")
    if type(format_) is not int or type(id_) is not str or not _STORE_ID.fullmatch(id_):
        path = media.absolute(TOML)
        raise Corrupt(f"{path} lacks the format or the store id", remedy=_TOML_REMEDY, kind="bad-store", path=path)


def no_store(path: str | os.PathLike[str]) -> NotFound:
    """Return the error for a folder that is not a store."""
    return NotFound(
        f"{os.fspath(path)} is not a store",
        remedy="give the folder of a store; `flightbag init` makes a new one",
        kind="no-store",
        path=str(path),
    )
