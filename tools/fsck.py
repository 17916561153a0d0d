"""`store-fsck`, also `flightbag fsck`: the audit, with the statuses of fsck(8).

    0  clean        1  corrected (not yet: nothing here writes)
    4  errors left  8  could not check  16  usage  32  cancelled
Statuses add up: 12 is errors and something that could not be checked.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from store.fsck import fsck
from store.media import Media
from tools import render
from tools.progress import bytes_bar
from tools.status import exits, print_json, say

CLEAN, ERRORS, COULD_NOT_CHECK, USAGE, CANCELLED = 0, 4, 8, 16, 32

Store = Annotated[str, typer.Argument(envvar="FLIGHTBAG_STORE", help="The store's folder.", show_default=False)]
Quick = Annotated[bool, typer.Option("--quick", help="Names, types, sizes, refs, signatures, closures (the default).")]
Full = Annotated[bool, typer.Option("--full", help="Every byte of every object besides.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")]


@exits(error_status=lambda _: COULD_NOT_CHECK, unknown=COULD_NOT_CHECK, interrupted=CANCELLED)
def run(store: Store, quick: Quick = False, full: Full = False, as_json: Json = False) -> int:
    """Audits a store. Writes nothing."""
    if quick and full:
        say("store-fsck: --quick and --full exclude each other", sys.stderr)
        return USAGE
    with Media(store) as media, bytes_bar("reading") as progress:
        audit = fsck(media, full=full, progress=progress)
    status = (ERRORS if audit.errors else CLEAN) | (COULD_NOT_CHECK if audit.inconclusive else CLEAN)
    if as_json:
        print_json(
            {
                "status": status,
                "level": "full" if full else "quick",
                "objects": audit.objects,
                "bytes": audit.bytes,
                "missions": audit.missions,
                "findings": [finding.as_json() for finding in audit.findings],
            }
        )
    else:
        for line in render.audit(audit):
            say(line)
    return status


def main() -> None:
    """The program `store-fsck`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(name="store-fsck")(run)
    exit_with_usage(app, USAGE)


def exit_with_usage(app: typer.Typer, usage: int) -> None:
    """Runs a typer program; a mistake in its arguments exits with `usage`."""
    try:
        app()
    except SystemExit as end:
        # click's status for a mistake in the arguments is 2; a command of ours never ends with 2 in fsck.
        raise SystemExit(usage if end.code == 2 else end.code) from None
