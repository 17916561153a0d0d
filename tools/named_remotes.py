"""Named remotes: short names for places that missions are carried to and from, and the commands `remote`.

They lie in the configuration of the user, never in a store: a plain copy of a store is a store, and carries no hosts
and buckets of its planner. A name stands for its place wherever a command takes a place. A folder or file of that name
in the current folder is refused and not guessed: `./NAME` is the folder. Credentials are never stored.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

from store.disk.durable import Disk, replace_file
from store.disk.opening import OtherType, open_file
from store.errors import Conflict, FlightbagError, Invalid, NotFound, Unavailable, instead_of
from store.format.toml import TomlError, parse_toml
from store.remotes.place import Bucket, Folder, Host, place_of
from tools import lines
from tools.arguments import Json, config_folder, print_lines
from tools.parameters import Argument
from tools.status import OK, action, command, notice, print_json, say, warn

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_FILE, _LIMIT = "remotes.toml", 64 * 2**10
_HEAD = "# Named places of Flightbag: `flightbag remote add NAME PLACE`. No credentials belong here.\n[remotes]\n"
# A user with a password before the host, or anything but a bucket's name before it.
_SECRET = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*@|[^/@]*:[^/@]*@")
_NO_SECRETS = (
    "leave it out: ssh takes keys from its agent and its configuration, a bucket takes credentials from the environment"
)


def place_named(text: str) -> str:
    """Return the place of a remote of this name, and tell that on standard error; any other text as it is.

    Raise Invalid where both a remote and something in the current folder have the name.
    """
    if not NAME.fullmatch(text):
        return text
    places = _read()
    place = places.get(text)
    if place is None:
        if not os.path.lexists(text) and places and (near := _near(text, places)):
            warn(f"note: no remote is called {text}, so it is a folder here; a remote is called {near}")
        return text
    if os.path.lexists(text):
        raise Invalid(
            f"{text} is a remote ({place}), and also lies in the current folder",
            remedy=f"give ./{text} for the one here, or {place} for the remote",
        )
    notice(f"{text} is the remote {place}")
    return place


def remote_names(_first: str | None) -> list[str]:
    """Return the names of remotes, for a shell to offer; none, without a message, where they cannot be read."""
    with suppress(FlightbagError):
        return sorted(_read())
    return []


def folder_named(text: str, option: str) -> str:
    """As `place_named`, for an argument that takes a folder of this machine. Raise Invalid for another place."""
    place = place_of(path := place_named(text))
    if isinstance(place, Folder):
        return path
    remedy = f"run `flightbag sync {text} FOLDER` first, and give that folder"
    raise Invalid(f"{option} takes a store in a folder, and {text} is a {_kind(place)}", remedy=remedy)


def store_named(text: str) -> str:
    """As `place_named`, for a store that is read in a folder or a bucket. Raise Invalid for a host."""
    path = place_named(text)
    if path != text and isinstance(place := place_of(path), Host):
        remedy = f"run it there: ssh {place.login} flightbag fsck {place.path}"
        raise Invalid(f"an audit reads a folder or a bucket, and {text} is a host", remedy=remedy)
    return path


@action
def add(
    name: Annotated[str, Argument(metavar="NAME", help="Letters, digits, _ and -, for example hangar.")],
    place: Annotated[str, Argument(metavar="PLACE", help="A folder, user@host:PATH by ssh, or s3://BUCKET/PREFIX.")],
    as_json: Json = False,
) -> int:
    """Name a place, to give it to `sync`, `fsck`, `pack --against`, `unpack`, `engines accept` and --shared-cache.

    The name is kept for this user, in remotes.toml in the folder flightbag of XDG_CONFIG_HOME (~/.config).
    A folder becomes its absolute path. No credentials are kept: a place with a password in it is refused.

    Example: flightbag remote add hangar crew@hangar:flightbag/store
    """
    if not NAME.fullmatch(name):
        raise Invalid(
            f"{name[:80]!r} is not a name for a remote",
            remedy="give at most 64 letters, digits, _ and -, the first one a letter or a digit",
        )
    whole = checked_place(place)

    def put(places: dict[str, str]) -> None:
        if name in places:
            remedy = f"run `flightbag remote remove {name}` first, or give another name"
            raise Conflict(f"a remote {name} exists: {places[name]}", remedy=remedy)
        places[name] = whole

    _change(put)
    if as_json:
        print_json({"name": name, "place": whole, "kind": _kind(place_of(whole))})
    else:
        say(f"{name} is {whole}")
        if os.path.lexists(name):
            say(f"note: {name} also lies in the current folder; from here, give ./{name} for it")
    return OK


@command
def ls(as_json: Json = False) -> int:
    """List the named remotes of this user.

    Example: flightbag remote ls
    """
    rows = [(name, place, _kind(place_of(place))) for name, place in sorted(_read().items())]
    if as_json:
        print_json({"remotes": [{"name": name, "place": place, "kind": kind} for name, place, kind in rows]})
    else:
        print_lines(lines.table([(name, place) for name, place, _ in rows]) if rows else ["no remotes"])
    return OK


@action
def remove(
    name: Annotated[str, Argument(metavar="NAME", help="The name of a remote.", offers=remote_names)],
    as_json: Json = False,
) -> int:
    """Forget a named remote. What lies at its place stays.

    Example: flightbag remote remove hangar
    """

    def take(places: dict[str, str]) -> None:
        if name not in places:
            remedy = instead_of(name, sorted(places)) or "there is none: `flightbag remote add` makes one"
            raise NotFound(f"the remote {name[:80]} does not exist", remedy=remedy, kind="missing")
        del places[name]

    _change(take)
    if as_json:
        print_json({"removed": name})
    else:
        say(f"forgot the remote {name}")
    return OK


def checked_place(text: str) -> str:
    """Return a place as it is kept: a folder with its absolute path. Raise Invalid for what is none, and for one with
    credentials; no message repeats those."""
    if not text.isprintable() or not text:
        raise Invalid("a place has only printable characters", remedy="give a folder, user@host:PATH or s3://BUCKET")
    if not os.path.lexists(text) and _SECRET.match(text):
        raise Invalid("the place has a password or a user of a storage in it, and is not kept", remedy=_NO_SECRETS)
    place = place_of(text)
    if isinstance(place, Bucket):
        from store.remotes.bucket import parsed  # not above: a sync between folders waits for none of it

        parsed(text)
    return os.path.abspath(text) if isinstance(place, Folder) else text


def _kind(place: Folder | Host | Bucket) -> str:
    return "folder" if isinstance(place, Folder) else "host" if isinstance(place, Host) else "bucket"


def _near(text: str, places: dict[str, str]) -> str:
    from difflib import get_close_matches

    return next(iter(get_close_matches(text, places, n=1, cutoff=0.75)), "")


def _path() -> str:
    return os.path.join(config_folder(), _FILE)


def _read() -> dict[str, str]:
    """Return the places by name, none without a file. Raise Invalid for a file that `add` does not write, Unavailable
    for one that cannot be read."""
    path = _path()
    try:
        fd, _ = open_file(path, follow=True)
        with open(fd, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except (OSError, OtherType) as error:
        why = getattr(error, "strerror", None) or "it is not a regular file"
        raise Unavailable(f"{path} cannot be read: {why}", kind="unreadable", path=path) from error
    remedy = "correct the file, or remove it and add the remotes again"
    if len(data) > _LIMIT:
        raise Invalid(f"{path} has more than {_LIMIT} bytes", remedy=remedy, path=path)
    try:
        value = parse_toml(data)
    except TomlError as error:
        raise Invalid(f"{path}: {error}", remedy=remedy, path=path) from None
    places = value.pop("remotes", {})
    if value or not isinstance(places, dict) or not all(_is_remote(*item) for item in places.items()):
        raise Invalid(f'{path}: expected the table [remotes] with lines NAME = "PLACE"', remedy=remedy, path=path)
    return places


def _is_remote(name: str, place: object) -> bool:
    if not NAME.fullmatch(name) or not isinstance(place, str):
        return False
    try:
        checked_place(place)
    except Invalid:
        return False
    return True


def _change(change: Callable[[dict[str, str]], None]) -> None:
    """Change the remotes, one process at a time. After a crash the file has the old ones or the new ones."""
    folder = config_folder()
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        text = f"{folder} cannot be made: {error.strerror}"
        raise Unavailable(text, path=str(folder), errno=error.errno) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        places = _read()
        change(places)
        lines = "".join(f"{name} = {json.dumps(place)}\n" for name, place in sorted(places.items()))
        target = os.path.realpath(_path())
        replace_file(Disk(), target, (_HEAD + lines).encode(), os.path.dirname(target), 0o600)
    finally:
        os.close(fd)
