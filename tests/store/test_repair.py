"""Repair: every damage that an audit names is mended from a replica, and nothing is made worse."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.fsck import FULL, Audit, Scope, fsck
from store.repair import Repaired, RepairPlan, plan_repair, repair
from store.repository import Repository
from tests.store.test_fsck import BOTH, CASES
from tests.support.stores import audit, check, copy_of, listing, make_store

# Damages that no replica of the same age can mend: nobody may say which bytes are right.
HOPELESS = {"empty draft", "empty pin", "pin of what is not there"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("made") / "store")


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return copy_of(made, tmp_path / "store")


def mend(store: Path, *replicas: Path, scope: Scope = FULL) -> Repaired:
    opened = [Repository.open(replica) for replica in replicas]
    try:
        return repair(store, scope, opened, audited=fsck, show=lambda _: None)
    finally:
        for one in opened:
            one.close()


def plan_of(store: Path, found: Audit, *replicas: Path) -> RepairPlan:
    opened = [Repository.open(replica) for replica in replicas]
    with Repository.open(store) as repository:
        plan = plan_repair(repository, found, opened)
    for one in opened:
        one.close()
    return plan


@pytest.mark.parametrize("name", CASES)
def test_every_damage_is_mended_from_a_replica(store: Path, made: Path, name: str) -> None:
    CASES[name].damage(store)
    replica = listing(made)
    before = listing(store)
    plan = plan_of(store, audit(store), made)
    assert listing(store) == before, "a plan writes nothing"
    done = mend(store, made)
    assert listing(made) == replica, "a replica is read, never written"
    if name in HOPELESS:
        assert plan.unsolved
        assert done.audit.errors
    else:
        assert [finding for finding in done.audit.findings if not finding.information] == []
        assert not plan.unsolved
    assert done.audit.missions == dict.fromkeys(BOTH, True)
    assert all(check(store, mission).go for mission in BOTH)
