"""What a trust root ends is told before it does, and is what the takeoff check says afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from store.format.withdrawal import of_mission
from store.ground import releases, withdrawals
from store.ground.ending import Ended, ended_by
from store.ground.issuing import issue, issuing
from store.ground.repository import Repository
from store.takeoff.check import takeoff_check
from store.trust.root import SignedRoot, TrustRoot
from tests.support.missions import ISSUE, NOW, ROOT, by, flight, key, next_root, role, sign_root
from tests.support.stores import NORTH, SOUTH, listing, make_store, publish

BOTH = replace(ROOT, mission=role("pilot", "co-pilot"))
OTHER = flight(SOUTH.contents, root=BOTH, by=["co-pilot"], mission=SOUTH.manifest.mission)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A mission by each of two keys, a release, a withdrawal by the first key, and a draft."""
    north = flight(root=BOTH)
    store = make_store(tmp_path / "store", north, OTHER, root=sign_root(BOTH, "root-a"))
    gone = flight(root=BOTH, by=["co-pilot"], mission=replace(NORTH.manifest.mission, id="gone"))
    publish(store, gone)
    approvals = [releases.Approval.of(one) for one in NORTH.table.entries if one.kind == "engine"]
    with Repository.open(store) as repository:
        data = releases.drafted("winter", "cpu-x86_64", approvals, now=NOW)
        releases.add(repository, releases.signed(data, BOTH, by(key("lab")))[0])
        withdrawals.begin(repository, of_mission("gone"), by(key("pilot")), reason="smoke", now=NOW)
        late = flight(root=BOTH, by=[], issue=replace(ISSUE, sequence=NOW))
        with issuing(repository, NORTH.id, "a test") as writer:
            issue(writer, late.manifest, late.table, [], BOTH, hold=True)
    return store


def ended(store: Path, root: TrustRoot) -> Ended:
    with Repository.open(store) as repository:
        before = listing(store)
        one = ended_by(repository, SignedRoot.parse(sign_root(root, "root-a")))
        assert listing(store) == before
    # What was said before is so afterwards.
    (store / "trust/2.root.cbor").write_bytes(sign_root(root, "root-a"))
    flies = {mission: check_by(store, mission) for mission in (NORTH.id, SOUTH.id)}
    assert flies == {mission: mission not in one.missions for mission in flies}
    return one


def check_by(store: Path, mission: str) -> bool:
    return takeoff_check(store, mission, trust=sign_root(BOTH, "root-a"), now=NOW).go


def test_a_revoked_key(store: Path) -> None:
    one = ended(store, next_root(BOTH, mission=role("co-pilot"), revoked=(key("pilot").public,)))
    assert list(one.missions) == [NORTH.id]
    assert "revoked" in one.missions[NORTH.id]
    assert list(one.withdrawals) == ["gone.mission"]
    assert (one.releases, one.results, one.drafts) == ({}, {}, (NORTH.id,))


def test_a_higher_threshold(store: Path) -> None:
    assert set(ended(store, next_root(BOTH, mission=role("pilot", "co-pilot", threshold=2))).missions) == {
        NORTH.id,
        SOUTH.id,
    }


def test_a_new_epoch(store: Path) -> None:
    one = ended(store, next_root(BOTH, epoch=2))
    assert set(one.missions) == {NORTH.id, SOUTH.id}, "and not `gone`, which flies nowhere already"
    assert one.releases == {}


def test_other_release_keys_and_a_shorter_lifetime(store: Path) -> None:
    one = ended(store, next_root(BOTH, release=role("lab-b"), max_lifetime=10))
    assert list(one.releases) == ["winter"]
    assert all("allows at most" in why for why in one.missions.values())


def test_nothing(store: Path) -> None:
    one = ended(store, next_root(BOTH))
    assert (one.missions, one.releases, one.withdrawals) == ({}, {}, {})


def test_the_first_root_of_a_store(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "new") as repository:
        assert ended_by(repository, SignedRoot.parse(sign_root(ROOT, "root-a"))) == Ended({}, {}, {}, {}, ())
