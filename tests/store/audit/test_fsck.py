"""The audit: each damage gives one finding, of its kind, with the missions that it grounds; and writes nothing."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from store.audit.fsck import Audit, fsck
from store.audit.ledger import Ledger
from store.audit.scope import FULL, QUICK, Scope
from store.disk import log
from store.disk.index import Row
from store.disk.media import FileStamp, Media
from store.errors import Corrupt, Invalid, NoStore, Unavailable
from store.format.entries import EntryTable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from store.takeoff.evidence import MAX_ROOTS
from tests.faults.damages import BOTH, CASES, OWN, SHARED, Case, names_of, plant, publish_by_hand, ref
from tests.faults.disks import bad_sectors
from tests.support.missions import FACTS, ISSUE, NOW, PROBED, ROOT, UNPROVEN, Flight, flight, sign_root
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    SOUTH,
    audit,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)


def assert_one(found: Audit, case: Case) -> None:
    assert names_of(case, (finding.kind for finding in found.findings)) == [case.kind], found.findings
    told = [finding for finding in found.findings if finding.kind == case.kind]
    assert told[0].missions == case.grounds
    assert told[0].information == case.information
    assert told[0].unreadable == found.inconclusive == (case.kind == "unreadable")
    assert found.errors == (not case.information and case.kind != "unreadable")


@pytest.mark.parametrize("full", [False, True], ids=["quick", "full"])
@pytest.mark.parametrize("name", CASES)
def test_one_damage_is_one_finding(store: Path, monkeypatch: pytest.MonkeyPatch, name: str, full: bool) -> None:
    case = CASES[name]
    case.damage(store)
    before = listing(store)
    case.medium(monkeypatch, store)
    found = audit(store, full=full)
    assert listing(store) == before, "an audit writes nothing"
    if full or case.quick:
        assert_one(found, case)
        if not name.startswith("missions"):
            whole = "flyable" if full else "not-read"
            assert found.missions == {mission: "grounded" if mission in case.grounds else whole for mission in BOTH}
    else:
        assert not found.findings
    json.dumps([finding.as_json() for finding in found.findings]).encode()


def test_a_whole_store_is_clean(first_store: Path) -> None:
    before = listing(first_store)
    for full in (False, True):
        found = audit(first_store, full=full)
        assert found.findings == ()
        assert found.missions == dict.fromkeys(BOTH, "flyable" if full else "not-read")
        files = list((first_store / "objects").glob("*/*"))
        assert (found.objects, found.bytes) == (len(files), sum(file.stat().st_size for file in files))
    assert listing(first_store) == before


def closure_of(mission: Flight) -> set[ObjectId]:
    manifest = mission.manifest
    return {mission.manifest_id, manifest.table, *manifest.releases, *(entry.id for entry in mission.table.entries)}


def test_flyable_is_a_mission_whose_every_object_was_read(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a budget of one more object each time, from one to all. The ledger says which ones were read."""
    monkeypatch.setattr("store.audit.fsck._CHUNK_OBJECTS", 1)
    flip(file_of(store, NORTH.entry(CAMERA).id))
    whole = audit(store, full=False).objects
    states = set()
    for seconds in range(1, whole + 1):
        with Ledger(tmp_path / f"ledger-{seconds}") as ledger, Media(store) as media:
            found = fsck(media, Scope("budget", seconds), ledger=ledger, clock=map(float, itertools.count()).__next__)
            read = {
                id_
                for first in range(256)
                for id_ in ledger.read_at(first, {i: FileStamp.of(status) for i, status in media.objects(first)})
            }
        assert (found.read_objects, found.unread) == (seconds, whole - seconds)
        assert found.missions == {
            NORTH.id: "grounded" if found.errors else "not-read",
            SOUTH.id: "flyable" if closure_of(SOUTH) <= read else "not-read",
        }
        states |= {*found.missions.items()}
    assert len(states) == 4, "each state is met on the way"


def test_an_object_that_two_missions_give_two_sizes_is_read_by_neither(store: Path) -> None:
    """It is not read, as its size is wrong for one of them: the other mission is not flyable either."""
    table = EntryTable(tuple(replace(e, size=e.size + 1) if e.name == CAMERA else e for e in NORTH.table.entries))
    other = flight(table=table, mission=replace(NORTH.manifest.mission, id="other", flight="2026-11-23-09"))
    publish_by_hand(store, other)
    (store / "missions" / "other").write_text(f"{other.manifest_id}\n")
    (store / "missions" / NORTH.id).write_text(f"{NORTH.manifest_id}\n")
    found = audit(store)
    assert found.missions == {"other": "grounded", NORTH.id: "not-read", SOUTH.id: "flyable"}


def test_a_new_store_is_clean(tmp_path: Path) -> None:
    Repository.init(tmp_path / "store").close()
    assert audit(tmp_path / "store").findings == ()


def test_progress_tells_every_byte_of_a_full_audit(first_store: Path) -> None:
    told: list[tuple[int, int]] = []
    with Media(first_store) as media:
        found = fsck(media, FULL, progress=lambda done, total: told.append((done, total)))
    assert sum(done for done, _ in told) >= found.bytes
    assert told[-1][1] == found.bytes


def test_three_damages_are_three_findings(store: Path) -> None:
    file_of(store, OWN).unlink()
    flip(file_of(store, SHARED))
    (store / "notes.txt").write_bytes(b"")
    assert sorted(finding.kind for finding in audit(store).findings) == ["bit-flip", "missing", "stray"]


def test_a_finding_says_object_entries_and_sizes(store: Path) -> None:
    overwrite(file_of(store, SHARED), lambda data: data[:-1])
    (finding,) = audit(store).findings
    size = NORTH.entry(ENGINE).size
    assert (finding.object, finding.entry) == (str(SHARED), ENGINE)
    assert (finding.expected, finding.actual) == (str(size), str(size - 1))
    assert finding.path == str(file_of(store, SHARED))
    assert finding.remedy


def test_both_missions_of_a_damaged_shared_table_are_grounded_by_one_finding(tmp_path: Path) -> None:
    """The table is read for each of them, and told of once."""
    twin = flight(NORTH.contents, mission=SOUTH.manifest.mission)
    store = make_store(tmp_path / "store", NORTH, twin)
    flip(file_of(store, NORTH.manifest.table), 5)
    (finding,) = audit(store).findings
    assert (finding.kind, finding.missions) == ("bit-flip", BOTH)


def test_a_bad_object_of_no_mission_is_found_by_a_full_audit(store: Path) -> None:
    path = plant(store, str(file_of(Path(), ObjectId.of(b"lone"))), b"lone")
    flip(path)
    found = audit(store)
    assert sorted((finding.kind, finding.missions) for finding in found.findings) == [
        ("bit-flip", ()),
        ("unreferenced", ()),
    ]
    assert found.missions == dict.fromkeys(BOTH, "flyable")


def test_unreferenced_is_not_told_while_a_closure_is_unknown(store: Path) -> None:
    plant(store, str(file_of(Path(), ObjectId.of(b"lone"))), b"lone")
    flip(file_of(store, NORTH.manifest_id), 50)
    assert [finding.kind for finding in audit(store).findings] == ["bit-flip"]


def test_a_manifest_before_the_last_two_is_unreferenced(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    publish(store, later(NORTH))
    assert audit(store).findings == ()
    publish(store, later(NORTH, 2))
    (finding,) = audit(store).findings
    assert (finding.kind, finding.object, finding.information) == ("unreferenced", str(NORTH.manifest_id), True)


def test_a_release_that_is_missing(store: Path) -> None:
    new = flight(releases=(ObjectId.of(b"release"),), issue=replace(ISSUE, sequence=ISSUE.sequence + 1))
    publish_by_hand(store, new)
    with Repository.open(store) as repository:
        facts = {"mission": NORTH.id, "manifest": str(new.manifest_id), "sequence": new.manifest.issue.sequence}
        repository.append_log(log.Event(NOW, "published", facts))
    found = [finding for finding in audit(store).findings if not finding.information]
    assert [(finding.kind, finding.entry, finding.missions) for finding in found] == [
        ("missing", "release", (NORTH.id,))
    ]


class TestIndex:
    def test_index_only(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        with Repository.open(store) as repository, writing(repository) as writer:
            writer.index.commit(objects={ObjectId.of(b"gone"): Row(4, 1, 1, 1, 1, 1)})
        (finding,) = audit(store).findings
        assert (finding.kind, finding.object) == ("index-only", str(ObjectId.of(b"gone")))
        assert finding.information

    def test_file_only(self, tmp_path: Path) -> None:
        """Objects that came by sync or copying, which the index has not seen yet."""
        store = make_store(tmp_path / "store")
        aside = tmp_path / "aside"
        path = file_of(store, OWN)
        path.rename(aside)
        shutil.rmtree(store / "index")
        with Repository.open(store) as repository, writing(repository):
            pass
        path.parent.mkdir(exist_ok=True)
        aside.rename(path)
        (finding,) = audit(store).findings
        assert (finding.kind, finding.object, finding.information) == ("file-only", str(OWN), True)

    def test_a_missing_object_is_told_once_although_the_index_has_it(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        file_of(store, OWN).unlink()
        assert [finding.kind for finding in audit(store).findings] == ["missing"]

    def test_a_damaged_index_is_no_finding(self, tmp_path: Path) -> None:
        """Nothing depends on it, and it is made again."""
        store = make_store(tmp_path / "store")
        (store / "index" / "data.mdb").write_bytes(b"noise" * 1000)
        assert audit(store).findings == ()


class TestUnreadable:
    """What cannot be read makes the audit inconclusive; it is neither clean nor an error."""

    def refuse(self, monkeypatch: pytest.MonkeyPatch, call: str, *inodes: int) -> None:
        real = getattr(os, call)

        def refusing(first: object, *arguments: object, **options: object) -> object:
            status = os.fstat(first) if isinstance(first, int) else None
            if status is not None and status.st_ino in inodes:
                raise OSError(errno.EIO, "Input/output error")
            return real(first, *arguments, **options)

        monkeypatch.setattr(os, call, refusing)

    def check(self, found: Audit, *grounded: str) -> None:
        assert [(finding.kind, finding.unreadable, finding.missions) for finding in found.findings] == [
            ("unreadable", True, grounded)
        ], found.findings
        assert found.inconclusive
        assert not found.errors
        assert found.missions == {mission: "grounded" if mission in grounded else "flyable" for mission in BOTH}

    def test_an_artifact(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, file_of(store, SHARED).stat().st_ino)
        self.check(audit(store), *BOTH)
        assert audit(store, full=False).findings == ()

    def test_a_manifest(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, file_of(store, NORTH.manifest_id).stat().st_ino)
        self.check(audit(store), NORTH.id)

    def test_a_table(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, file_of(store, NORTH.manifest.table).stat().st_ino)
        self.check(audit(store), NORTH.id)

    def test_a_ref(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, ref(store).stat().st_ino)
        self.check(audit(store), NORTH.id)

    def test_a_root_file(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, (store / "trust" / "1.root.cbor").stat().st_ino)
        self.check(audit(store), *BOTH)

    def test_the_log(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bad_sectors(monkeypatch, (store / "log").stat().st_ino)
        self.check(audit(store))

    def test_a_shard_folder_is_not_a_hundred_missing_objects(
        self, store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The objects in it can still be opened by name, so nothing else is wrong; but nobody knows what lies there."""
        self.refuse(monkeypatch, "scandir", file_of(store, SHARED).parent.stat().st_ino)
        self.check(audit(store), *BOTH)

    def test_the_status_of_an_object(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.stat

        def refusing(path: object, **options: object) -> os.stat_result:
            if path == file_of(store, OWN).name:
                raise OSError(errno.EIO, "Input/output error")
            return real(path, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(os, "stat", refusing)
        self.check(audit(store), NORTH.id)

    def test_a_top_level_that_cannot_be_listed(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuse(monkeypatch, "scandir", store.stat().st_ino)
        with pytest.raises(Unavailable):
            audit(store)


class TestCounts:
    """What was read is what was hashed from the first byte to the last, whatever sizes a medium claims."""

    SCOPES = (FULL, Scope("sample", 1), Scope("budget", 600), Scope("full", mission=NORTH.id))

    def read(self, store: Path, scope: Scope) -> tuple[int, int, int]:
        with Media(store) as media:
            found = fsck(media, scope)
        return found.read_objects, found.read_bytes, found.unread

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_what_cannot_be_read_was_not_read(self, store: Path, monkeypatch: pytest.MonkeyPatch, scope: Scope) -> None:
        objects, size, _ = self.read(store, scope)
        path = file_of(store, SHARED)
        bad_sectors(monkeypatch, path.stat().st_ino)
        assert self.read(store, scope) == (objects - 1, size - path.stat().st_size, 0)

    @pytest.mark.parametrize("scope", SCOPES[:3], ids=str)
    def test_terabytes_that_nobody_can_read_are_not_read(
        self, store: Path, monkeypatch: pytest.MonkeyPatch, scope: Scope
    ) -> None:
        objects, size, _ = self.read(store, scope)
        lie = file_of(store, ObjectId(b"\x07" * 32))
        lie.parent.mkdir(exist_ok=True)
        with lie.open("wb") as file:
            file.truncate(8 * 10**12)
        bad_sectors(monkeypatch, lie.stat().st_ino)
        assert self.read(store, scope) == (objects, size, 0)

    @pytest.mark.parametrize("scope", SCOPES, ids=str)
    def test_what_was_hashed_and_is_wrong_was_read(self, store: Path, scope: Scope) -> None:
        before = self.read(store, scope)
        flip(file_of(store, SHARED))
        assert self.read(store, scope) == before

    def test_what_shrinks_while_it_is_read_was_not_read(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        objects, size, _ = self.read(store, FULL)
        real, path = Media.digest, file_of(store, SHARED)
        before = path.stat().st_size

        def shrinking(self: Media, id_: ObjectId, size: int, **options: object) -> FileStamp:
            if id_ == SHARED:
                path.chmod(0o644)
                os.truncate(path, 3)
            return real(self, id_, size, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Media, "digest", shrinking)
        assert self.read(store, FULL) == (objects - 1, size - before, 0)

    def test_a_quick_audit_read_none(self, store: Path) -> None:
        with Media(store) as media:
            found = fsck(media, QUICK)
        assert (found.read_objects, found.read_bytes, found.unread) == (0, 0, found.objects)


class TestNoStore:
    def test_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(NoStore):
            audit(tmp_path)

    def test_another_format(self, store: Path) -> None:
        overwrite(store / "flightbag.toml", lambda data: data.replace(b"format = 1", b"format = 2"))
        with pytest.raises(NoStore):
            audit(store)

    def test_a_torn_toml(self, store: Path) -> None:
        overwrite(store / "flightbag.toml", lambda data: data[:5])
        with pytest.raises(NoStore):
            audit(store)


class TestScopes:
    def scoped(self, store: Path, **settings: object) -> Audit:
        ledger = settings.pop("ledger", None)
        clock = settings.pop("clock", time.monotonic)
        with Media(store) as media:
            return fsck(media, Scope(**settings), ledger=ledger, clock=clock)  # type: ignore[arg-type]

    def test_one_mission_is_judged_by_what_it_needs(self, store: Path) -> None:
        plant(store, "objects/README")
        file_of(store, SOUTH.entry("files/calibration/other.yaml").id).unlink()
        found = self.scoped(store, read="full", mission=NORTH.id)
        assert (found.findings, found.missions) == ((), {NORTH.id: "flyable"})
        found = self.scoped(store, mission=SOUTH.id)
        assert [finding.kind for finding in found.findings] == ["missing"]
        assert found.missions == {SOUTH.id: "grounded"}

    @pytest.mark.parametrize("damage", ["bit-flip", "bit-flip in the table", "object is a FIFO", "short ref"])
    def test_damage_of_one_mission(self, store: Path, damage: str) -> None:
        case = CASES[damage]
        case.damage(store)
        found = self.scoped(store, read="full", mission=NORTH.id)
        assert [finding.kind for finding in found.findings] == [case.kind]
        assert found.missions == {NORTH.id: "grounded"}

    def test_a_mission_that_is_not_there(self, store: Path) -> None:
        (finding,) = self.scoped(store, mission="nowhere").findings
        assert (finding.kind, finding.missions) == ("bad-ref", ("nowhere",))

    @pytest.mark.parametrize(
        "scope",
        [
            {"read": "sample"},
            {"read": "sample", "amount": 1.5},
            {"read": "budget"},
            {"mission": "No"},
            {"mission": "x", "exclusive": True},
        ],
    )
    def test_scopes_that_make_no_sense(self, scope: dict[str, object]) -> None:
        with pytest.raises(Invalid):
            Scope(**scope)  # type: ignore[arg-type]

    def test_a_sample_reads_its_part(self, first_store: Path) -> None:
        whole = audit(first_store).objects
        for percent in (1, 34, 100):
            found = self.scoped(first_store, read="sample", amount=percent / 100)
            assert found.read_objects == -(-whole * percent // 100)
            assert not found.findings

    def test_a_budget_reads_the_longest_unread_first(
        self, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("store.audit.fsck._CHUNK_OBJECTS", 1)
        shutil.rmtree(store / "index")
        whole = audit(store).objects

        def seconds() -> Iterator[float]:
            yield 0.0  # the beginning
            yield from (1.0, 2.0, 3.0)  # after each object: a budget of 3 reads three

        with Ledger(tmp_path / "ledger") as ledger:
            read = 0
            for _ in range(-(-whole // 3)):
                found = self.scoped(store, read="budget", amount=3, ledger=ledger, clock=seconds().__next__)
                assert found.read_objects <= 3
                read += found.read_objects
            # Every object once, before any is read again.
            with Media(store) as media:
                known = sum(
                    len(ledger.read_at(first, {id_: FileStamp.of(status) for id_, status in media.objects(first)}))
                    for first in range(256)
                )
            assert known == whole
        copy = copy_of(store, tmp_path / "copy")
        with Ledger(tmp_path / "ledger") as ledger, Media(copy) as media:
            stamps = {id_: FileStamp.of(status) for id_, status in media.objects(SHARED[0])}
            assert ledger.read_at(SHARED[0], stamps) == {}, "a copied store begins with an empty ledger"

    def test_a_budget_finds_what_is_damaged(self, store: Path, tmp_path: Path) -> None:
        flip(file_of(store, SHARED))
        with Ledger(tmp_path / "ledger") as ledger:
            found = self.scoped(store, read="budget", amount=60, ledger=ledger)
        assert [finding.kind for finding in found.findings] == ["bit-flip"]


class TestExclusive:
    """How an aircraft's store is audited for what somebody smuggled in."""

    def found(self, store: Path) -> Audit:
        with Media(store) as media:
            return fsck(media, Scope(exclusive=True))

    def test_a_store_of_missions_alone_is_clean(self, first_store: Path) -> None:
        assert not self.found(first_store).errors

    @pytest.mark.parametrize(
        ("place", "kind"),
        [
            (str(file_of(Path(), ObjectId.of(b"lone"))), "unreferenced"),
            (f"quarantine/20261123T000000Z/{ObjectId.of(b'lone')}", "unreferenced"),
            (f"trash/20261123T000000Z/{ObjectId.of(b'lone')}", "unreferenced"),
            ("tmp/1-dead/0", "stray"),
        ],
    )
    def test_whatever_no_mission_needs_is_an_error(self, store: Path, place: str, kind: str) -> None:
        plant(store, place, b"lone")
        found = self.found(store)
        assert [finding.kind for finding in found.findings if not finding.information] == [kind]
        assert found.errors
        assert found.missions == dict.fromkeys(BOTH, "not-read"), "smuggled objects ground no mission"
        assert not audit(store).errors

    def test_a_second_name_of_an_object(self, store: Path, tmp_path: Path) -> None:
        os.link(file_of(store, SHARED), tmp_path / "elsewhere")
        assert [(one.kind, one.information) for one in audit(store).findings] == [("hard-link", True)]
        assert [one.kind for one in self.found(store).findings] == ["hard-link"]
        assert self.found(store).errors

    @pytest.mark.parametrize("full", [False, True])
    def test_a_second_name_does_not_hide_damage(self, store: Path, tmp_path: Path, full: bool) -> None:
        os.link(file_of(store, SHARED), tmp_path / "elsewhere")
        overwrite(file_of(store, SHARED), lambda data: data[:-1] if not full else data[:-1] + b"x")
        with Media(store) as media:
            found = fsck(media, Scope("full" if full else "quick", exclusive=True))
        assert {one.kind for one in found.findings} == {"hard-link", "bit-flip" if full else "truncated"}
        assert found.missions == dict.fromkeys(BOTH, "grounded")
        assert SHARED in found.damaged

    @pytest.mark.parametrize("by", ["pin", "draft"])
    def test_no_unsigned_file_makes_an_object_belong(self, store: Path, by: str) -> None:
        """Whoever can put an object there can also name it in a pin, or in a draft of his own."""
        lone = ObjectId.of(b"lone")
        plant(store, str(file_of(Path(), lone)), b"lone")
        if by == "pin":
            holder = plant(store, "pins/keep", f"{lone}\n".encode())
        else:
            stranger = flight({"files/lone.bin": b"lone"}, by=("x",))
            plant(store, str(file_of(Path(), stranger.manifest.table)), stranger.table.render())
            holder = plant(store, "drafts/north-ridge", stranger.signed)
        found = self.found(store)
        told = {one.path for one in found.findings if one.kind == "unreferenced" and not one.information}
        assert {str(holder), str(file_of(store, lone))} <= told

    def test_a_lock_file_hides_nothing(self, store: Path) -> None:
        plant(store, "lock/mission-evil", bytes(5000))
        assert [one.kind for one in self.found(store).findings if not one.information] == ["stray"]

    def test_where_a_closure_is_unknown_nobody_can_tell(self, store: Path) -> None:
        flip(file_of(store, NORTH.manifest_id), 50)
        found = self.found(store)
        assert {finding.kind for finding in found.findings} == {"bit-flip", "unreferenced"}
        assert found.inconclusive


def test_wrong_once_and_right_when_read_again_is_transient(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The medium or the memory gave other bytes than the second time: it is not to be trusted with a flight."""
    inode = file_of(store, SHARED).stat().st_ino
    real, left = Media.digest, [1]

    def once(self: Media, id_: ObjectId, size: int, **options: object) -> FileStamp:
        if id_ == SHARED and left:
            left.pop()
            raise Corrupt("other bytes", kind="bit-flip", object=id_, expected=str(id_), actual="0" * 64)
        return real(self, id_, size, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Media, "digest", once)
    found = audit(store)
    (finding,) = found.findings
    assert (finding.kind, finding.missions, finding.object) == ("transient", BOTH, str(SHARED))
    assert found.errors
    assert not found.damaged, "there is nothing to repair"
    assert inode == file_of(store, SHARED).stat().st_ino


def test_a_mission_whose_ref_is_gone_is_missed(tmp_path: Path) -> None:
    """One publication without a ref may have been cut short between log and ref; of two, one had a ref."""
    store = make_store(tmp_path / "store")
    ref(store).unlink()
    assert not audit(store).errors
    store = make_store(tmp_path / "twice")
    publish(store, later(NORTH))
    ref(store).unlink()
    found = audit(store)
    assert [(one.kind, one.missions) for one in found.findings if not one.information] == [("bad-ref", (NORTH.id,))]
    assert found.missions == {NORTH.id: "grounded", SOUTH.id: "flyable"}


def test_a_lone_line_of_the_log_without_its_ref_is_noted(store: Path) -> None:
    """A publication that was cut short, or a mission whose ref is lost: nobody can tell, and somebody should look."""
    ref(store).unlink()
    found = audit(store)
    assert [(one.kind, one.information) for one in found.findings if one.kind == "bad-ref"] == [("bad-ref", True)]
    assert not found.errors


def test_a_store_without_its_log_is_not_clean(store: Path) -> None:
    (store / "log").unlink()
    assert [one.kind for one in audit(store).findings] == ["bad-log"]


@pytest.mark.parametrize("roots", ["a file", "too many"])
def test_without_log_and_readable_roots_all_findings_are_told(store: Path, roots: str) -> None:
    """The audit goes on: it tells what else is damaged."""
    (store / "log").unlink()
    plant(store, "stray", b"")
    if roots == "a file":
        shutil.rmtree(store / "trust")
        plant(store, "trust", b"")
    else:
        for version in range(2, MAX_ROOTS + 34):
            (store / "trust" / f"{version}.root.cbor").touch()
    found = audit(store)
    assert {"bad-log", "stray"} < {one.kind for one in found.findings}
    assert set(found.missions.values()) == {"grounded"}


def test_another_first_root_is_told_by_the_log(store: Path) -> None:
    """Root 1 vouches for itself; but the log has its digest."""
    plant(store, "trust/1.root.cbor", sign_root(replace(ROOT, salt=bytes(16)), "root-a"))
    found = audit(store)
    assert [(one.kind, one.missions) for one in found.findings] == [("bad-trust-chain", BOTH)]


class TestPins:
    def test_a_pin_keeps_what_its_manifest_needs(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        plant(store, "pins/first", f"{NORTH.manifest_id}\n".encode())
        publish(store, later(NORTH, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
        publish(store, later(NORTH, 2, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
        assert [one.kind for one in audit(store).findings] == [], "what only the pin needs is not unreferenced"
        file_of(store, OWN).unlink()
        (finding,) = audit(store).findings
        assert (finding.kind, finding.missions, finding.path) == ("incomplete-closure", (), str(store / "pins/first"))

    def test_a_damaged_object_of_a_pin_grounds_nothing(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        plant(store, "pins/camera", f"{OWN}\n".encode())
        publish(store, later(NORTH, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
        flip(file_of(store, OWN))
        told = [one for one in audit(store).findings if not one.information]
        assert [(one.kind, one.missions) for one in told] == [("bit-flip", ())]

    def test_a_draft_names_what_it_needs(self, store: Path) -> None:
        new = later(NORTH, camera2=b"fx: 9.0\n")
        plant(store, f"drafts/{NORTH.id}", new.signed)
        for data in (new.table.render(), b"fx: 9.0\n"):
            assert [one.kind for one in audit(store).findings] == ["incomplete-closure"]
            plant(store, str(file_of(Path(), ObjectId.of(data))), data)
        assert audit(store).findings == ()


def test_notes_are_counted_in_full_and_kept_in_part(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.audit.collector._KEPT_NOTES", 3)
    for number in range(7):
        data = b"%d" % number
        plant(store, str(file_of(Path(), ObjectId.of(data))), data)
    with Media(store) as media:
        found = fsck(media)
    assert found.notes["unreferenced"] == 7
    assert len(found.findings) == 3


def test_what_each_aircraft_has_to_prove_is_information(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", flight(PROBED, unproven=(UNPROVEN,)))
    with Media(store) as media:
        for exclusive in (False, True):
            result = fsck(media, replace(FULL, exclusive=exclusive))
            (finding,) = result.findings
            assert (finding.kind, finding.information, finding.missions) == ("unproven", True, ())
            assert "fidelity/net" in finding.message
            assert "flightbag probe" in finding.remedy
            assert dict(result.missions) == {FACTS.id: "flyable"}
