"""The layout of a store folder: names of files and folders, and the check that a folder is a store of this format."""

from __future__ import annotations

import os
import re
import tomllib

from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound

TMP = "tmp"
QUARANTINE = "quarantine"
TRASH = "trash"
PINS, DRAFTS = "pins", "drafts"
ROOT_FILE = re.compile(r"([1-9][0-9]{0,17})\.root\.cbor")
FORMAT = 1
TOML = "flightbag.toml"
_TOML_LIMIT = 4096
_TOML_REMEDY = "it has three lines, format, id and created: copy it from a copy of this store, or sync to a new one"
_STORE_ID = re.compile(r"[0-9a-f]{32}")


def check_free(path: str | os.PathLike[str]) -> None:
    """Raises Invalid unless a store can be made in this folder: it is empty, or an `init` was interrupted in it."""
    with Media(path) as media:
        there = set(media.names(""))
        if TOML in there:
            raise Invalid(f"{media.path} is a store already")
        made = there & {"missions", "objects", "trust"}
        if there - made - {TMP} or any(media.file_type(name) != "directory" or media.names(name) for name in made):
            raise Invalid(f"{media.path} is not empty", remedy="give a folder that does not exist yet")


def check_format(media: Media) -> None:
    """Raises NotFound unless `media` is a store, Invalid unless it is one of this format."""
    try:
        data = media.read(TOML, _TOML_LIMIT)
    except NotFound as error:
        if media.names_if_there("objects"):
            raise NotFound(
                f"{media.path} has objects but no {TOML}: half of a copy, or it was lost",
                remedy=f"copy the store again, or {TOML} alone from where it came from",
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
        raise Invalid(f"{media.path} is a store of format {format_}; this program knows format {FORMAT}")
    if type(format_) is not int or type(id_) is not str or not _STORE_ID.fullmatch(id_):
        path = media.absolute(TOML)
        raise Corrupt(f"{path} has no format and store id", remedy=_TOML_REMEDY, kind="bad-store", path=path)


def no_store(path: str | os.PathLike[str]) -> NotFound:
    return NotFound(
        f"{os.fspath(path)} is no store",
        remedy="give the folder of a store; `flightbag init` makes a new one",
        kind="no-store",
        path=str(path),
    )
