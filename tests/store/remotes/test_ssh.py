"""Stores on another machine: a real sshd on loopback, real rsync on both sides."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.ground.repository import Repository
from store.ground.sync import SyncPlan, plan_sync
from store.remotes.mirror import apply_push, mirrored, plan_push
from store.remotes.place import Host, place_of
from store.remotes.ssh import Ssh, apply_pull, connected
from tests.support.sshd import Sshd, needs_sshd, running
from tests.support.stores import NORTH, SOUTH, audit, check, later, listing, make_store, publish

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(autouse=True)
def _client(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", sshd.path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_store(tmp_path / "source")


def host(path: Path | str) -> Host:
    place = place_of(f"hangar:{path}")
    assert isinstance(place, Host)
    return place


def push(source: Path, target: Path, *missions: str, checksum: bool = False) -> SyncPlan:
    with Repository.open(source) as repository, connected(host(target), "tests", interactive=False) as ssh:
        with mirrored(ssh, repository.media, missions) as mirror:
            plan = plan_push(repository, mirror, missions, checksum=checksum)
            apply_push(plan, repository, mirror, lambda _: None)
            ssh.tidy()
    return plan


def pull(source: Path, target: Path, *missions: str) -> SyncPlan:
    with connected(host(source), "tests", interactive=False) as ssh, mirrored(ssh, None, missions) as mirror:
        with mirror.opened() as repository:
            assert repository is not None
            if (target / "flightbag.toml").exists():
                with Repository.open(target) as present:
                    plan = plan_sync(repository, present, missions)
            else:
                plan = plan_sync(repository, None, missions)
        apply_pull(plan, mirror, ssh, str(target), lambda _: None)
    return plan


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    assert len(push(source, there).moves) == 2
    assert audit(there).findings == ()
    assert all(check(there, one.id).go for one in (NORTH, SOUTH))
    before = listing(there)
    plan = push(source, there)
    assert (plan.missing, plan.unchanged) == ((), (NORTH.id, SOUTH.id))
    assert listing(there) == before
    pull(there, back)
    assert audit(back).findings == ()
    assert all(check(back, one.id).go for one in (NORTH, SOUTH))
    publish(there, later(NORTH))
    assert [move.mission for move in pull(there, back).moves] == [NORTH.id]
    assert check(back, NORTH.id).go
