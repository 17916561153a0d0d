"""A store as it was at an earlier time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from store.disk.media import Media
from store.errors import Corrupt, Invalid, NotFound
from store.ground.as_of import EvidenceAsOf, check_pinned, opened_then
from store.ground.repository import Repository
from store.ground.trust_chain import put_into_effect, rotate
from store.takeoff.mission import Binding
from store.takeoff.verify import verify_mission
from store.trust.root import MAX_STEPS
from tests.support.missions import NOW, ROOT, key, next_root, pinned, role, root_draft, sign_root
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


def test_what_flew_is_read_after_its_signer_was_revoked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the trust root of then; of a chain that is longer than a takeoff check follows, too."""
    store, clock, pilot = tmp_path / "store", [NOW], key("pilot").public
    monkeypatch.setattr(time, "time", lambda: float(clock[0]))
    with Repository.init(store) as repository:
        rotate(repository, root_draft(ROOT_FILE), now=NOW)
        root = ROOT
        for _ in range(MAX_STEPS + 2):
            root = next_root(root)
            put_into_effect(repository, root.version, sign_root(root, "root-a"), at=NOW)
    clock[0] = NOW + 10
    publish(store, NORTH)
    with Repository.open(store) as repository:
        last = next_root(root, mission=role("relief"), revoked=(pilot,), names=((pilot, "Pia"),))
        put_into_effect(repository, last.version, sign_root(last, "root-a"), at=NOW + 20)
        with pytest.raises(Corrupt, match="is revoked"):
            repository.current(NORTH.id)
        for at in (NOW + 10, NOW + 19):
            opened, evidence = opened_then(repository, NORTH.id, at)
            assert (opened.manifest_id, opened.signers) == (NORTH.manifest_id, (pilot.kid,))
            assert opened.trust_root == root
            assert evidence.object(opened.manifest_id, 2**20) == NORTH.signed
        with pytest.raises(Corrupt, match="is revoked"):
            opened_then(repository, NORTH.id, NOW + 20)
        with pytest.raises(NotFound) as caught:
            opened_then(repository, NORTH.id, NOW + 9)
        assert "ask about a later time" in caught.value.remedy
        with pytest.raises(NotFound) as caught:
            opened_then(repository, "noth-ridge", NOW + 19)
        assert caught.value.remedy.startswith(f"give {NORTH.id}, or ")
