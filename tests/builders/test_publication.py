"""The example at the head of `publication` runs: what somebody who embeds the build does; what is compared before it is
signed."""

from __future__ import annotations

import doctest
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from builders import build, publication
from builders.crossing import place_digest
from store.errors import Refused
from store.format.manifest import Figure, Takeoff
from store.ground.issuing import draft_of
from store.ground.repository import Repository
from store.trust.keys import PrivateKey
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.missions import FACTS, ISSUE, MEASURED, NOW, PROBED, ROOT, UNPROVEN, flight
from tests.support.missions_toml import mission_toml


def test_the_example_runs(desk: Desk, tmp_path: Path) -> None:
    names = {
        "mission_file": desk.write_mission("left"),
        "store_path": desk.store,
        "key": PrivateKey.of_pem(desk.key.read_bytes(), None),
        "cache_folder": tmp_path,
    }
    (test,) = (one for one in doctest.DocTestFinder(recurse=False).find(publication, globs=names) if one.examples)
    report: list[str] = []
    results = doctest.DocTestRunner().run(test, out=report.append)
    assert (results.attempted, results.failed) == (4, 0), "".join(report)
    assert desk.verify().status == 0


ONE_AIRCRAFT = replace(FACTS, aircraft=("uav-07",))
ENDLESS = replace(ISSUE, expires_at=None)


def stated_mission(takeoff: str) -> str:
    """The text of a mission file with this takeoff, and otherwise of FACTS."""
    west, south, east, north = (number / 10**7 for number in FACTS.area.bbox)
    return mission_toml(
        mission=FACTS.id,
        tiles=Path("map.mbtiles"),
        model=Path("net.onnx"),
        bbox=(west, south, east, north),
        zooms=(16,),
        takeoff=(0, 0),
    ).replace("lat = 0, lon = 0, alt_m = 480.0", takeoff)


def require_stated(takeoff: str, places: list[str]) -> None:
    """Compare a mission file of this takeoff with a manifest of FACTS."""
    text, stated = stated_mission(takeoff), flight(PROBED, mission=ONE_AIRCRAFT, issue=ENDLESS, quality=(MEASURED,))
    publication._require_stated(Path("north-ridge.toml"), text.encode(), places, stated, ROOT, NOW)


@pytest.mark.parametrize(
    ("takeoff", "signed"),
    [
        ("lat = 47.0201, lon = -99.1602, alt_m = 480", True),
        ("lat = 47.0201, lon = -99.1602, alt_m = 480.001", False),
        ('plan = "a.plan"', True),
        ('plan = "a.plan", alt_m = 480', True),
        ('plan = "a.plan", alt_m = 470', False),
    ],
)
def test_of_a_takeoff_in_a_plan_what_the_mission_file_says_is_compared(takeoff: str, signed: bool) -> None:
    """Reading the plan is work of the confined process, and there is none here: it states the place."""
    places = [place_digest(FACTS.area, FACTS.takeoff)]
    with nullcontext() if signed else pytest.raises(Refused, match="in takeoff, and is not signed"):
        require_stated(takeoff, places)


@pytest.mark.parametrize("changed", [replace(FACTS.takeoff, alt=1), None])
def test_a_takeoff_in_a_plan_is_the_one_that_was_stated_before_imagery_was_read(changed: Takeoff | None) -> None:
    places = [] if changed is None else [place_digest(FACTS.area, changed)]
    with pytest.raises(Refused, match="in place, and is not signed"):
        require_stated('plan = "a.plan"', places)


PROOFS = [("", False), ('proof = "required"', False), ('proof = "aboard"', True)]


@pytest.mark.parametrize(("proof", "signed"), PROOFS)
@pytest.mark.parametrize("target", ["[target]", "[[target]]"])
def test_an_unproven_engine_is_signed_only_where_the_mission_file_lets_aircraft_prove_it(
    target: str, proof: str, signed: bool
) -> None:
    """A process that has read foreign bytes could say that nobody can measure an engine that is wrong."""
    text = stated_mission("lat = 47.0201, lon = -99.1602, alt_m = 480").replace("[target]", f"{target}\n{proof}")
    manifest = flight(PROBED, mission=ONE_AIRCRAFT, issue=ENDLESS, unproven=(UNPROVEN,))
    with nullcontext() if signed else pytest.raises(Refused, match=r"in target\.proof, and is not signed"):
        publication._require_stated(Path("north-ridge.toml"), text.encode(), [], manifest, ROOT, NOW)
    # What is measured needs no leave.
    manifest = flight(PROBED, mission=ONE_AIRCRAFT, issue=ENDLESS, quality=(MEASURED,))
    publication._require_stated(Path("north-ridge.toml"), text.encode(), [], manifest, ROOT, NOW)


@pytest.mark.parametrize(
    ("contents", "quality"),
    [
        (PROBED, ()),
        (PROBED, (replace(MEASURED, recipe=bytes(32)),)),
        (PROBED, (replace(MEASURED, name="fidelity/other"),)),
        ({name: data for name, data in PROBED.items() if not name.startswith("probes/")}, (MEASURED,)),
        ({name: data for name, data in PROBED.items() if not name.startswith("engines/")}, (MEASURED,)),
    ],
)
def test_an_engine_of_which_no_figure_speaks_is_not_signed(
    contents: dict[str, bytes], quality: tuple[Figure, ...]
) -> None:
    """A process that has read foreign bytes could hide that nobody has measured an engine."""
    text = stated_mission("lat = 47.0201, lon = -99.1602, alt_m = 480")
    manifest = flight(contents, mission=ONE_AIRCRAFT, issue=ENDLESS, quality=quality)
    with pytest.raises(Refused, match=r"in the figures of its engines, and is not signed"):
        publication._require_stated(Path("north-ridge.toml"), text.encode(), [], manifest, ROOT, NOW)


HOUR = 3600


@pytest.mark.parametrize(
    ("hours", "change", "why"),
    [
        (36, "", ""),
        (37, "", "less than half of its 3d is left, and a build then issues a mission anew: `flightbag sign` adds a"),
        (1, "validity", "the mission file or the trust root gives another validity now"),
        (1, "facts", "the mission file, or what it names, is another now"),
    ],
)
def test_a_draft_that_loses_its_signatures_says_why(
    desk: Desk, tmp_path: Path, hours: int, change: str, why: str
) -> None:
    """The second pilot builds later than the first, who has signed."""
    store = tmp_path / "two"
    assert flightbag("init", store).status == 0
    assert flightbag("keys", "new", tmp_path / "second.key", "--no-passphrase").status == 0
    keys = ("--mission-key", desk.key, "--mission-key", tmp_path / "second.key", "--threshold", "mission=2")
    ran = flightbag("trust", "new", store, "--domain", "test", "--root-key", desk.folder / "owner.key", *keys)
    assert ran.status == 0, ran.err
    first, second = (PrivateKey.of_pem(path.read_bytes(), None) for path in (desk.key, tmp_path / "second.key"))
    mission = desk.write_mission("left", zooms=(14,), files=())
    text = mission.read_text().replace("sector =", 'valid_for = "72h"\nsector =')
    mission.write_text(text)
    now = int(time.time())
    assert build(mission, store, [first], cache=tmp_path / "cache", now=now).outcome == "draft"
    if change == "validity":
        mission.write_text(text.replace("72h", "48h"))
    elif change == "facts":
        mission.write_text(text.replace("stable_rear", "active_conflict"))
    report = build(mission, store, [second], cache=tmp_path / "cache", now=now + hours * HOUR)
    if not why:
        assert (report.outcome, report.why) == ("built", "")
        return
    assert report.outcome == "draft"
    assert f"it replaces the draft before it, whose 1 signature is lost: {why}" in report.why
    with Repository.open(store) as repository:
        draft = draft_of(repository, "left")
    assert [one.kid for one in draft.envelope.signatures] == [second.public.kid]
