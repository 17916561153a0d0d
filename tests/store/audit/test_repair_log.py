"""A log of several files: audited as one, and mended from the first damage on, with every part kept in quarantine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from store.audit.fsck import fsck
from store.audit.repair import Repaired, repair
from store.audit.scope import QUICK
from store.disk import log
from store.disk.durable import Disk
from store.disk.media import Media
from store.ground.gc import collect
from store.ground.repository import Repository
from tests.faults.disks import PowerCut, PowerFails, Recorded
from tests.support.missions import NOW
from tests.support.stores import NORTH, audit, check, copy_of, later, make_store, publish


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "LOG_LIMIT", 900)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "store", NORTH)
    for number in range(1, 8):
        publish(store, later(NORTH, number))
    assert (store / "log.2").exists()
    return store


def mend(store: Path, disk: Disk | None = None) -> Repaired:
    return repair(store, QUICK, [], audited=fsck, show=lambda _: None, disk=disk)


def events(store: Path) -> list[log.Event]:
    with Media(store) as media:
        return log.events(media)


def test_an_audit_and_a_collection_read_all_of_it(store: Path) -> None:
    assert not audit(store).errors
    assert [event.event for event in events(store)] == ["rotated", *["published"] * 8]
    with Repository.open(store) as repository:
        collect(repository, now=NOW * 2, grace=0)
    assert events(store)[-1].event == "collected"
    assert not audit(store).errors
    assert check(store, NORTH.id).go


def test_a_copy_that_lost_its_last_file_or_a_part(store: Path, tmp_path: Path) -> None:
    for name in ("log", "log.1"):
        copy = copy_of(store, tmp_path / name)
        (copy / name).unlink()
        assert {finding.kind for finding in audit(copy).findings if not finding.information} == {"bad-log"}
        assert not mend(copy).audit.errors
        assert check(copy, NORTH.id).go


def garble(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"event", b"evenT", 1) + b"".join(lines[2:]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


@pytest.mark.parametrize("damage", [garble, cut, Path.unlink])
@pytest.mark.parametrize("name", ["log.1", "log.2"])
def test_a_damaged_part(store: Path, name: str, damage: Callable[[Path], None]) -> None:
    before = events(store)
    damage(store / name)
    assert {finding.kind for finding in audit(store).findings if not finding.information} == {"bad-log"}
    assert not mend(store).audit.errors
    after = events(store)
    held = [event for event in after if event.event != "repaired"]
    assert held == before[: len(held)]
    assert after[-1].event == "repaired"
    aside = {path.name.split("-")[-1] for path in (store / "quarantine").rglob("*") if path.is_file()}
    assert aside >= ({"log.2"} if name == "log.1" else set()), "what is behind the damage is kept"
    assert "log" in aside
    assert check(store, NORTH.id).go
    publish(store, later(NORTH, 100))
    assert not audit(store).errors


def test_a_power_cut_within_a_repair(store: Path, tmp_path: Path) -> None:
    garble(store / "log.2")
    whole = events_before(store)
    counted = Recorded()
    mend(copy_of(store, tmp_path / "counted"), counted)
    for stop in range(0, len(counted.operations), 3):  # a third of them: all take long
        folder = copy_of(store, tmp_path / str(stop))
        with pytest.raises(PowerFails):
            mend(folder, PowerCut(stop))
        assert not mend(folder).audit.errors
        held = [event for event in events(folder) if event.event != "repaired"]
        assert held == whole, "no line that held is lost, whatever was cut short"


def events_before(store: Path) -> list[log.Event]:
    with Media(store) as media:
        return [event for event, _ in log.before_damage(media)]
