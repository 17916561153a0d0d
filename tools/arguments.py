"""What several commands take, and how a command takes it: the arguments of the command line that have one meaning."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from store.disk.layout import TOML
from store.errors import Invalid
from store.format.manifest import TIME_MAX
from tools.status import say

ENV = "FLIGHTBAG_STORE"
Store = Annotated[str, typer.Argument(envvar=ENV, help="The store's folder.", show_default=False)]
# Where another argument follows that must be there, nothing can stand in for it.
StoreFirst = Annotated[str, typer.Argument(metavar="STORE", help="The store's folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]
PassphraseFile = Annotated[
    Path | None, typer.Option(readable=False, help="Its first line is the passphrase.", show_default=False)
]
Keys = Annotated[
    list[Path], typer.Option("--key", readable=False, help="A key that signs; once for each. A .pub with --signer.")
]
SomeKeys = Annotated[
    list[Path] | None,
    typer.Option("--key", readable=False, help="A key that signs; once for each. A .pub with --signer."),
]
SignerCommand = Annotated[
    str | None,
    typer.Option("--signer", metavar="CMD", help="Signs for the .pub keys: bytes on stdin, signature on stdout."),
]
MissionFilePath = Annotated[
    Path, typer.Argument(readable=False, help="The mission file (TOML).", metavar="MISSION.toml")
]


def store_and(args: list[str], *, needed: bool) -> tuple[str, str | None]:
    """STORE and MISSION, where FLIGHTBAG_STORE may stand in for STORE."""
    from_env = os.environ.get(ENV)
    if len(args) == 2:
        return args[0], args[1]
    if len(args) > 2:
        raise Invalid(f"{args[2]!r} is one argument too many", remedy="see --help")
    if len(args) == 1:
        if from_env and (needed or not os.path.exists(os.path.join(args[0], TOML))):
            return from_env, args[0]
        if not needed:
            return args[0], None
    if not args and from_env and not needed:
        return from_env, None
    raise Invalid(
        "STORE and MISSION are needed" if needed else "STORE is needed",
        remedy=f"give them, or set {ENV} for the store; see --help",
    )


def store_then(args: list[str], *counts: int) -> tuple[str, list[str]]:
    """STORE and what follows it, of which there may be any of these numbers; FLIGHTBAG_STORE may stand in for STORE."""
    from_env = os.environ.get(ENV)
    if len(args) - 1 in counts:
        return args[0], args[1:]
    if from_env and len(args) in counts:
        return from_env, args
    raise Invalid("arguments are missing, or too many", remedy=f"see --help; {ENV} may stand in for STORE")


def cache_folder() -> Path:
    """The folder of the user's cache that is this program's; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "flightbag"


def duration(text: str) -> float:
    """Seconds of a text such as 90s, 15m, 12h or 14d. Raises Invalid."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])", text)
    if match is None:
        raise Invalid(f"{text!r} is no length of time", remedy="give one like 60s, 15m, 12h or 14d")
    return float(match[1]) * units[match[2]]


def moment(text: str) -> int:
    """Unix seconds of a time such as 2026-11-25T12:00:00Z, or of the number itself. Raises Invalid."""
    if text.isdecimal() and int(text) <= TIME_MAX:
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None or at.timestamp() < 0:
            raise ValueError
        return int(at.timestamp())
    except (ValueError, OverflowError):
        remedy = "give one like 2026-11-25T12:00:00Z, or unix seconds"
        raise Invalid(f"{text!r} is no time with a time zone", remedy=remedy) from None


def print_lines(lines: Iterable[str]) -> None:
    """Prints text for people, line by line."""
    for line in lines:
        say(line)
