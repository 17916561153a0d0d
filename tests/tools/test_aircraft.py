"""The commands for an aircraft's state: enrol, consume, show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.commands import flightbag
from tests.support.missions import FACTS, ROOT, sign_root
from tests.support.stores import NORTH, ROOT_FILE, make_store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a store, a pinned root, and the state of an aircraft that has accepted the store's mission."""
    make_store(tmp_path / "store", NORTH)
    (tmp_path / "pinned.root.cbor").write_bytes(ROOT_FILE)
    assert enrol(tmp_path)[0] == 0
    assert flightbag("verify", tmp_path / "store", "--state", tmp_path / "state").status == 0
    return tmp_path


def enrol(folder: Path, *more: str, id_: str = "uav-07") -> tuple[int, str, str]:
    words = ("--id", id_, "--host", "cpu-x86_64-avx2", "--trust", folder / "pinned.root.cbor")
    ran = flightbag("aircraft", "enrol", "--state", folder / "state", *words, *more)
    return ran.status, ran.out, ran.err


def test_a_mistyped_flight_is_refused_with_the_nearest(folder: Path) -> None:
    ran = flightbag("aircraft", "consume", "2026-11-23-10", "--state", folder / "state")
    assert ran.status == 1
    assert "uav-07 has had no GO for the flight 2026-11-23-10" in ran.err
    assert f"nearest first: {FACTS.flight}" in ran.err
    assert flightbag("verify", folder / "store", "--state", folder / "state").status == 0


def test_a_flight_is_consumed_once(folder: Path) -> None:
    shown = flightbag("aircraft", "show", "--state", folder / "state", "--json").json
    assert (shown["accepted"], shown["consumed"]) == ([FACTS.flight], [])
    consume = ("aircraft", "consume", FACTS.flight, "--state", folder / "state")
    assert flightbag(*consume).out == f"consumed {FACTS.flight}\n"
    assert flightbag(*consume).out == f"{FACTS.flight} was consumed before\n"
    assert flightbag(*consume, "--json").own == {"consumed": FACTS.flight, "before": True}
    shown = flightbag("aircraft", "show", "--state", folder / "state", "--json").json
    assert (shown["accepted"], shown["consumed"]) == ([], [FACTS.flight])


def test_a_root_that_lies_in_a_store_is_no_pin(folder: Path) -> None:
    """The store that the aircraft is to judge would vouch for itself."""
    store = make_store(folder / "ground")
    (folder / "link").symlink_to(store / "trust/1.root.cbor")
    for root in (store / "trust/1.root.cbor", folder / "link"):
        words = ("--id", "uav-08", "--host", "cpu-x86_64", "--trust", root)
        ran = flightbag("aircraft", "enrol", "--state", folder / "new", *words)
        assert (ran.status, "lies inside" in ran.err) == (2, True), ran.err
        assert not (folder / "new").exists()


def test_enrolled_again(folder: Path) -> None:
    flightbag("aircraft", "consume", FACTS.flight, "--state", folder / "state")
    assert enrol(folder)[0] == 1, "without --again"
    assert enrol(folder, "--again", id_="uav-08")[0] == 1
    status, out, err = enrol(folder, "--again")
    assert (status, err) == (0, "")
    assert "keeps 1 mission, 1 flight flown, 0 accepted and not flown" in out
    assert "consumed-flight" in flightbag("verify", folder / "store", "--state", folder / "state").out
    for slot in ("a", "b"):
        (folder / "state" / slot).write_bytes(b"torn")
    status, out, err = enrol(folder, "--again")
    assert status == 0
    assert "the flights that it had consumed are forgotten" in err
    assert "keeps" not in out


def test_enrolled_again_in_another_trust_domain_says_what_is_forgotten(folder: Path) -> None:
    (folder / "pinned.root.cbor").write_bytes(sign_root(replace(ROOT, salt=bytes(16)), "root-a"))
    status, _, err = enrol(folder, "--again")
    assert status == 0
    assert 'the state was of the trust domain "ridge fleet"' in err
    assert "its trust root 1 and 1 mission are forgotten" in err
