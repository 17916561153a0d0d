"""The key of an aircraft: made once, kept, for this user alone, and needed by no verdict."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from store.disk.durable import Disk
from store.disk.media import Media
from store.errors import Corrupt, FlightbagError, Invalid, NotFound, Unavailable
from store.takeoff.aircraft import check, consume, enrol, read_key, read_state
from store.takeoff.evidence import StoreEvidence
from store.trust.aircraft_state import AircraftState
from tests.faults.disks import PowerCut, PowerFails, Recorded, bad_sectors
from tests.support.missions import FACTS, NOW, ROOT, key, pinned
from tests.support.stores import NORTH, listing, make_store

STATE = AircraftState.initial("uav-07", "cpu-x86_64-avx2", pinned())


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(tmp_path / "state", STATE)
    return tmp_path / "state"


def test_it_is_for_this_user_alone_and_of_this_aircraft_alone(state: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE((state / "key").stat().st_mode) == 0o600
    enrol(tmp_path / "other", STATE)
    assert read_key(tmp_path / "other").public != read_key(state).public


def test_enrolling_again_keeps_it_in_any_domain(state: Path) -> None:
    before = read_key(state).public
    enrol(state, STATE, again=True)
    enrol(state, replace(STATE, root=pinned(replace(ROOT, salt=bytes(16)))), again=True)
    assert read_key(state).public == before


def _link(path: Path) -> None:
    path.parent.with_name("aside").write_bytes(key("thief").pem(None))
    path.symlink_to(path.parent.with_name("aside"))


# What lies in the place of the key.
LOST: dict[str, Callable[[Path], object]] = {
    "nothing": lambda path: None,
    "an empty file": lambda path: path.write_bytes(b""),
    "a torn file": lambda path: path.write_bytes(key("uav").pem(None)[:60]),
    "a public key": lambda path: path.write_bytes(key("uav").public.pem()),
    "an encrypted key": lambda path: path.write_bytes(key("uav").pem(b"four words or more")),
    "too large a file": lambda path: path.write_bytes(key("uav").pem(None) + bytes(2**20)),
    "a link": _link,
    "a fifo": os.mkfifo,
}


@pytest.mark.parametrize("name", LOST)
def test_without_it_flies_what_flew_and_enrolling_again_makes_another(state: Path, tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path / "store", NORTH)
    (state / "key").unlink()
    LOST[name](state / "key")
    with pytest.raises((NotFound, Corrupt)) as caught:
        read_key(state)
    assert "aircraft enrol --again" in caught.value.remedy
    assert str(state / "key") in caught.value.message
    with Media(store) as media:
        assert check(state, StoreEvidence(media), NORTH.id, now=NOW).go
    consume(state, FACTS.flight)
    enrol(state, STATE, again=True)
    assert read_key(state).public not in (key("thief").public, key("uav").public)
    assert stat.S_IMODE((state / "key").lstat().st_mode) == 0o600
    assert read_state(state).state.consumed == (FACTS.flight,)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("name", [name for name in LOST if name != "nothing"])
def test_a_file_of_somebody_in_a_folder_without_a_state_stays(tmp_path: Path, name: str, again: bool) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    LOST[name](folder / "key")
    before = listing(folder, but=("lock",))
    with pytest.raises(Invalid) as caught:
        enrol(folder, STATE, again=again)
    assert "give an empty folder" in caught.value.remedy
    assert listing(folder, but=("lock",)) == before


def test_one_that_cannot_be_read_now_is_not_replaced(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_key(state).public
    with monkeypatch.context() as patch:
        bad_sectors(patch, (state / "key").stat().st_ino)
        with pytest.raises(Unavailable):
            enrol(state, STATE, again=True)
    assert read_key(state).public == before


@pytest.mark.parametrize("again", [False, True])
def test_a_power_cut_at_any_operation(tmp_path: Path, again: bool) -> None:
    """A state has a key, the one that it had before if there was one; and no key is ever open to others."""

    def prepared(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        if again:
            shutil.copytree(tmp_path / "first", folder / "state")
        return folder / "state"

    if again:
        enrol(tmp_path / "first", STATE)
    counted = Recorded()
    enrol(prepared("counted"), STATE, again=again, disk=counted)
    assert len(counted.operations) > 8
    for stop in range(len(counted.operations)):
        folder = prepared(str(stop))
        with pytest.raises(PowerFails):
            enrol(folder, STATE, again=again, disk=PowerCut(stop))
        before = read_key(tmp_path / "first").public if again else None
        modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("key*")}
        assert modes <= {0o600}
        try:
            read_state(folder)
        except FlightbagError:
            pass
        else:
            before = before or read_key(folder).public
        try:
            enrol(folder, STATE, again=True, disk=Disk())
        except NotFound:
            enrol(folder, STATE, disk=Disk())
        assert before in (None, read_key(folder).public)
