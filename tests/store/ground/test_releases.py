"""Releases of a store: added by name, kept by collections, found by what they approve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Conflict, Invalid, Unavailable, Untrusted
from store.format.release import Approval
from store.ground import releases
from store.ground.gc import collect
from store.ground.repository import Repository
from tests.faults.disks import bad_sectors
from tests.support.missions import NOW, ROOT, by, key
from tests.support.stores import ENGINE, NORTH, audit, file_of, flip, make_store

APPROVAL = Approval.of(NORTH.entry(ENGINE))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def test_a_release_is_known_by_its_name_and_kept(store: Path) -> None:
    data, count = releases.signed(releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=NOW), ROOT, by(key("lab")))
    assert count == 1
    with Repository.open(store) as repository:
        id_ = releases.add(repository, data)
        assert releases.add(repository, data) == id_
        assert releases.listed(repository) == {"winter": id_}
        collect(repository, now=NOW + 10**9, keep_last=1)
        assert releases.approving(repository, ROOT, [APPROVAL]) == ((id_,), ())
        other = replace(APPROVAL, size=1)
        assert releases.approving(repository, ROOT, [APPROVAL, other]) == ((id_,), (other,))
    assert not [one for one in audit(store).findings if not one.information]


def test_another_of_the_same_name(store: Path) -> None:
    with Repository.open(store) as repository:
        for now, expected in ((NOW, None), (NOW + 1, Conflict)):
            made = releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=now)
            data, _ = releases.signed(made, ROOT, by(key("lab")))
            if expected is None:
                releases.add(repository, data)
                continue
            with pytest.raises(expected):
                releases.add(repository, data)


def test_the_last_one_of_several_is_relied_on(store: Path) -> None:
    with Repository.open(store) as repository:
        for number in range(3):
            made = releases.drafted(f"r{number}", "cpu-x86_64", [APPROVAL], now=NOW + number)
            last = releases.add(repository, releases.signed(made, ROOT, by(key("lab")))[0])
        assert releases.approving(repository, ROOT, [APPROVAL]) == ((last,), ())


def test_a_release_that_cannot_be_read_is_not_taken_for_none(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It might approve what lacks an approval; and it might be the valid one whose name is taken."""
    data, other = (
        releases.signed(releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=now), ROOT, by(key("lab")))[0]
        for now in (NOW, NOW + 1)
    )
    with Repository.open(store) as repository:
        id_ = releases.add(repository, data)
        with monkeypatch.context() as patch:
            bad_sectors(patch, file_of(store, id_).stat().st_ino)
            with pytest.raises(Unavailable):
                releases.approving(repository, ROOT, [APPROVAL])
            with pytest.raises(Unavailable):
                releases.add(repository, other)
        flip(file_of(store, id_))
        assert releases.approving(repository, ROOT, [APPROVAL]) == ((), (APPROVAL,)), "what is damaged approves nothing"
        new = releases.add(repository, other)
        assert releases.approving(repository, ROOT, [APPROVAL]) == ((new,), ())


def test_a_name_that_no_release_can_have_is_passed_over(store: Path) -> None:
    with Repository.open(store) as repository:
        made = releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=NOW)
        id_ = releases.add(repository, releases.signed(made, ROOT, by(key("lab")))[0])
        for name, content in (("Winter", f"{id_}\n"), (".part", f"{id_}\n"), ("short", f"{id_}"[:-1] + "\n")):
            (store / "trust/releases" / name).write_text(content)
        assert releases.listed(repository) == {"winter": id_}


def test_unsigned(store: Path) -> None:
    with Repository.open(store) as repository, pytest.raises(Untrusted):
        releases.add(repository, releases.drafted("winter", "cpu-x86_64", [APPROVAL], now=NOW))
    assert audit(store).findings == ()


@pytest.mark.parametrize(
    ("name", "host", "approvals"),
    [
        ("Winter", "cpu", [APPROVAL]),
        ("winter", "b+a", [APPROVAL]),
        ("winter", "cpu-aarch64", [APPROVAL]),
        ("w", "cpu", []),
    ],
)
def test_what_cannot_be(name: str, host: str, approvals: list[Approval]) -> None:
    with pytest.raises(Invalid):
        releases.drafted(name, host, approvals, now=NOW)
