"""A store as it was at an earlier time."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.disk.media import Media
from store.errors import Invalid
from store.ground.as_of import EvidenceAsOf, check_pinned
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from tests.support.missions import NOW, ROOT, pinned
from tests.support.stores import NORTH, later, make_store, publish


def test_as_it_was_at_each_time(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", NORTH)
    newer = later(NORTH)
    publish(store, newer)
    log = store / "log"
    with Media(store) as media:
        from store.disk.log import events

        first, second = (event.at for event in events(media) if event.event == "published")
        found = {}
        for at in (first - 1, first, second):
            verdict = verify_mission(EvidenceAsOf(media, at), NORTH.id, pinned(), Binding(NOW))
            found[at] = None if verdict.mission is None else verdict.mission.manifest_id
    assert found[first - 1] is None
    assert found[second] == newer.manifest_id
    assert log.exists()


def test_a_root_that_was_not_there_yet() -> None:
    check_pinned(pinned(), ROOT.issued_at)
    with pytest.raises(Invalid):
        check_pinned(pinned(), ROOT.issued_at - 1)
