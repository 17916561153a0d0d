"""What an argument of `sync` names: a folder, a folder of another machine, or a bucket. Looks at no other machine."""

from __future__ import annotations

import os
import re

from store.errors import Invalid
from store.values import dataclass

# The schemes of object stores; what follows is the bucket and a prefix.
SCHEMES = ("s3", "gs", "az")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# host:path as scp has it: a colon before any slash. An IPv6 address stands in brackets.
_REMOTE = re.compile(r"(?:([^@:/]*)@)?(\[[^\]/]*\]|[^:/]*):(.*)", re.DOTALL)
_USER, _HOST = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._$-]*"), re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]")
# rsync matches patterns at the far side, and a control character in a name is never meant.
_NOT_IN_PATHS = re.compile(r"[*?\[\\\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Folder:
    """A store in a folder of this machine."""

    path: str


@dataclass(frozen=True, slots=True)
class Host:
    """A store in a folder of another machine. `user` is "" where ssh decides; a relative path is below the home folder
    of the user there."""

    user: str
    host: str
    path: str

    @property
    def login(self) -> str:
        """The host with its user, as ssh takes it."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.user + '@' if self.user else ''}{host}:{self.path}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A store in an object storage: `s3://bucket/prefix`. The address may be none: then the client refuses it."""

    url: str

    def __str__(self) -> str:
        return f"{self.url.partition('://')[0]}://…"  # it may have a secret in it


def place_of(text: str) -> Folder | Host | Bucket:
    """Return what an argument of `sync` names. Raise Invalid for what is none of the three.

    >>> place_of("/media/stick/store")
    Folder(path='/media/stick/store')
    >>> place_of("crew@hangar:store")
    Host(user='crew', host='hangar', path='store')
    >>> place_of("s3://fleet/north")
    Bucket(url='s3://fleet/north')
    """
    if not (_URL.match(text) or _REMOTE.fullmatch(text)) or os.path.lexists(text):
        return Folder(text)  # most are one without a look at their medium, which may not answer
    if scheme := _URL.match(text):
        if bucket := bucket_of(text):
            return bucket
        known = ", ".join(f"{one}://" for one in SCHEMES)
        remedy = f"give a folder, user@host:PATH, or a bucket by {known}"
        raise Invalid(f"{text[:80]!r}: {scheme[1]}:// is not known", remedy=remedy)
    remote = _REMOTE.fullmatch(text)
    assert remote is not None
    user, host, path = remote[1] or "", remote[2], remote[3]
    address = _IPV6.fullmatch(host)
    if not (address or _HOST.fullmatch(host)):
        raise _bad(text, f"{host[:80]!r} is no name of a host", "give user@host:PATH; ./ before the name of a folder")
    if remote[1] is not None and not _USER.fullmatch(user):
        raise _bad(text, f"{user[:80]!r} is no name of a user", "give user@host:PATH")
    if path.startswith(":"):
        raise _bad(text, "two colons name a server of rsync, which has no ssh", "give user@host:PATH, with one colon")
    if host in SCHEMES and path.startswith("/") and remote[1] is None:
        remedy = f"give {host}://BUCKET/PREFIX, or user@{host}:PATH for a host of that name"
        raise _bad(text, "an address of a bucket has two slashes", remedy)
    path = path.removeprefix("~/")
    if not path.strip("/") or path == "~":
        raise _bad(text, "it names no folder of the host", "give user@host:PATH, the folder of the store there")
    if path.startswith("~"):
        raise _bad(text, "the home folder of another user is not looked up", "give the absolute path of the store")
    if character := _NOT_IN_PATHS.search(path):
        remedy = "give the store a path without * ? [ \\ and control characters there"
        raise _bad(text, f"the path has the character {character[0]!r}", remedy)
    return Host(user, address[1] if address else host, _plain(path))


def bucket_of(text: str) -> Bucket | None:
    """Return the bucket that a text names; None for anything else, and for a folder of that name."""
    return Bucket(text) if text.partition("://")[0] in SCHEMES and "://" in text and not os.path.lexists(text) else None


def _plain(path: str) -> str:
    """Return the path without empty and `.` components; one that begins with `-` is no option of a program."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    plain = ("/" if path.startswith("/") else "") + "/".join(parts)
    return f"./{plain}" if plain.startswith("-") else plain


def _bad(text: str, why: str, remedy: str) -> Invalid:
    return Invalid(f"{text[:80]!r}: {why}", remedy=remedy)
