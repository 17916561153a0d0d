"""The list of missing tiles of a mission: what is read is what was signed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from store.errors import Corrupt
from store.format.missing import ENTRY, MissingList, Run
from store.takeoff.coverage import read_missing
from store.takeoff.mission import Opened
from store.takeoff.verify import open_mission
from tests.support.missions import CONTENTS, COVERAGE, Flight, evidence_of, flight, pinned


def listing(*runs: Run) -> Flight:
    """A mission signed for one missing tile, with this list."""
    coverage = replace(COVERAGE, missing=1, required_ppm=900_000)
    return flight({**CONTENTS, ENTRY: MissingList(runs).render()}, coverage=coverage)


def opened(one: Flight) -> Opened:
    mission = open_mission(evidence_of(one), one.id, pinned())
    assert isinstance(mission, Opened)
    return mission


def test_the_list_that_was_signed() -> None:
    one = listing(Run(5000, 1, "absent"))
    assert read_missing(opened(one), evidence_of(one)) == MissingList((Run(5000, 1, "absent"),))


def test_a_mission_that_describes_its_whole_area_has_an_empty_list() -> None:
    one = flight()
    assert read_missing(opened(one), evidence_of(one)) == MissingList(())


@pytest.mark.parametrize("runs", [(), (Run(5000, 2, "absent"),)])
def test_another_number_of_tiles_than_the_signed_one_is_corrupt(runs: tuple[Run, ...]) -> None:
    one = listing(*runs)
    with pytest.raises(Corrupt, match="the manifest signs 1") as caught:
        read_missing(opened(one), evidence_of(one))
    assert caught.value.kind == "bad-coverage"


def test_bytes_that_are_no_list_are_corrupt() -> None:
    coverage = replace(COVERAGE, missing=1, required_ppm=900_000)
    one = flight({**CONTENTS, ENTRY: b"\x01"}, coverage=coverage)
    with pytest.raises(Corrupt):
        read_missing(opened(one), evidence_of(one))
