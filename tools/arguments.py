"""Arguments and options that several commands share, and the values that their text stands for."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

from store.disk.layout import TOML, no_store, store_around
from store.errors import FlightbagError, Invalid, NoStore, Unavailable
from store.format.duration import seconds_of
from store.format.manifest import TIME_MAX, utc
from tools.parameters import Argument, Leading, Option
from tools.status import notice, say

STORE_ENV, TRUST_ENV, STATE_ENV = "FLIGHTBAG_STORE", "FLIGHTBAG_TRUST", "FLIGHTBAG_STATE"
KEY_ENV, PASSPHRASE_ENV = "FLIGHTBAG_KEY", "FLIGHTBAG_PASSPHRASE_FILE"
_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
LEFT_OUT = f"If it is left out: {STORE_ENV}, else the store that the current folder lies in."


def found_store() -> str:
    """Return the store that a command takes where none is given: that of FLIGHTBAG_STORE, else the one that the current
    folder lies in. Name it on standard error.

    What lies at the place that the environment names is not looked at: it may be a bucket, or on a medium that does not
    answer. Raise NoStore where there is neither, and as `store_around`.
    """
    if (found := _find()) is not None:
        return found
    folder = os.getcwd()
    text = f"no STORE is given: {STORE_ENV} is not set, and neither {folder} nor a folder above it is a store"
    raise NoStore(text, remedy=no_store(folder).remedy, kind="no-store", path=folder)


def mission_names(store: str | None) -> list[str]:
    """Return the missions of STORE, or of the store that is found without it, for a shell to offer; none, without a
    message, where there is no store or it cannot be read."""
    with suppress(FlightbagError, OSError):
        path = store or os.environ.get(STORE_ENV) or _around()
        if path is not None:
            from store.disk.layout import MISSIONS, open_store

            with open_store(path) as media:
                return sorted(media.names_if_there(MISSIONS))
    return []


def _find() -> str | None:
    given = os.environ.get(STORE_ENV)
    if given:
        around = None
        with suppress(FlightbagError):  # what the current folder lies in is not what the command takes
            around = _around()
        other = f", not {around}, in which the current folder lies" if around not in (None, place_text(given)) else ""
        notice(f"flightbag: store {place_text(given)}, by {STORE_ENV}{other}")
        return place_text(given)  # as it was named: not the remote of that name
    around = _around()
    if around is not None:
        notice(f"flightbag: store {around}, in which the current folder lies")
    return around


def _around() -> str | None:
    try:
        folder = os.getcwd()
    except OSError as error:  # somebody removed it
        text = f"the current folder cannot be looked at: {error.strerror}"
        raise Unavailable(text, remedy=f"give STORE, or set {STORE_ENV}", kind="unreadable") from error
    return store_around(folder)


def place_text(store: str) -> str:
    """Return what names a store beyond doubt: the absolute path of a folder; a bucket or another machine as it is."""
    return store if ":" in store else os.path.abspath(store)


def _is_store(path: str) -> bool:
    return os.path.lexists(os.path.join(path, TOML))


def _is_path(word: str) -> bool:
    """Return whether a word that is STORE or a name is STORE: it has a slash, or the current folder has it.

    The thing itself is not looked at: it may be a medium that does not answer.
    """
    if os.sep in word or ":" in word or word in (os.curdir, os.pardir):
        return True
    try:
        return word in os.listdir()
    except OSError:
        return True  # a store that is given is never replaced


def before_files(store: str | None, after: Sequence[str]) -> str:
    """Return STORE, or the one that is found. Raise Invalid where a store stands in the place of another argument."""
    if store is None:
        if after and _is_store(after[0]):
            text = f"{after[0]} is a store, and what follows STORE is missing"
            raise Invalid(text, remedy="give STORE and all that follows it; see --help")
        return found_store()
    if after and _is_store(after[0]) and not _is_store(store):
        text = f"{after[0]} is a store, and stands where another argument belongs"
        raise Invalid(text, remedy=f"give STORE first: {after[0]} {store}")
    return store


def before_names(store: str | None, after: Sequence[str]) -> str:
    if store is None and after and os.sep in after[0]:
        text = f"{after[0]} is a path, and the name that follows STORE is missing"
        raise Invalid(text, remedy="give STORE and the name; see --help")
    return before_files(store, after)


def _alone(store: str | None, after: Sequence[str]) -> str:
    """As `before_names`, where nothing must follow. One word that is no path is STORE if no store can be found."""
    if store is None and after:
        if (found := _find()) is None:
            raise no_store(after[0])
        return found
    return before_names(store, after)


def _given_or_found(store: str | None, _after: Sequence[str]) -> str:
    return found_store() if store is None else store


def _given_or_found_or_none(store: str | None, _after: Sequence[str]) -> str | None:
    return _find() if store is None else store


def leading(
    help_: str,
    resolve: Callable[[str | None, Sequence[str]], str | None] = _given_or_found,
    *,
    metavar: str = "STORE",
    is_first: Callable[[str], bool] = _is_path,
    offers: Callable[[str | None], list[str]] | None = None,
) -> Leading:
    """Return the first argument of a command, a store that may be left out; `help_` says what it is."""
    return Leading(
        metavar=f"[{metavar}]", help=f"{help_} {LEFT_OUT}", is_first=is_first, resolve=resolve, offers=offers
    )


_STORE_HELP = "The folder of the store."
# STORE where nothing follows, where a name must, where a mission may, and where a file must.
Store = Annotated[str, leading(_STORE_HELP, _alone)]
StoreBeforeName = Annotated[str, leading(_STORE_HELP, before_names, offers=mission_names)]
StoreOrMission = Annotated[str, leading(_STORE_HELP, _alone, offers=mission_names)]
StoreBeforeFile = Annotated[str, leading(_STORE_HELP, before_files)]
StoreIfFound = Annotated[str | None, leading("Also look at this store.", _given_or_found_or_none)]
StoreOption = Annotated[str, Option("--store", metavar="STORE", help=f"{_STORE_HELP} {LEFT_OUT}", absent=found_store)]
Mission = Annotated[str, Argument(metavar="MISSION", help="The id of the mission.", offers=mission_names)]
OptionalMission = Annotated[str | None, Argument(metavar="MISSION", help="The id of a mission.", offers=mission_names)]
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
        envvar=PASSPHRASE_ENV,
        yields_to="no_passphrase",
        help="A file whose first line is the passphrase of the private keys.",
    ),
]
_KEY_HELP = "A private key that signs, or with --signer a .pub file. May be repeated."
Keys = Annotated[list[Path], Option("--key", metavar="FILE", envvar=KEY_ENV, help=_KEY_HELP)]
OptionalKeys = Annotated[list[Path] | None, Option("--key", metavar="FILE", envvar=KEY_ENV, help=_KEY_HELP)]
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
_TRUST_HELP = "The file of the pinned trust root. It must not lie in the store."
_STATE_HELP = "The folder of the aircraft's state, which holds its trust root. It must not lie in the store."
# What a store is verified by: one of the two. One that is given is not contradicted by the environment.
Trust = Annotated[Path | None, Option("--trust", metavar="ROOT", envvar=TRUST_ENV, yields_to="state", help=_TRUST_HELP)]
State = Annotated[str | None, Option("--state", metavar="STATE", envvar=STATE_ENV, yields_to="trust", help=_STATE_HELP)]
NeededTrust = Annotated[Path, Option("--trust", metavar="ROOT", envvar=TRUST_ENV, help=_TRUST_HELP)]
NeededState = Annotated[str, Option("--state", metavar="STATE", envvar=STATE_ENV, help=_STATE_HELP)]
ExecutorOption = Annotated[
    str,
    Option(
        "--executor",
        metavar="WHERE",
        help="Where the work is done: local, ray (the cluster that this machine is a node of) or ray://HOST:PORT.",
    ),
]
MissionFilePath = Annotated[Path, Argument(help="The mission file (TOML).", metavar="MISSION.toml")]


def require_either(trust: Path | None, state: str | None) -> None:
    """Raise Invalid unless exactly one of --trust and --state is given."""
    if (trust is None) == (state is None):
        raise Invalid(
            "give either --trust or --state",
            remedy="--trust is the file of the pinned trust root; --state is the state of an aircraft, which has one. "
            f"If neither is given, {TRUST_ENV} or {STATE_ENV} counts, and only one of them may be set",
        )


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
