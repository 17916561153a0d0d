"""The values of the takeoff check: what a binding does not judge, what a verdict means, what a mission needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.errors import Corrupt, Unavailable
from store.findings import Finding
from store.format.code import short_code
from store.format.cose import Envelope
from store.format.manifest import CONTENT_TYPE
from store.takeoff.mission import Binding, Opened, Verdict, VerifiedMission
from store.takeoff.verify import verify_mission
from store.trust.aircraft_state import AircraftState
from store.trust.review import signing_code
from tests.support.missions import BINDING, CONTENTS, FACTS, NOW, ROOT, evidence_of, flight, pinned

GOOD = flight()
STATE = AircraftState.initial("uav-07", "cpu", pinned())
WRONG = Finding.of(Corrupt("it is wrong", kind="bit-flip"))
UNREAD = Finding.of(Unavailable("it cannot be read", kind="unreadable"))


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ({"aircraft": ""}, "aircraft"),
        ({"host": ""}, "host class"),
        ({"flight": ""}, "flight"),
        ({"state": STATE}, "rollback"),
    ],
)
def test_each_fact_that_is_given_is_judged(field: dict[str, object], what: str) -> None:
    every = ("aircraft", "host class", "flight", "rollback")
    assert Binding().not_judged == every
    assert Binding(**field).not_judged == tuple(one for one in every if one != what)  # type: ignore[arg-type]


def test_a_verdict_measures_nothing_until_it_does() -> None:
    verdict = Verdict("north", (WRONG,), None)
    assert (verdict.objects, verdict.bytes, verdict.not_judged) == (0, 0, ())
    assert (verdict.judged_at, verdict.from_medium, verdict.go) == (None, False, False)


@pytest.mark.parametrize(
    ("findings", "unknown"), [((UNREAD,), True), ((UNREAD, UNREAD), True), ((WRONG,), False), ((UNREAD, WRONG), False)]
)
def test_not_known_is_what_could_not_be_read_and_nothing_else(findings: tuple[Finding, ...], unknown: bool) -> None:
    assert Verdict("north", findings, None).unknown is unknown


def test_a_verified_mission_has_its_facts_and_its_code() -> None:
    verdict = verify_mission(evidence_of(GOOD), GOOD.id, pinned(), BINDING)
    mission = verdict.mission
    assert mission is not None
    assert (verdict.go, verdict.unknown) == (True, False)
    assert mission.facts == FACTS
    assert mission.code == short_code(ROOT.digest, GOOD.manifest_id)
    with pytest.raises(TypeError):
        VerifiedMission(GOOD.manifest, GOOD.manifest_id, GOOD.table, ROOT, (), evidence_of(GOOD), None, object())
    with pytest.raises((TypeError, ValueError)):
        replace(mission, manifest_id=GOOD.manifest.table)


def test_the_closure_is_manifest_table_and_entries_each_once() -> None:
    one = flight({**CONTENTS, "files/again": CONTENTS["files/calibration/camera.yaml"]})
    opened = Opened(one.manifest, one.manifest_id, len(one.signed), one.table, ROOT)
    sizes = {entry.id: entry.size for entry in one.table.entries}
    table = {one.manifest.table: one.manifest.table_size}
    assert opened.closure() == {one.manifest_id: len(one.signed), **table, **sizes}
    assert len(opened.closure()) == 2 + len(CONTENTS)
    assert opened.signing_code == signing_code(Envelope(CONTENT_TYPE, one.manifest.render()))


@pytest.mark.parametrize("now", [None, 0, -1, NOW, 2**70])
def test_a_time_is_a_whole_number_or_none(now: int | None) -> None:
    assert Binding(now).now == now
