"""The commands that search the map of a mission: query it with a picture, probe the flying engine, measure recall.

Each command runs the takeoff check first, and uses only a mission that is GO.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from builders.extras import require_build_extra, require_onboard_extra
from store.errors import Invalid
from store.findings import Finding
from store.takeoff.aircraft import Proving, check, prove
from store.takeoff.coverage import read_missing
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Binding, Verdict
from store.takeoff.verify import verify_mission
from store.trust.root import SignedRoot
from tools import keyfiles, render
from tools.arguments import Json, Mission, State, StoreBeforeName, Trust, print_lines, require_either
from tools.confined import confined
from tools.parameters import Argument, Option
from tools.progress import reading_bar, work_bars
from tools.status import NO, OK, UNKNOWN, command, print_json, say, status_of_findings
from tools.verdicts import findings_of, print_verdicts

if TYPE_CHECKING:
    from builders.onboard.measurement import Measurement

SetOption = Annotated[
    str | None,
    Option("--set", metavar="NAME", help="The descriptor set to search. Required if the mission has several."),
]
Tiles = Annotated[
    list[Path],
    Option(
        "--tiles",
        metavar="SOURCE",
        help="The imagery that the mission was built from. May be repeated. tms:SOURCE and xyz:SOURCE name the order "
        "of its rows, as `scheme` does in the mission file. The mission file itself names its sources, with bands and "
        "stretch.",
    ),
]


@command
@confined
def query(
    store: StoreBeforeName,
    mission: Mission,
    image: Annotated[Path, Argument(metavar="IMAGE", help="The picture.")],
    trust: Trust = None,
    state: State = None,
    top: Annotated[int, Option(min=1, max=1000, help="The number of places to show.")] = 5,
    zoom: Annotated[int | None, Option(help="Search only this zoom. The default is all zooms of the map.")] = None,
    set_: SetOption = None,
    index: Annotated[
        str, Option(metavar="NAME", help="Search with this index of the mission instead of exactly.")
    ] = "",
    metres: Annotated[
        float | None,
        Option(metavar="M", help="The ground that the longer side of the picture shows, in metres."),
    ] = None,
    height: Annotated[
        float | None, Option(metavar="M", help="With --fov instead of --metres: metres above ground.")
    ] = None,
    fov: Annotated[
        float | None,
        Option(metavar="DEGREES", help="The angle of view along the longer side of the picture."),
    ] = None,
    heading: Annotated[
        float | None,
        Option(metavar="DEGREES", help="The direction of the picture's top, clockwise from true north."),
    ] = None,
    picture: Annotated[
        Path | None,
        Option("--picture", metavar="OUT.png", help="Draw the frame beside its best matches."),
    ] = None,
    tiles: Annotated[
        list[str] | None,
        Option(
            metavar="SOURCE",
            help="With --picture: the imagery that the mission was built from, to show what each match shows.",
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Show where a picture was taken: the places on the map of a verified mission that look most like it.

    The part that a row of the map shows is cut out of the picture's middle and turned north up. What the options do not
    give is assumed, and the output says so. Place, height and heading in the picture's EXIF data are not read.

    Example: flightbag query ground north-ridge frame.jpg --trust pinned.root.cbor --metres 600 --heading 212
    """
    require_build_extra()
    from builders.imagery.roworder import SourcePath
    from builders.painting import MARK
    from builders.retrieval.query import camera_of, locate, read_picture, the_set
    from builders.samples import views
    from tools.outputs import check_output
    from tools.pictures import located_picture

    camera = camera_of(metres, height, fov, heading)
    if tiles and picture is None:
        raise Invalid("--tiles needs --picture", remedy="give the file of the picture, or leave --tiles out")
    if picture is not None:
        check_output(picture, "--picture", MARK)
    frame = read_picture(image)
    with _verified(store, mission, trust, state) as verdict:
        if verdict.mission is None:
            return _no_go(verdict, as_json=as_json)
        found = locate(verdict.mission, frame, camera, set_=set_, zoom=zoom, index=index, top=top)
        if picture is not None:
            name, origins = the_set(verdict.mission, set_), [match.tile for match in found.matches]
            sources = [SourcePath.parse(one) for one in tiles or ()]
            imagery = views(verdict.mission, name, origins, sources) if sources else {}
            listed = read_missing(verdict.mission, verdict.mission.evidence)
            keyfiles.write_over(picture, located_picture(frame, found, verdict.mission, listed, imagery))
    if as_json:
        print_json(found.as_json())
    else:
        print_lines(render.located(found, verdict.mission))
    return OK


@command
def probe(
    store: StoreBeforeName,
    mission: Mission,
    trust: Trust = None,
    state: State = None,
    as_json: Json = False,
) -> int:
    """Run the flying engine on the probe pictures of a mission, and compare the descriptors with the map.

    It shows that the engine equals the map, and not that either is any good. With
    --state, aboard, it proves what nobody measured before: verify is then no more
    NO-GO unproven.

    Example: flightbag probe /media/stick/store left --state /var/lib/flightbag
    """
    require_onboard_extra()
    from builders.onboard.probes import probe_sets

    with _evidence(store, trust, state) as (evidence, pinned):
        if state is not None:
            proving = prove(state, evidence, mission, probe_sets)
        else:
            assert pinned is not None
            verdict = verify_mission(evidence, mission, pinned, Binding(int(time.time()), proof=False))
            figures = [] if verdict.mission is None else probe_sets(verdict.mission)
            proving = Proving(verdict if verdict.mission is None else None, figures)
    if proving.refused is not None:
        return _no_go(proving.refused, as_json=as_json)
    figures = list(proving.figures)
    if as_json:
        rows = [{**one.as_json(), "recorded": one.name in proving.held} for one in figures]
        print_json({"figures": rows}, _findings(figures))
    else:
        print_lines(render.measured(figures))
        print_lines(render.proving(proving, state))
    return status_of_findings(_findings(figures))


@command
@confined
def quality(
    store: StoreBeforeName,
    mission: Mission,
    tiles: Tiles,
    trust: Trust = None,
    state: State = None,
    against: Annotated[
        Path | None,
        Option(metavar="SOURCE", help="Other imagery of the area, to query the map with."),
    ] = None,
    sample: Annotated[
        int | None,
        Option(
            min=1,
            max=4096,
            metavar="N",
            help="The views of each zoom to query: give the `sample` of the mission file. The default is 32.",
        ),
    ] = None,
    landmarks: Annotated[
        Path | None,
        Option(metavar="GEOJSON", help="Points with a property image, which must be found."),
    ] = None,
    within: Annotated[
        float | None, Option(metavar="M", help="With --landmarks: the most metres from the point.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure again how well the map of a mission answers: self-retrieval, recall for each perturbation, with --against
    for other imagery, with --landmarks for pictures whose places are known.

    A map that is asked with its own imagery cannot show that it is mirrored or
    in the wrong place. Landmarks show that.

    Example: flightbag quality ground north-ridge --trust pinned.root.cbor --tiles naip.mbtiles
    """
    require_build_extra()
    from builders.imagery.roworder import SourcePath
    from builders.mission.schema import SAMPLE
    from builders.retrieval.landmarks import landmarks_of, measure_landmarks
    from builders.retrieval.query import measure

    points = landmarks_of(landmarks, within)
    with _verified(store, mission, trust, state) as verdict:
        if verdict.mission is None:
            return _no_go(verdict, as_json=as_json)
        with work_bars() as progress:
            sources = [SourcePath.parse(str(one)) for one in tiles]
            other = None if against is None else SourcePath.parse(str(against))
            figures = measure_landmarks(verdict.mission, points, progress)
            figures += measure(verdict.mission, sources, other, sample or SAMPLE, progress)
    if as_json:
        print_json({"figures": [one.as_json() for one in figures]}, _findings(figures))
    else:
        print_lines(render.measured(figures))
        print_lines(render.measured_recall(figures, verdict.mission.manifest.quality))
    return status_of_findings(_findings(figures))


def _findings(figures: Sequence[Measurement]) -> Iterator[Finding]:
    """Yield a finding for each figure that is too low, and for each signed one that was not measured, or in another
    way."""
    for one in figures:
        if one.low:
            yield Finding("too-low", f"{one.name} is too low", expected=str(one.least), actual=str(one.value))
        elif one.unsure:
            yield Finding("not-measured", f"{one.name} was not measured in the signed way", unreadable=True)


@contextmanager
def _verified(store: str, mission: str, trust: Path | None, state: str | None) -> Iterator[Verdict]:
    """Yield the verdict on a mission, by a pinned trust root or by the state of an aircraft. The store stays open."""
    with _evidence(store, trust, state) as (evidence, pinned):
        if state is not None:
            yield check(state, evidence, mission, now=None, flight=None)
        else:
            assert pinned is not None
            yield verify_mission(evidence, mission, pinned, Binding(int(time.time())))


@contextmanager
def _evidence(store: str, trust: Path | None, state: str | None) -> Iterator[tuple[StoreEvidence, SignedRoot | None]]:
    """Yield the evidence of a store and the pinned trust root, if one is given: else the aircraft's state has it."""
    require_either(trust, state)
    with keyfiles.open_to_verify(store, trust, state) as media, reading_bar("verifying") as progress:
        yield StoreEvidence(media, progress), None if trust is None else keyfiles.pinned(trust)


def _no_go(verdict: Verdict, *, as_json: bool) -> int:
    if as_json:
        print_json({}, findings_of(verdict))
    else:
        print_verdicts([verdict])
        say("the command stops here: it uses only a mission that is GO")
    return UNKNOWN if verdict.unknown else NO
