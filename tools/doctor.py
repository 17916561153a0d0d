"""The command `doctor`: what this machine can build and fly, and what is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from store.findings import Finding
from tools import render
from tools.arguments import Json, StoreIfFound, cache_folder, print_lines
from tools.status import NO, OK, UNKNOWN, command, print_json, say

if TYPE_CHECKING:
    from builders.doctor import Check


def _findings(checks: list[Check]) -> Iterator[Finding]:
    for one in checks:
        if one.state in ("problem", "unknown"):
            unknown = one.state == "unknown"
            text = f"{one.name}: {one.text}"
            yield Finding("unreadable" if unknown else "problem", text, remedy=one.remedy, unreadable=unknown)


@command
def doctor(
    store: StoreIfFound = None,
    as_json: Json = False,
) -> int:
    """Show what this machine can build and fly, and what is wrong: extras, libraries, GPU, room, clock, file system.

    It writes nothing to the store. Statuses: 0 no problem, 1 a problem, 3 something could not be looked at.

    Example: flightbag doctor ground
    """
    from builders.doctor import examine

    found = []
    for check in examine(store, cache_folder(), now=time.time()):
        found.append(check)
        if not as_json:
            print_lines(render.checks([check]))  # one by one: loading a library takes seconds
    problems = sum(check.state == "problem" for check in found)
    unknown = sum(check.state == "unknown" for check in found)
    if as_json:
        print_json({"checks": [asdict(check) for check in found]}, _findings(found))
    else:
        say(f"{render.many(problems, 'problem')}{f'; {unknown} could not be looked at' if unknown else ''}")
    return NO if problems else UNKNOWN if unknown else OK
