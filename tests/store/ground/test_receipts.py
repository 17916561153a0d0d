"""Receipts: who makes them and of what, how they travel, whose they are, and what is done to them."""

from __future__ import annotations

import errno
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.audit.fsck import fsck
from store.audit.repair import repair
from store.audit.scope import FULL, Scope
from store.disk.durable import Disk
from store.disk.layout import RECEIPTS
from store.disk.locks import Locked
from store.disk.media import FOLDER_LIMIT, Media
from store.errors import Corrupt, FlightbagError, Invalid, Refused, Unavailable, Untrusted
from store.findings import Finding
from store.format.ids import ObjectId
from store.format.receipt import Receipt
from store.ground import receipts
from store.ground.gc import collect
from store.ground.repository import Repository, SmallFile
from store.ground.sync import apply_sync, plan_sync
from store.takeoff.aircraft import check, enrol, prove, read_key, read_state
from store.takeoff.evidence import StoreEvidence
from store.takeoff.mission import Verdict
from store.takeoff.verify import verify_mission
from store.trust.aircraft_state import AircraftState
from store.trust.keys import PrivateKey
from store.trust.root import TrustRoot
from tests.faults.disks import Failing, Medium, Orderly, Tree, bad_sectors
from tests.support.missions import (
    BINDING,
    FACTS,
    ISSUE,
    NOW,
    PROBED,
    ROOT,
    UNPROVEN,
    evidence_of,
    flight,
    key,
    pinned,
    sign_root,
)
from tests.support.stores import NORTH, SOUTH, copy_of, listing, make_store
from tests.support.stores import check as takeoff

ID, HOST = "uav-07", "cpu-x86_64-avx2"
UAV = key("uav")
OTHER_ROOT = replace(ROOT, salt=bytes(16))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    enrol(tmp_path / "state", AircraftState.initial(ID, HOST, pinned()))
    return tmp_path / "state"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store", NORTH)


def go(state: Path, store: Path, now: int | None = NOW, mission: str = NORTH.id) -> Verdict:
    with Media(store) as media:
        return check(state, StoreEvidence(media), mission, now=now)


def a_receipt(signer: PrivateKey = UAV, *, aircraft: str | None = ID, **changes: Any) -> Receipt:
    """A receipt of NORTH."""
    verdict = verify_mission(evidence_of(NORTH), NORTH.id, pinned(), BINDING)
    return replace(receipts.of_check(verdict, signer.public), aircraft=aircraft, **changes)


def a_file(signer: PrivateKey = UAV, root: TrustRoot = ROOT, **changes: Any) -> SmallFile:
    return receipts.signed(a_receipt(signer, **changes), signer, root)


def put(store: Path, *files: SmallFile) -> None:
    """Puts files into a store as somebody does who has it in hand."""
    for file in files:
        (store / file.name).parent.mkdir(exist_ok=True)
        (store / file.name).write_bytes(file.data)


def errors(store: Path, scope: Scope = FULL) -> list[Finding]:
    with Media(store) as media:
        return [one for one in fsck(media, scope).findings if not one.information]


def named(data: bytes) -> SmallFile:
    return SmallFile(f"{RECEIPTS}/{ObjectId.of(data)}", data)


def in_folder(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / RECEIPTS).glob("*"))


def deliver(state: Path, store: Path, disk: Disk | None = None) -> int:
    with Repository.open(store, disk) as repository:
        return receipts.deliver(state, repository, read_state(state).state.root.root)


def kept(state: Path, store: Path, now: int | None = NOW) -> SmallFile:
    """The receipt of a GO, which the state keeps."""
    verdict, signer = go(state, store, now), read_key(state)
    file = receipts.signed(receipts.of_check(verdict, signer.public, read_state(state).state), signer, ROOT)
    receipts.keep(state, file)
    return file


def synced(source: Path, target: Path, *missions: str) -> list[str]:
    """The receipts that a sync brings."""
    with Repository.open(source) as one:
        there = Repository.open(target) if target.exists() else None
        plan = plan_sync(one, there, missions)
        apply_sync(plan, one, target)
        if there is not None:
            there.close()
    return sorted(file.name for file in plan.files)


class TestWhatItSays:
    def test_a_go_by_a_state(self, state: Path, store: Path) -> None:
        verdict, signer = go(state, store), read_key(state)
        assert verdict.mission is not None
        receipt = receipts.of_check(verdict, signer.public, read_state(state).state)
        assert (receipt.key, receipt.aircraft, receipt.flight) == (signer.public.raw, ID, FACTS.flight)
        assert (receipt.at, receipt.clock) == (NOW, "trusted")
        verified = receipt.verified
        assert verified is not None
        assert (verified.mission, verified.manifest, verified.root) == (NORTH.id, NORTH.manifest_id, 1)
        assert (verified.objects, verified.bytes_read, verified.host) == (verdict.objects, verdict.bytes, HOST)
        assert (verified.epoch, verified.sequence, verified.from_medium) == (1, ISSUE.sequence, False)
        assert receipts.parsed(receipts.signed(receipt, signer, ROOT).data, ROOT) == receipt

    def test_without_a_clock_the_time_is_the_latest_that_is_known(self, state: Path, store: Path) -> None:
        verdict = go(state, store, None)
        remembered = read_state(state).state
        receipt = receipts.of_check(verdict, UAV.public, remembered)
        assert (receipt.at, receipt.clock) == (remembered.floor, "known")
        later = replace(remembered, clock=NOW + 50)
        assert receipts.of_check(verdict, UAV.public, later).at == NOW + 50

    def test_the_proofs_on_which_the_go_rests(self, state: Path, tmp_path: Path) -> None:
        store = make_store(tmp_path / "probed", flight(PROBED, unproven=(UNPROVEN,)))
        figure = SimpleNamespace(name=UNPROVEN.name, value=UNPROVEN.least, recipe=UNPROVEN.recipe)
        with Media(store) as media:
            assert prove(state, StoreEvidence(media), NORTH.id, lambda _: [figure], now=NOW).held
        remembered = read_state(state).state
        more = replace(remembered, proofs=(bytes(32), *remembered.proofs))
        receipt = receipts.of_check(go(state, store), UAV.public, more)
        assert receipt.verified is not None
        assert receipt.verified.proofs == remembered.proofs != (), "and no other that the state has"

    def test_no_go_has_none(self, state: Path, store: Path) -> None:
        with pytest.raises(Refused):
            receipts.of_check(go(state, store, mission="nowhere"), UAV.public)

    def test_a_desk_names_no_aircraft(self, store: Path) -> None:
        receipt = receipts.of_check(takeoff(store, NORTH.id), key("pilot").public)
        assert receipt.aircraft is None
        assert receipt.verified is not None
        assert receipt.verified.host is None

    def test_a_flight(self, state: Path) -> None:
        receipt = receipts.of_flight(read_state(state).state, "f-1", UAV.public)
        assert (receipt.aircraft, receipt.flight, receipt.verified) == (ID, "f-1", None)
        assert (receipt.at, receipt.clock) == (read_state(state).state.floor, "known")


class TestItsWay:
    def test_from_the_state_to_the_stick_and_to_the_ground(self, state: Path, store: Path, tmp_path: Path) -> None:
        file = kept(state, store)
        assert in_folder(state) == [file.name.partition("/")[2]]
        assert deliver(state, store) == 1
        assert in_folder(state) == []
        assert in_folder(store) == [file.name.partition("/")[2]]
        assert deliver(state, store) == 0
        ground = make_store(tmp_path / "ground", NORTH)
        put(ground, mine := a_file(key("pilot"), aircraft=None))
        assert synced(store, ground) == [file.name]
        assert synced(ground, store) == [mine.name]
        assert in_folder(store) == in_folder(ground) == sorted(one.name.partition("/")[2] for one in (file, mine))
        assert synced(store, ground) == synced(ground, store) == []
        assert synced(ground, tmp_path / "new") == sorted([file.name, mine.name])
        assert (ground / file.name).read_bytes() == file.data

    def test_with_missions_named_none_travels(self, store: Path, tmp_path: Path) -> None:
        put(store, a_file())
        assert synced(store, tmp_path / "new", NORTH.id) == []

    def test_the_same_receipt_twice_is_one(self, state: Path, store: Path) -> None:
        first = kept(state, store, None)
        assert kept(state, store, None) == first
        assert (deliver(state, store), in_folder(store)) == (1, [first.name.partition("/")[2]])
        kept(state, store, None)
        assert (deliver(state, store), in_folder(state)) == (1, [])

    def test_a_store_that_cannot_be_written_leaves_it_in_the_state(
        self, state: Path, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = kept(state, store)
        stop, failed = 0, True
        while failed:
            failing = Failing(stop, errno.EROFS)
            with failing.installed(monkeypatch):
                try:
                    deliver(state, store, Orderly())
                except Unavailable:
                    assert failing.failed
            failed = bool(failing.failed)
            # Somewhere it is, whole, and what has its name has its bytes.
            places = [folder / file.name for folder in (state, store) if (folder / file.name).exists()]
            assert [path.read_bytes() for path in places] == [file.data] * len(places)
            assert places
            stop += 1
        assert stop > 8
        assert (in_folder(state), len(in_folder(store))) == ([], 1)
        assert errors(store) == []

    def test_no_power_cut_loses_it(self, state: Path, store: Path, tmp_path: Path) -> None:
        """From the moment at which it is kept it is in the state or in the store, whole, whatever the medium keeps."""
        file = a_file()
        seed = random.Random(5)

        def inside(tree: Tree, name: str) -> Tree:
            one = tree.get(name, {})
            assert isinstance(one, dict)
            return one

        begun: list[str] = []

        def visit(medium: Medium) -> None:
            for what, tree in medium.cuts(seed, subsets=4):
                places = []
                for folder in ("state", "store"):
                    files = inside(inside(tree, folder), RECEIPTS)
                    assert all(data == file.data for data in files.values()), what
                    places += list(files)
                assert places or not begun, (what, medium.operations[-3:])

        medium = Medium(tmp_path, visit)
        receipts.keep(state, file, medium)
        begun.append("from here on")
        assert deliver(state, store, medium) == 1
        visit(medium)
        assert len(medium.operations) > 15

    def test_a_power_cut_after_a_delivery_that_was_killed_loses_none(
        self, state: Path, store: Path, tmp_path: Path
    ) -> None:
        """A name that is visible in the store need not be durable there yet."""
        file = a_file()
        receipts.keep(state, file)

        class Killed(BaseException):
            pass

        def inside(tree: Tree, folder: str) -> list[object]:
            one = tree[folder]
            assert isinstance(one, dict)
            files = one.get(RECEIPTS, {})
            assert isinstance(files, dict)
            return list(files.values())

        def visit(medium: Medium) -> None:
            now = medium.operations[-1]
            if dying and now == f"sync-directory store/{RECEIPTS}" and (store / file.name).exists():
                raise Killed
            if not dying:
                for what, tree in medium.cuts(random.Random(5), subsets=4):
                    assert file.data in [data for one in ("state", "store") for data in inside(tree, one)], what

        dying = [True]
        medium = Medium(tmp_path, visit)
        with pytest.raises(Killed):
            deliver(state, store, medium)
        dying.clear()
        assert deliver(state, store, medium) == 1
        visit(medium)
        assert (in_folder(state), in_folder(store)) == ([], [file.name.partition("/")[2]])

    def test_those_of_another_domain_stay(self, state: Path, store: Path, tmp_path: Path) -> None:
        old = a_file(root=OTHER_ROOT)
        receipts.keep(state, old)
        new = kept(state, store)
        assert deliver(state, store) == 1
        assert in_folder(state) == [old.name.partition("/")[2]]
        assert in_folder(store) == [new.name.partition("/")[2]]
        kept(state, store)
        other = make_store(tmp_path / "other", flight(root=OTHER_ROOT), root=sign_root(OTHER_ROOT, "root-a"))
        with pytest.raises(Refused) as caught:
            deliver(state, other)
        assert caught.value.kind == "bad-trust-chain"
        assert len(in_folder(state)) == 2

    def test_a_damaged_one_stays_in_the_state_and_hinders_none(self, state: Path, store: Path) -> None:
        torn = a_file(flight="f-1")
        put(state, torn._replace(data=torn.data[:-1]))
        kept(state, store)
        assert deliver(state, store) == 1
        assert errors(store) == []

    def test_bounds(self, state: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = kept(state, store)
        monkeypatch.setattr(receipts, "MAX_KEPT", 1)
        with pytest.raises(Refused) as caught:
            receipts.keep(state, a_file(flight="f-1"))
        assert caught.value.kind == "too-many"
        monkeypatch.setattr(receipts, "MAX_RECEIPTS", 2)
        for number in range(3):
            put(store, a_file(flight=f"f-{number}"))
        with pytest.raises(Refused) as caught:
            deliver(state, store)
        assert (caught.value.kind, in_folder(state)) == ("too-many", [file.name.partition("/")[2]])
        assert len(synced(store, tmp_path / "new")) == 2
        # The remedies.
        shutil.rmtree(store / RECEIPTS)
        assert deliver(state, store) == 1
        receipts.keep(state, a_file(flight="f-1"))

    def test_a_collection_has_the_store_alone(self, state: Path, store: Path) -> None:
        kept(state, store)
        with Repository.open(store) as other, other.locked(alone=True), pytest.raises(Locked):
            deliver(state, store)
        assert deliver(state, store) == 1

    def test_a_collection_keeps_receipts_and_nothing_for_them(self, store: Path) -> None:
        put(store, a_file())
        before = in_folder(store)
        with Repository.open(store) as repository:
            collect(repository, now=time.time(), grace=0, keep_last=1)
        assert in_folder(store) == before


FORGED = a_file()


# What reading them answers, and more of them: tests/conformance/attacks_receipts.py.
ATTACKS: dict[str, Callable[[], bytes]] = {
    "signed by another key than it names": lambda: receipts.signed(a_receipt(UAV), key("thief"), ROOT).data,
    "replayed from another domain": lambda: a_file(root=OTHER_ROOT).data,
    "a bit of the payload": lambda: FORGED.data[:100] + bytes([FORGED.data[100] ^ 1]) + FORGED.data[101:],
    "empty": lambda: b"",
}


class TestAttacks:
    @pytest.mark.parametrize("name", ATTACKS)
    def test_it_is_found_travels_nowhere_and_is_nobodys(self, store: Path, tmp_path: Path, name: str) -> None:
        data = ATTACKS[name]()
        put(store, named(data))
        good = a_file(flight="f-1")
        put(store, good)
        with pytest.raises((Corrupt, Untrusted)):
            receipts.parsed(data, ROOT)
        self.is_refused(store, tmp_path, named(data).name, good)

    @pytest.mark.parametrize("name", ["renamed", "upper case", "a link", "a folder"])
    def test_what_lies_in_its_place(self, store: Path, tmp_path: Path, name: str) -> None:
        good = a_file(flight="f-1")
        put(store, good)
        place = store / RECEIPTS / ("AB" * 32 if name == "upper case" else "ab" * 32)
        if name == "a link":
            place.symlink_to(store / good.name)
        elif name == "a folder":
            place.mkdir()
        else:
            place.write_bytes(FORGED.data)
        self.is_refused(store, tmp_path, str(place.relative_to(store)), good)

    def is_refused(self, store: Path, tmp_path: Path, name: str, good: SmallFile) -> None:
        verdict = takeoff(store, NORTH.id)
        assert verdict.go, "nothing that flies rests on it"
        (finding,) = errors(store)
        assert finding.kind in ("bad-receipt", "wrong-type", "stray")
        assert (finding.path, finding.missions) == (str(store / name), ())
        assert finding.remedy
        assert synced(store, tmp_path / "target") == [good.name]
        with Repository.open(store) as repository:
            shown = receipts.overview(repository, {UAV.public.kid: ID})
            assert [one.receipt.flight for one in shown.verified] == ["f-1"]
        repair(store, FULL, [], audited=fsck, show=lambda _: None)
        assert errors(store) == []
        assert in_folder(store) == [good.name.partition("/")[2]]

    def test_the_folder_is_a_link(self, state: Path, store: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        file = kept(state, store)
        (store / RECEIPTS).symlink_to(outside)
        with pytest.raises(FlightbagError):
            deliver(state, store)
        assert (list(outside.iterdir()), in_folder(state)) == ([], [file.name.partition("/")[2]])
        assert synced(store, tmp_path / "target") == []

    def test_the_staging_is_a_link(self, state: Path, store: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        kept(state, store)
        shutil.rmtree(store / "tmp", ignore_errors=True)
        (store / "tmp").symlink_to(outside)
        with pytest.raises(FlightbagError):
            deliver(state, store)
        assert (list(outside.iterdir()), len(in_folder(state))) == ([], 1)

    def test_too_many(self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = Media.names

        def few(self: Media, name: str, most: int = FOLDER_LIMIT) -> list[str]:
            return real(self, name, 3 if name == RECEIPTS else most)

        monkeypatch.setattr(Media, "names", few)
        put(store, *(a_file(flight=f"f-{number}") for number in range(4)))
        assert takeoff(store, NORTH.id).go
        assert [one.kind for one in errors(store)] == ["too-many"]
        assert synced(store, tmp_path / "target") == []

    def test_a_bad_sector_is_no_reason_to_carry_less(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put(store, bad := a_file(), good := a_file(flight="f-1"))
        bad_sectors(monkeypatch, (store / bad.name).stat().st_ino)
        assert synced(store, tmp_path / "target") == [good.name]
        (finding,) = errors(store)
        assert (finding.kind, finding.path) == ("unreadable", str(store / bad.name))

    def test_receipts_of_a_stranger_are_no_finding_and_of_an_unknown(self, store: Path) -> None:
        put(store, a_file(key("stranger"), aircraft=ID))
        assert errors(store) == []
        assert errors(store, Scope(exclusive=True)) == []
        with Repository.open(store) as repository:
            (shown,) = receipts.overview(repository, {UAV.public.kid: ID}).verified
        assert shown.whose == ""

    def test_a_plain_copy_has_them(self, store: Path, tmp_path: Path) -> None:
        put(store, a_file())
        copy = copy_of(store, tmp_path / "copy")
        assert errors(copy) == []
        assert in_folder(copy) == in_folder(store)

    def test_looking_writes_nothing(self, store: Path) -> None:
        put(store, a_file())
        before = listing(store)
        with Repository.open(store) as repository:
            receipts.overview(repository, {})
        assert listing(store) == before


class TestWhose:
    FLEET: ClassVar = {UAV.public.kid: ID, key("desk").public.kid: "desk"}

    @pytest.mark.parametrize(
        ("signer", "aircraft", "name"),
        [
            ("uav", ID, ID),
            ("uav", "uav-08", ""),
            ("uav", None, ID),
            ("uav-08", ID, ""),
            ("desk", None, "desk"),
            ("pilot", None, key("pilot").public.kid.hex()[:12]),
            ("lab", None, key("lab").public.kid.hex()[:12]),
            ("pilot", ID, ""),
            ("stranger", None, ""),
        ],
    )
    def test_a_name_rests_on_the_readers_list_and_the_root(self, signer: str, aircraft: str | None, name: str) -> None:
        assert receipts.whose(a_receipt(key(signer), aircraft=aircraft), ROOT, self.FLEET) == name

    def test_a_revoked_key_is_an_unknown(self) -> None:
        root = replace(
            ROOT, mission=replace(ROOT.mission, keys=(key("co-pilot").public,)), revoked=(key("pilot").public,)
        )
        assert receipts.whose(a_receipt(key("pilot"), aircraft=None), root, {}) == ""

    def test_the_newest_by_aircraft_and_mission(self, store: Path) -> None:
        verified = a_receipt().verified
        assert verified is not None
        newer = replace(verified, sequence=verified.sequence + 1)
        south = replace(verified, mission=SOUTH.id)
        put(
            store,
            a_file(at=NOW + 9),
            a_file(at=NOW, verified=newer),
            a_file(at=NOW - 1, verified=newer),
            a_file(verified=south),
            a_file(key("uav-08"), aircraft="uav-08"),
            a_file(flight="f-1", verified=None),
            a_file(flight="f-2", verified=None),
            a_file(flight="f-2", verified=None, at=NOW + 1),
        )
        with Repository.open(store) as repository:
            shown = receipts.overview(repository, {UAV.public.kid: ID})
        assert [(one.whose, one.receipt.at, one.receipt.verified) for one in shown.verified] == [
            (ID, NOW, newer),
            (ID, NOW, south),
            ("", NOW, verified),
        ]
        # SOUTH is not in this store.
        assert [one.current for one in shown.verified] == [True, False, True]
        assert [(one.whose, one.receipt.flight, one.receipt.at) for one in shown.flown] == [
            (ID, "f-1", NOW),
            (ID, "f-2", NOW + 1),
        ]
        assert shown.refused == ()

    def test_a_list_of_keys(self) -> None:
        kid = UAV.public.kid.hex()
        text = f"# our aircraft\n\n{kid} uav-07\r\n  {'ab' * 32}\tuav-07  \n{kid} uav-07\n"
        assert receipts.read_fleet(text.encode()) == {UAV.public.kid: "uav-07", b"\xab" * 32: "uav-07"}

    @pytest.mark.parametrize(
        ("line", "word"),
        [
            (b"uav-07", "line 2"),
            (b"ab uav-07", "line 2"),
            (b"AB" * 32 + b" uav-07", "line 2"),
            (b"ab" * 32, "line 2"),
            (b"ab" * 32 + b" UAV 07", "line 2"),
            (b"ab" * 32 + b" ../x", "line 2"),
            (b"\xff" * 64 + b" uav-07", "line 2"),
            (UAV.public.kid.hex().encode() + b" uav-08", "a second id"),
        ],
    )
    def test_a_list_that_is_none(self, line: bytes, word: str) -> None:
        with pytest.raises(Invalid) as caught:
            receipts.read_fleet(UAV.public.kid.hex().encode() + b" uav-07\n" + line)
        assert word in caught.value.message
        assert caught.value.remedy

    @given(st.binary(max_size=300))
    def test_any_other_file_is_refused_or_empty(self, data: bytes) -> None:
        with suppress(Invalid):
            assert all(len(kid) == 32 for kid in receipts.read_fleet(data))


@given(at=st.integers(0, len(FORGED.data) - 1), bit=st.integers(0, 7))
def test_no_bit_of_a_receipt_can_change(at: int, bit: int) -> None:
    changed = FORGED.data[:at] + bytes([FORGED.data[at] ^ 1 << bit]) + FORGED.data[at + 1 :]
    with pytest.raises((Corrupt, Untrusted)):
        receipts.parsed(changed, ROOT)
