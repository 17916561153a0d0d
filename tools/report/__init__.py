"""The command `report`: one HTML file about a mission, or about a whole store, for people who look rather than read.

`facts` collects what `show`, `verify`, `ls`, `stats`, `engines show`, `receipts` and `trust show` print; `charts` makes
lines and areas of it; the templates arrange them. The file needs nothing else: no script, no font, no network.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from builders.extras import import_extra, require_build_extra
from store.errors import Invalid
from store.findings import Finding
from tools import keyfiles
from tools.arguments import Json, OptionalMission, State, StoreOrMission, Trust
from tools.outputs import check_output
from tools.parameters import Option
from tools.receipts import Fleet, fleet_of
from tools.status import NO, OK, UNKNOWN, action, print_json, say

# Near the beginning of every report.
_MARK = b"<!-- flightbag report -->"


@action
def run(
    store: StoreOrMission,
    mission: OptionalMission = None,
    output: Annotated[
        Path | None,
        Option("-o", "--output", metavar="FILE", help="The file of the report, FILE.html."),
    ] = None,
    trust: Trust = None,
    state: State = None,
    tiles: Annotated[
        list[str] | None,
        Option(
            metavar="SOURCE",
            help="Show some tiles of the imagery that the mission was built from. May be repeated, in the order of the "
            "mission file.",
        ),
    ] = None,
    fleet: Fleet = None,
    as_json: Json = False,
) -> int:
    """Write one HTML file about a mission, or without MISSION about the whole store. It opens without network.

    With --trust, or --state aboard, the report has the verdict of the takeoff
    check, and the status is that of `verify`. The imagery is not in the store:
    without --tiles the report shows none of it.

    Example: flightbag report ground north-ridge -o north-ridge.html
    """
    if output is None:
        raise Invalid("-o is missing", remedy="give the file of the report: -o report.html")
    if trust is not None and state is not None:
        raise Invalid("--trust and --state exclude each other", remedy="leave one of them out")
    if tiles and not mission:
        raise Invalid("--tiles needs MISSION", remedy="name the mission whose imagery it is, or leave --tiles out")
    check_output(output, "-o", _MARK)
    import_extra("numpy")
    import_extra("jinja2", "report")
    if tiles:
        require_build_extra()
    known = {} if fleet is None else fleet_of(fleet, store)
    from tools.report.facts import Asked, mission_facts, store_facts
    from tools.report.page import page

    asked = Asked(store, int(time.time()), trust, state, known, tuple(tiles or ()))
    facts = store_facts(asked) if mission is None else mission_facts(asked, mission)
    data = page("store" if mission is None else "mission", facts).encode()
    assert _MARK in data[:200]
    keyfiles.write_over(output, data)
    if as_json:
        found = [
            Finding("no-go", f"{one}: {word}", missions=(one,), unreadable=word == "UNKNOWN")
            for one, word in facts.verdicts.items()
            if word != "GO"
        ]
        found += [Finding("unreadable", text, unreadable=True) for text in facts.problems]
        print_json({"file": str(output), "bytes": len(data), "verdicts": facts.verdicts}, found)
    else:
        say(f"wrote {output}: {facts.summary}")
        for text in facts.problems:
            say(f"could not be shown: {text}")
    words = set(facts.verdicts.values())
    return NO if "NO-GO" in words else UNKNOWN if "UNKNOWN" in words or facts.problems else OK
