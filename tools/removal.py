"""The command `remove`: takes a mission out of a store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

from store.ground.removal import RemovalPlan, plan_removal
from store.ground.removal import remove as take_out
from store.ground.repository import Repository
from store.values import replace
from tools import lines, render
from tools.arguments import Json, Mission, StoreBeforeName, print_lines
from tools.parameters import Option
from tools.status import OK, action, print_json


@action
def remove(
    store: StoreBeforeName,
    mission: Mission,
    dry_run: Annotated[bool, Option("--dry-run", help="Show what would go. Write nothing.")] = False,
    as_json: Json = False,
) -> int:
    """Take a mission out of this store. The next `gc` frees what no other mission needs.

    Nothing is withdrawn: other copies keep the mission and may fly it, and a sync from one
    brings it back. If it is built again here, its sequence goes on. A mission with a draft
    is not removed; what a pin keeps stays.

    Example: flightbag remove /media/stick/store north-ridge --dry-run
    """
    with Repository.open(store) as repository:
        plan = (plan_removal if dry_run else take_out)(repository, mission)
    if as_json:
        fields = {name: value for name, value in asdict(plan).items() if name != "unknown"}
        # They keep nothing from being removed.
        notes = [replace(finding, information=True) for finding in plan.unknown]
        print_json({**fields, "manifest": str(plan.manifest), "dry_run": dry_run}, notes)
    else:
        print_lines(_lines(plan, dry_run=dry_run))
    return OK


def _lines(plan: RemovalPlan, *, dry_run: bool) -> Iterator[str]:
    verb = "would remove" if dry_run else "removed"
    yield f"{verb} mission {plan.mission}, flight {plan.flight}, sequence {plan.sequence}"
    if plan.objects is None or plan.bytes is None:
        reason = plan.unknown[0].message if plan.unknown else ""
        yield from lines.wrapped(f"how much `flightbag gc` frees is not known: {reason}", "", "  ")
    else:
        freed = f"{render.many(plan.objects, 'object')}, {render.size(plan.bytes)}"
        text = f"`flightbag gc` frees {freed}, once they are older than its grace time"
        yield from lines.wrapped(text, "", "  ")
    if plan.pins:
        yield from render.listed("pinned, and kept until `flightbag unpin`:", plan.pins)
    yield from lines.wrapped(
        "other copies of the store keep the mission; a sync from one of them brings it back here", "", "  "
    )
