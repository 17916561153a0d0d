"""The takeoff check of a folder without an aircraft's state: what is asked is judged, and the rest is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.disk import media
from store.disk.medium import Medium
from store.errors import Invalid, NoStore, Untrusted
from store.takeoff.check import takeoff_check
from tests.support.missions import NOW, flight, write_store
from tests.support.stores import ROOT_FILE

GOOD = flight()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "store"
    write_store(path, GOOD)
    return path


def test_each_fact_has_its_place(store: Path) -> None:
    verdict = takeoff_check(store, GOOD.id, trust=ROOT_FILE, now=NOW, aircraft="uav-08", host="cpu-x86_64-avx2")
    assert (verdict.go, verdict.judged_at, verdict.not_judged) == (True, NOW, ("flight", "rollback"))
    other = takeoff_check(store, GOOD.id, trust=ROOT_FILE, now=NOW + 10**6, aircraft="uav-99", host="cpu-aarch64")
    assert {finding.kind for finding in other.findings} == {"expired", "wrong-aircraft", "wrong-host"}
    silent = takeoff_check(store, GOOD.id, trust=ROOT_FILE, now=None)
    assert silent.go
    assert silent.not_judged[:4] == ("aircraft", "host class", "flight", "rollback")


def test_what_is_refused_before_anything_is_read(store: Path) -> None:
    for host in ("", "banana", "cpu+ort>=1.22"):
        with pytest.raises(Invalid):
            takeoff_check("nowhere", GOOD.id, trust=ROOT_FILE, now=NOW, host=host)
    with pytest.raises(NoStore):
        takeoff_check("nowhere", GOOD.id, trust=ROOT_FILE, now=NOW)
    with pytest.raises(Untrusted):
        takeoff_check(store, GOOD.id, trust=b"", now=NOW)


def test_a_medium_that_can_be_taken_out_is_read_past_the_cache(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for removable in (True, False):
        monkeypatch.setattr(media, "medium_of", lambda _, removable=removable: Medium(removable))
        assert takeoff_check(store, GOOD.id, trust=ROOT_FILE, now=NOW).from_medium is removable
