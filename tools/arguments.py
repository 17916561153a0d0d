"""Arguments and options that several commands share, and the values that their text stands for."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

from store.disk.layout import TOML
from store.errors import Invalid
from store.format.duration import seconds_of
from store.format.manifest import TIME_MAX, utc
from tools.parameters import Argument, Option
from tools.status import say

ENV = "FLIGHTBAG_STORE"
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_STORE_AND_MISSION = f"The folder of the store and the id of the mission. {ENV} may replace STORE."

Store = Annotated[str, Argument(metavar="STORE", envvar=ENV, help="The folder of the store.")]
# A required argument follows, so that the environment cannot replace this one.
StoreFirst = Annotated[str, Argument(metavar="STORE", help="The folder of the store.")]
StoreOption = Annotated[str, Option("--store", envvar=ENV, help="The folder of the store.", metavar="STORE")]
StoreAndMission = Annotated[list[str], Argument(metavar="[STORE] MISSION", help=_STORE_AND_MISSION)]
Json = Annotated[bool, Option("--json", help="Print one JSON document instead of text.")]
DropCache = Annotated[
    bool,
    Option("--drop-cache", help="Read the medium, not the page cache. This is the default for a removable medium."),
]
GiveUp = Annotated[
    str | None,
    Option(
        "--give-up",
        metavar="60s",
        help="End with the status for `could not check` if the medium keeps the command waiting for longer than this.",
    ),
]
PassphraseFile = Annotated[
    Path | None,
    Option(
        "--passphrase-file",
        metavar="FILE",
        help="A file whose first line is the passphrase of the private keys.",
    ),
]
_KEY_HELP = "A private key that signs, or with --signer a .pub file. May be repeated."
Keys = Annotated[list[Path], Option("--key", metavar="FILE", help=_KEY_HELP)]
OptionalKeys = Annotated[list[Path] | None, Option("--key", metavar="FILE", help=_KEY_HELP)]
SharedCache = Annotated[
    str | None,
    Option(
        "--shared-cache",
        metavar="CACHE",
        help="A folder, s3://BUCKET/PREFIX or a named remote, where builds of all stations look for what is missing "
        "before they make it. What is taken is signed by a key of the role builder.",
    ),
]
BuilderKeys = Annotated[
    list[Path] | None,
    Option(
        "--builder-key",
        metavar="FILE",
        help="A private key of the role builder, or with --signer a .pub file: what is made is signed and put into the "
        "shared cache. May be repeated.",
    ),
]
SignerCommand = Annotated[
    str | None,
    Option(
        "--signer",
        metavar="CMD",
        help="A command that signs for the keys given as .pub files: it reads the bytes to sign from standard input "
        "or from the file FLIGHTBAG_TO_SIGN, the kid from FLIGHTBAG_KID, and writes the signature of 64 bytes to "
        "standard output.",
    ),
]
Trust = Annotated[
    Path | None,
    Option(
        "--trust",
        metavar="ROOT",
        help="The file of the pinned trust root. It must not lie in the store.",
    ),
]
State = Annotated[
    str | None,
    Option(
        "--state",
        metavar="STATE",
        help="The folder of the aircraft's state, which holds its trust root. It must not lie in the store.",
    ),
]
ExecutorOption = Annotated[
    str,
    Option(
        "--executor",
        metavar="WHERE",
        help="Where the work is done: local, ray (the cluster that this machine is a node of) or ray://HOST:PORT.",
    ),
]
MissionFilePath = Annotated[Path, Argument(help="The mission file (TOML).", metavar="MISSION.toml")]


def store_and(args: list[str], *, needed: bool) -> tuple[str, str | None]:
    """Return STORE and MISSION. FLIGHTBAG_STORE replaces STORE where it is left out.

    MISSION is None where it is left out and not `needed`. Raise Invalid for missing and for surplus arguments.
    """
    from_env = os.environ.get(ENV)
    if len(args) == 2:
        if _is_store(args[1]) and not _is_store(args[0]):
            raise Invalid(f"{args[1]} is a store, not a mission", remedy=f"give STORE first: {args[1]} {args[0]}")
        return args[0], args[1]
    if len(args) > 2:
        raise Invalid(f"unexpected argument {args[2]!r}", remedy="see --help")
    if len(args) == 1:
        # A path is no mission: it may be of a medium that is not mounted, or of a folder above a store.
        if from_env and (needed or not (os.sep in args[0] or _is_store(args[0]))):
            return from_env, args[0]
        if not needed:
            return args[0], None
    if not args and from_env and not needed:
        return from_env, None
    raise Invalid(
        "STORE or MISSION is missing" if needed else "STORE is missing",
        remedy=f"give both, or set {ENV} to the folder of the store; see --help"
        if needed
        else f"give it, or set {ENV}; see --help",
    )


def _is_store(path: str) -> bool:
    return os.path.lexists(os.path.join(path, TOML))


def store_then(args: list[str], *counts: int) -> tuple[str, list[str]]:
    """Return STORE and the arguments after it. FLIGHTBAG_STORE replaces STORE where it is left out.

    `counts` are the numbers of arguments that may follow STORE. Raise Invalid for any other number.
    """
    from_env = os.environ.get(ENV)
    if len(args) - 1 in counts:
        return args[0], args[1:]
    if from_env and len(args) in counts:
        return from_env, args
    needed = " or ".join(str(count + 1) for count in counts)
    text = f"{needed} arguments are needed, STORE among them, and {len(args)} are given: {' '.join(args)}"
    raise Invalid(text, remedy=f"see --help; {ENV} may replace STORE")


def cache_folder() -> Path:
    """Return this program's folder in the cache of the user. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "flightbag"


def config_folder() -> Path:
    """Return this program's folder in the configuration of the user. It may not exist yet."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".config") / "flightbag"


def patience_of(give_up: str | None) -> float | None:
    """Return the seconds of --give-up, None without it. Raise Invalid for no time at all."""
    seconds = None if give_up is None else seconds_of(give_up)
    if seconds == 0:
        raise Invalid("--give-up needs more than 0 seconds", remedy="give a duration like 60s, or leave it out")
    return seconds


def moment(text: str) -> int:
    """Return the unix seconds of a time such as 2026-11-25T12:00:00Z, or of unix seconds as text.

    Raise Invalid for any other text, also for a time without a time zone.
    """
    if text.isdecimal() and int(text) <= TIME_MAX:
        return int(text)
    try:
        match = _MOMENT.fullmatch(text)
        if match is None:
            raise ValueError
        date, clock, zone = match.groups()
        # In the one notation that each Python reads.
        at = datetime.fromisoformat(f"{date}T{clock}{zone.upper().replace('Z', '+00:00')}")
        if at.timestamp() < 0:
            raise ValueError
        return int(at.timestamp())
    except (ValueError, OverflowError):
        remedy = "give a time like 2026-11-25T12:00:00Z, or unix seconds"
        raise Invalid(f"{text!r} is not a time with a time zone", remedy=remedy) from None


def past_moment(text: str, option: str) -> int:
    """As `moment`, for an option that takes a time in the past. Raise Invalid for a later one."""
    at = moment(text)
    if at > time.time():
        raise Invalid(f"{option} {utc(at)} lies in the future", remedy="give a time in the past")
    return at


def print_lines(lines: Iterable[str]) -> None:
    """Print text for people, line by line."""
    for line in lines:
        say(line)
