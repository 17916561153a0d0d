"""What missions share, as laws; and what a rollback may and may not do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.disk import log
from store.disk.media import Media
from store.errors import Corrupt, Refused, Untrusted
from store.format.cbor import INT_MAX
from store.format.cose import Envelope
from store.format.manifest import CONTENT_TYPE, SKEW, TIME_MAX
from store.ground import history
from store.ground.history import diff, rollback, stats
from store.ground.issuing import Review, mission_lock
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.takeoff.mission import Opened
from store.takeoff.verify import open_mission
from store.trust.draft import RootDraft, with_new_epoch
from store.trust.keys import PrivateKey
from store.trust.review import signing_code
from tests.faults.disks import PowerCut, PowerFails, Recorded, index_watched
from tests.support.missions import (
    FACTS,
    ISSUE,
    NOW,
    ROOT,
    Flight,
    by,
    evidence_of,
    flight,
    key,
    next_root,
    pinned,
    role,
    sign_root,
)
from tests.support.stores import (
    CAMERA,
    NORTH,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    later,
    listing,
    make_store,
    publish,
)

names = st.sampled_from([f"files/{letter}" for letter in "abcdefgh"])
contents = st.dictionaries(names, st.sampled_from([b"1", b"22", b"333", b"4444", b""]), min_size=1)


def opened(files: dict[str, bytes]) -> Opened:
    one = flight(files)
    found = open_mission(evidence_of(one), one.id, pinned())
    assert isinstance(found, Opened)
    return found


@given(contents, contents)
def test_shared_and_own_are_all_and_the_names_are_divided(first: dict[str, bytes], second: dict[str, bytes]) -> None:
    a, b = opened(first), opened(second)
    found, back = diff(a, b), diff(b, a)
    unique_a, unique_b = set(first.values()), set(second.values())
    assert found.shared_bytes + found.own_a_bytes == sum(map(len, unique_a))
    assert found.shared_bytes + found.own_b_bytes == sum(map(len, unique_b))
    assert found.shared_bytes == sum(map(len, unique_a & unique_b)) == back.shared_bytes
    moved_a = [one for one, _ in found.moved]
    assert sorted([*found.same, *found.changed, *moved_a, *found.only_a]) == sorted(first)
    assert set(found.same) == {name for name in first if second.get(name) == first[name]}
    assert (set(found.changed), found.own_a_bytes) == (set(back.changed), back.own_b_bytes)
    for one, other in found.moved:
        assert first[one] == second[other]


@given(contents)
def test_a_mission_shares_all_with_itself(files: dict[str, bytes]) -> None:
    a = opened(files)
    found = diff(a, a)
    assert set(found.same) == set(files)
    assert (found.changed, found.moved, found.only_a, found.only_b, found.own_a_bytes) == ((), (), (), (), 0)


def test_stats_count_what_lies_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    publish(store, later(NORTH, 1, **{"calibration/camera.yaml": b"fx: 9.0\n"}))
    with Repository.open(store) as repository:
        found = stats(repository)
    files = [path.stat().st_size for path in (store / "objects").glob("*/*")]
    assert (found.objects, found.bytes) == (len(files), sum(files))
    assert found.unreferenced_objects == 3
    assert found.unique_bytes + found.unreferenced_bytes == found.bytes
    assert found.closure_bytes == sum(one.bytes for one in found.missions.values())
    for one in found.missions.values():
        assert one.shared_bytes + one.own_bytes == one.bytes
    shared = sum(NORTH.entry(e.name).size for e in NORTH.table.entries if e.id in {o.id for o in SOUTH.table.entries})
    assert found.missions[SOUTH.id].shared_bytes == shared
    file_of(store, NORTH.entry("engines/net/net.onnx").id).unlink()
    with Repository.open(store) as repository, pytest.raises(Refused):
        stats(repository)


PILOT = key("pilot")
NEW = later(NORTH, 1, **{"calibration/camera.yaml": b"fx: 9.0\n"})


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = make_store(tmp_path / "store")
    publish(store, NEW)
    return store


def back(store: Path, **options: object) -> object:
    with Repository.open(store) as repository:
        return rollback(repository, NORTH.id, by(PILOT), now=NOW, **options)  # type: ignore[arg-type]


def test_it_is_signed_anew_with_a_new_sequence_and_a_new_expiry(store: Path) -> None:
    back(store)
    mission = check(store, NORTH.id).mission
    assert mission is not None
    issue = mission.manifest.issue
    assert mission.table == NORTH.table
    assert issue.sequence > NEW.manifest.issue.sequence
    assert issue.previous == NEW.manifest_id
    assert issue.issued_at == NOW
    assert issue.expires_at is not None
    assert ISSUE.expires_at is not None
    assert issue.expires_at - issue.issued_at == ISSUE.expires_at - ISSUE.issued_at
    with Media(store) as media:
        last = log.events(media)[-1]
    assert (last.event, last.facts["sequence"]) == ("rolled-back", issue.sequence)
    assert not audit(store).errors


def lived(folder: Path, old: dict[str, int | None], **root: int) -> tuple[int | None, int | None]:
    """The validity after a rollback to a manifest that was issued at NOW - 100 with `old`, under this trust root."""
    older = flight(issue=replace(ISSUE, **{"expires_at": None, **old}))
    store = make_store(folder / "store", older)
    publish(store, later(NORTH, 1, newer=b"x"))
    with Repository.open(store) as repository:
        if root:
            repository.replace("trust/2.root.cbor", sign_root(next_root(ROOT, **root), "root-a"))
        dry = rollback(repository, NORTH.id, by(PILOT), now=NOW, to=older.manifest_id, dry_run=True)
        done = rollback(repository, NORTH.id, by(PILOT), now=NOW, to=older.manifest_id)
        issue = repository.current(NORTH.id).manifest.issue
    assert (dry.valid_from, dry.expires_at) == (done.valid_from, done.expires_at)
    assert (issue.valid_from, issue.expires_at) == (done.valid_from, done.expires_at)
    assert check(store, NORTH.id).go or (done.valid_from or 0) > NOW
    return done.valid_from, done.expires_at


@pytest.mark.parametrize(
    ("old", "root", "expected"),
    [
        ({}, {}, (None, None)),
        ({"expires_at": NOW + 400}, {}, (None, NOW + 500)),
        ({"valid_from": NOW + 50, "expires_at": NOW + 450}, {}, (NOW + 50, NOW + 450)),
        ({"valid_from": NOW - 50, "expires_at": NOW + 450}, {}, (NOW - 50, NOW + 500)),
        ({"expires_at": TIME_MAX}, {}, (None, TIME_MAX)),
        ({}, {"default_lifetime": 300}, (None, NOW + 300)),
        ({}, {"max_lifetime": 300}, (None, NOW + 300)),
        ({"expires_at": NOW + 400}, {"default_lifetime": 300, "max_lifetime": 10**6}, (None, NOW + 500)),
        ({"expires_at": NOW + 400}, {"max_lifetime": 300}, (None, NOW + 300)),
        ({"valid_from": NOW + 50, "expires_at": NOW + 450}, {"max_lifetime": 300}, (NOW + 50, NOW + 300)),
    ],
)
def test_it_is_valid_for_as_long_as_before(
    tmp_path: Path,
    old: dict[str, int | None],
    root: dict[str, int],
    expected: tuple[int | None, int | None],
) -> None:
    assert lived(tmp_path, old, **root) == expected


def test_a_validity_that_the_trust_root_cuts_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="trust root 2") as caught:
        lived(tmp_path, {"valid_from": NOW + 400}, max_lifetime=300)
    assert caught.value.kind == "lifetime"


def test_under_a_trust_root_from_the_future_nothing_is_signed(store: Path) -> None:
    with Repository.open(store) as repository:
        repository.replace("trust/2.root.cbor", sign_root(next_root(ROOT, issued_at=NOW + SKEW + 1), "root-a"))
    with pytest.raises(Refused) as caught:
        back(store)
    assert caught.value.kind == "issued-in-future"


def test_an_older_manifest_of_a_revoked_signer_is_refused(store: Path) -> None:
    second = next_root(ROOT, mission=role("second"), revoked=(PILOT.public,))
    with Repository.open(store) as repository:
        repository.replace("trust/2.root.cbor", sign_root(second, "root-a"))
        for to in (None, NORTH.manifest_id):
            with pytest.raises(Corrupt):
                rollback(repository, NORTH.id, never_asked, now=NOW, to=to)


def code_of(one: Flight) -> str:
    return signing_code(Envelope(CONTENT_TYPE, one.manifest.render()))


def never_asked(review: Review) -> tuple[PrivateKey, ...]:
    raise AssertionError("a key is opened before everything was checked")


class TestReview:
    """What a rollback goes back to is named by its code, and no key is opened before."""

    def test_a_key_outside_of_the_role(self, store: Path) -> None:
        before = listing(store, but=("lock",))
        with Repository.open(store) as repository, pytest.raises(Untrusted):
            rollback(repository, NORTH.id, by(key("second")), now=NOW)
        assert listing(store, but=("lock",)) == before

    def test_the_code_is_that_of_the_manifest_it_goes_back_to(self, store: Path) -> None:
        with Repository.open(store) as repository:
            dry = rollback(repository, NORTH.id, never_asked, now=NOW, dry_run=True)
            code = code_of(NORTH)
            assert (dry.to, dry.to_code, dry.signing_code) == (NORTH.manifest_id, code, "")
            done = rollback(repository, NORTH.id, by(PILOT), now=NOW, expect=code.replace("-", "").lower())
            assert done.signing_code == repository.current(NORTH.id).signing_code != code

    def test_another_code(self, store: Path) -> None:
        before = listing(store, but=("lock",))
        with Repository.open(store) as repository, pytest.raises(Refused) as caught:
            rollback(repository, NORTH.id, never_asked, now=NOW, expect=code_of(NEW))
        assert caught.value.kind == "other-code"
        assert (caught.value.fields["expected"], caught.value.fields["actual"]) == (*(code_of(NEW), code_of(NORTH)),)
        assert listing(store, but=("lock",)) == before

    def test_what_was_shown_is_signed_whatever_the_log_says_by_then(self, store: Path) -> None:
        """The log is cut and the ref is moved while the person looks at what is shown."""
        shown = []

        def approve(review: Review) -> tuple[PrivateKey, ...]:
            shown.append(review)
            (store / "log").write_bytes(b"")
            (store / "missions" / NORTH.id).write_text(f"{NORTH.manifest_id}\n")
            return (PILOT,)

        with Repository.open(store) as repository:
            done = rollback(repository, NORTH.id, approve, now=NOW)
            assert repository.current(NORTH.id).manifest == shown[0].opened.manifest
        assert done.to == NORTH.manifest_id == shown[0].named.manifest_id

    def test_another_process_goes_back_first(self, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between the plan and the lock: nothing is left to sign, and nobody is asked."""

        @contextmanager
        def lock(repository: Repository, mission: str, what: str) -> Iterator[None]:
            monkeypatch.undo()
            with Repository.open(store) as other:
                rollback(other, mission, by(PILOT), now=NOW, to=NORTH.manifest_id)
            with mission_lock(repository, mission, what):
                yield

        monkeypatch.setattr(history, "mission_lock", lock)
        with Repository.open(store) as repository:
            done = rollback(repository, NORTH.id, never_asked, now=NOW, to=NORTH.manifest_id)
            current = repository.current(NORTH.id)
        assert (done.unchanged, done.current, done.sequence) == (
            True,
            current.manifest_id,
            current.manifest.issue.sequence,
        )


def test_a_mission_whose_signer_was_revoked_is_rolled_back_by_another(store: Path) -> None:
    """The way back must be open exactly when the newest manifest is not to be trusted."""
    second = key("second")
    root = next_root(ROOT, mission=role("pilot", "second"))
    with Repository.open(store) as repository:
        repository.replace("trust/2.root.cbor", sign_root(root, "root-a"))
        good = rollback(repository, NORTH.id, by(second), now=NOW + 50, to=NORTH.manifest_id)
        publish(store, later(NORTH, 5_000_000, worse=b"x"))
        third = next_root(root, mission=role("second"), revoked=(PILOT.public,))
        repository.replace("trust/3.root.cbor", sign_root(third, "root-a"))
        done = rollback(repository, NORTH.id, by(second), now=NOW + 99)
        assert done.to == good.manifest
        assert repository.current(NORTH.id).manifest_id == done.manifest


def test_a_closure_with_holes_is_refused(store: Path) -> None:
    file_of(store, NORTH.entry(CAMERA).id).unlink()
    with pytest.raises(Refused):
        back(store)
    assert check(store, NORTH.id).mission.manifest_id == NEW.manifest_id  # type: ignore[union-attr]


def test_a_manifest_of_another_mission_is_no_earlier_one(store: Path) -> None:
    with pytest.raises(Exception, match="not of"):
        back(store, to=SOUTH.manifest_id)


def test_a_crash_anywhere_leaves_one_or_the_other(store: Path, tmp_path: Path) -> None:
    def run(where: Path, disk: Recorded | PowerCut) -> None:
        with (
            pytest.MonkeyPatch.context() as patch,
            index_watched(disk, patch),
            Repository.open(where, disk) as repository,
        ):
            rollback(repository, NORTH.id, by(PILOT), now=NOW)

    counted = Recorded()
    run(copy_of(store, tmp_path / "counted"), counted)
    for stop in range(0, len(counted.operations), 4):
        left = copy_of(store, tmp_path / "left")
        with pytest.raises(PowerFails):
            run(left, PowerCut(stop))
        mission = check(left, NORTH.id).mission
        assert mission is not None
        assert mission.table in (NORTH.table, NEW.table)
        assert not audit(left).errors
        shutil.rmtree(left)


def test_facts_count_as_a_difference(tmp_path: Path) -> None:
    """Re-planning a route changes no artifact, and is something to go back to."""
    route: Flight = flight(
        NORTH.contents,
        mission=replace(FACTS, flight="another"),
        issue=replace(ISSUE, sequence=ISSUE.sequence + 5),
    )
    store = make_store(tmp_path / "store")
    publish(store, route)
    with Repository.open(store) as repository:
        assert rollback(repository, NORTH.id, by(PILOT), now=NOW).to == NORTH.manifest_id


def test_the_last_of_all_sequences_has_no_next(tmp_path: Path) -> None:
    """A stolen key has driven it there; only a new epoch goes on."""
    fast = flight({**NORTH.contents, CAMERA: b"another"}, issue=replace(ISSUE, sequence=INT_MAX))
    store = make_store(tmp_path / "store", NORTH, fast)
    with Repository.open(store) as repository:
        with pytest.raises(Refused) as caught:
            rollback(repository, NORTH.id, by(key("pilot")), now=NOW, to=NORTH.manifest_id)
        assert caught.value.fields["kind"] == "no-sequence"
        assert "new-epoch" in caught.value.remedy
        rotate(
            repository,
            with_new_epoch(RootDraft.after(repository.trust_root(), now=NOW)).with_signature(key("root-a")),
            now=NOW,
        )
        done = rollback(repository, NORTH.id, by(key("pilot")), now=NOW, to=NORTH.manifest_id)
    assert done.sequence == NOW
    assert check(store, NORTH.id).go
