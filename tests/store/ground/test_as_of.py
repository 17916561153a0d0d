"""A store as it was at an earlier time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store.disk.media import Media
from store.errors import Invalid, NotFound
from store.ground.as_of import EvidenceAsOf, check_pinned
from store.ground.repository import Repository
from store.ground.trust_chain import put_into_effect, rotate
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from tests.support.missions import NOW, ROOT, next_root, pinned, root_draft, sign_root
from tests.support.stores import NORTH, ROOT_FILE, later, make_store, publish


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


def test_each_second_has_what_took_effect_by_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very second of a publication or a rotation it has happened, a second before it has not."""
    store, clock = tmp_path / "store", [NOW]
    monkeypatch.setattr(time, "time", lambda: float(clock[0]))
    with Repository.init(store) as repository:
        rotate(repository, root_draft(ROOT_FILE), now=NOW)
    second = next_root(ROOT, issued_at=NOW + 5)
    newer = later(NORTH)
    for at, one in ((NOW + 10, NORTH), (NOW + 30, newer)):
        clock[0] = at
        publish(store, one)
    with Repository.open(store) as repository:
        put_into_effect(repository, 2, sign_root(second, "root-a"), at=NOW + 20)
    expected = {NOW + 9: None, NOW + 10: NORTH, NOW + 29: NORTH, NOW + 30: newer}
    with Media(store) as media:
        for at, one in expected.items():
            evidence = EvidenceAsOf(media, at)
            assert evidence.missions() == ([] if one is None else [NORTH.id])
            if one is None:
                with pytest.raises(NotFound):
                    evidence.ref(NORTH.id)
            else:
                assert evidence.ref(NORTH.id) == f"{one.manifest_id}\n".encode()
        # Root 2 was begun at +5 and took effect at +20.
        for at, versions in ((NOW + 5, 0), (NOW + 19, 0), (NOW + 20, 1)):
            assert len(EvidenceAsOf(media, at).chain(1)) == versions
