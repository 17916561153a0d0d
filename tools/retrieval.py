"""The commands that ask a mission's map: query it with a picture, hold the flying engine against it, measure recall
again.

Each runs the takeoff check first, and asks nothing of a mission that is not GO.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from builders.extras import require_build_extra, require_onboard_extra
from store.disk.layout import check_format
from store.disk.media import Media
from store.errors import Invalid
from store.takeoff.aircraft import check
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.takeoff.verify import pinned_root, verify_mission
from store.trust.root import ROOT_FILE_LIMIT
from tools import keyfiles, render
from tools.arguments import Json, print_lines, store_and, store_then
from tools.progress import bytes_bar, work_bars
from tools.status import NO, OK, UNKNOWN, command, print_json, say

if TYPE_CHECKING:
    from builders.onboard.measurement import Measurement

Trust = Annotated[Path | None, typer.Option(readable=False, help="The pinned trust root; never the store's own.")]
State = Annotated[str | None, typer.Option(help="The aircraft's state: its memory, and the root it has.")]
SetOption = Annotated[str | None, typer.Option("--set", help="The descriptor set; needed where a mission has several.")]
Tiles = Annotated[
    list[Path], typer.Option("--tiles", readable=False, metavar="SOURCE", help="What the mission was built from.")
]


def add_to(app: typer.Typer) -> None:
    """Registers the commands."""
    app.command("query")(query)
    app.command("probe")(probe)
    app.command("quality")(quality)


@command
def query(
    args: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION IMAGE", show_default=False)],
    trust: Trust = None,
    state: State = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="How many places to show.")] = 5,
    zoom: Annotated[int | None, typer.Option(help="Only at this zoom; else at all of them.")] = None,
    set_: SetOption = None,
    index: Annotated[str, typer.Option(help="An index of the mission, instead of the exact search.")] = "",
    as_json: Json = False,
) -> int:
    """Show where a picture was taken: the best places of a verified mission's map."""
    require_build_extra()
    from builders.retrieval.query import locate, read_picture

    store, (mission, image) = store_then(args, 2)
    picture = read_picture(Path(image))
    with _verified(store, mission, trust, state) as verdict:
        if verdict.mission is None:
            return _no_go(verdict, as_json=as_json)
        matches = locate(verdict.mission, picture, set_=set_, zoom=zoom, index=index, top=top)
    if as_json:
        print_json(
            [
                {"tile": str(one.tile), "score": round(one.score, 6), "centre": one.centre, "corner": one.corner}
                for one in matches
            ]
        )
    else:
        print_lines(render.matches(matches))
    return OK


@command
def probe(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    trust: Trust = None,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Run the engine that flies on the mission's probe pictures, and compare with the map it flies over."""
    require_onboard_extra()
    from builders.onboard.probes import probe_sets

    store, mission = store_and(store_and_mission, needed=True)
    with _verified(store, mission or "", trust, state) as verdict:
        if verdict.mission is None:
            return _no_go(verdict, as_json=as_json)
        figures = probe_sets(verdict.mission)
    if as_json:
        print_json([one.as_json() for one in figures])
    else:
        print_lines(render.measured(figures))
    return _status(figures)


@command
def quality(
    store_and_mission: Annotated[list[str], typer.Argument(metavar="[STORE] MISSION", show_default=False)],
    tiles: Tiles,
    trust: Trust = None,
    state: State = None,
    against: Annotated[
        Path | None, typer.Option(readable=False, metavar="SOURCE", help="Other imagery of the area, to ask with.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure again how often the map answers right: under each perturbation, and against other imagery."""
    require_build_extra()
    from builders.retrieval.query import measure

    store, mission = store_and(store_and_mission, needed=True)
    with _verified(store, mission or "", trust, state) as verdict:
        if verdict.mission is None:
            return _no_go(verdict, as_json=as_json)
        with work_bars() as progress:
            figures = measure(verdict.mission, tiles, against, progress)
    if as_json:
        print_json([one.as_json() for one in figures])
    else:
        print_lines(render.measured(figures))
    return _status(figures)


def _status(figures: Sequence[Measurement]) -> int:
    """What is too low is no; what says nothing of what was signed is not known to hold."""
    if any(one.low for one in figures):
        return NO
    return UNKNOWN if any(one.unsure for one in figures) else OK


@contextmanager
def _verified(store: str, mission: str, trust: Path | None, state: str | None) -> Iterator[Verdict]:
    """The takeoff check of a mission, by a pinned root or as the aircraft with this state; the store stays open."""
    if (trust is None) == (state is None):
        raise Invalid(
            "one of --trust and --state is needed",
            remedy="give the pinned trust root's file, or the aircraft's state, which has one",
        )
    for option, inside in (("--trust", trust), ("--state", state)):
        if inside is not None:
            keyfiles.refuse_inside(option, Path(inside), store)
    with Media(store) as media:
        check_format(media)
        with bytes_bar("verifying") as progress:
            evidence = StoreEvidence(media, progress)
            if state is not None:
                verdict = check(state, evidence, mission, now=None, flight=None)
            else:
                assert trust is not None
                pinned = pinned_root(keyfiles.read_file(trust, ROOT_FILE_LIMIT, "the trust root"))
                verdict = verify_mission(evidence, mission, pinned, Binding(int(time.time())))
        yield verdict


def _no_go(verdict: Verdict, *, as_json: bool) -> int:
    if as_json:
        print_json({"go": False, "findings": [finding.as_json() for finding in verdict.findings]})
    else:
        print_lines(render.verdict(verdict))
        say("nothing is asked of a mission that is not GO")
    return UNKNOWN if verdict.unknown else NO
