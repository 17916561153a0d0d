"""What a store goes through while the power fails: each scenario prepares, runs, and judges whatever is left.

A scenario is a few lines. `prepare` makes the folder as it is before; `run` does the work there, over a given disk,
and is what is run again after a crash; `before` says which manifests of a mission are whole in between, `after` which
one is current when the work is done. Where the store is damaged from the start, `hurt` are the objects that may be
found so.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from store.audit.fsck import fsck
from store.audit.repair import repair
from store.audit.scope import FULL
from store.disk.durable import Disk
from store.errors import FlightbagError, NoStore
from store.format.ids import ObjectId
from store.format.release import Approval
from store.ground import releases
from store.ground.gc import collect, pin, unpin
from store.ground.history import rollback
from store.ground.issuing import issue, issuing, sign_draft
from store.ground.removal import remove
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.ground.trust_chain import rotate
from store.ground.writer import writing
from store.remotes.pack import plan_pack, write_files
from store.remotes.unpack import unpack
from store.takeoff.mission import Verdict
from store.trust import draft as drafts
from store.trust.draft import RootDraft
from tests.faults.disks import PowerCut, PowerFails, index_watched
from tests.support.missions import ISSUE, NOW, ROOT, by, flight, key, root_draft
from tests.support.stores import (
    ENGINE,
    NORTH,
    ROOT_FILE,
    SOUTH,
    audit,
    check,
    file_of,
    flip,
    later,
    make_store,
    overwrite,
    publish,
)

# North anew, with an object of its own that is more than two blocks long: a write of it can be torn.
NEW = later(NORTH, camera2=b"fx: 3.0\n" * 1200)
OLD, CURRENT = NORTH.manifest_id, NEW.manifest_id
# What a draft becomes: issued after North.
SIGNED = flight(
    {**NORTH.contents, "files/calibration/camera2.yaml": b"fx: 4.0\n" * 1200},
    issue=replace(ISSUE, sequence=ISSUE.sequence + 1, previous=OLD),
)
SHARED = NORTH.entry(ENGINE).id
DAYS = 86400.0


@dataclass(frozen=True)
class Scenario:
    """One piece of work on the store `folder / "store"`."""

    prepare: Callable[[Path], None]
    run: Callable[[Path, Disk], None]
    before: Mapping[str, tuple[ObjectId, ...]]
    after: Mapping[str, ObjectId]
    hurt: frozenset[ObjectId] = frozenset()
    # Missions that may be grounded in between, because they were when it began.
    grounded: frozenset[str] = field(default=frozenset())

    def wrong(self, folder: Path) -> list[str]:
        """What is lost in the state that lies in `folder`, and after the work was done again; empty if nothing is."""
        store = folder / "store"
        found = []
        if (store / "flightbag.toml").exists():
            for mission in {*self.before, *self.after}:
                found += self._wrong_mission(store, mission)
            found += [
                f"{one.kind} {one.object or one.path}"
                for one in audit(store).findings
                if not one.information and not self._expected(one.object, one.kind)
            ]
        elif self.before:
            found.append("the store is gone")
        if found:
            return found
        try:
            self.run(folder, Disk())
            with Repository.open(store) as repository, writing(repository):
                pass  # the next transaction, whatever it does
        except FlightbagError as error:
            return [f"run again: {error}"]
        for mission, manifest in self.after.items():
            verdict = check(store, mission)
            if verdict.mission is None or verdict.mission.manifest_id != manifest:
                found.append(f"run again, {mission} is {_said(verdict)}")
        found += [f"run again: {one.kind}" for one in audit(store).findings if not one.information]
        if (store / "tmp").is_dir() and list((store / "tmp").iterdir()):
            found.append("run again, tmp is not empty")
        return found

    def _expected(self, id_: str, kind: str) -> bool:
        return bool(self.hurt) and (kind in ("bad-ref", "bad-log", "stray") or id_ in {str(one) for one in self.hurt})

    def _wrong_mission(self, store: Path, mission: str) -> list[str]:
        ref = store / "missions" / mission
        verdict = check(store, mission)
        if verdict.mission is not None:
            allowed = {*self.before.get(mission, ()), self.after.get(mission)}
            return [] if verdict.mission.manifest_id in allowed else [f"{mission} is another mission"]
        if mission in self.grounded:
            return []
        if mission in self.before or ref.exists():
            return [f"{mission} is {_said(verdict)}"]
        return []


def _said(verdict: Verdict) -> str:
    return "GO" if verdict.go else "NO-GO: " + ", ".join(f"{one.step} {one.kind}" for one in verdict.findings)


def _old(folder: Path) -> None:
    shutil.rmtree(make_store(folder / "store") / "index")


def _with_both(folder: Path) -> None:
    """North in two versions, and an object that nobody needs."""
    store = make_store(folder / "store")
    publish(store, NEW)
    with Repository.open(store) as repository, writing(repository) as writer, writer.inserting() as batch:
        batch.add_bytes(b"nobody needs this")
        batch.commit()
    shutil.rmtree(store / "index")


def _damaged(folder: Path) -> None:
    _old(folder)
    flip(file_of(folder / "store", SHARED), 3)


def _killed(folder: Path) -> None:
    """A publication was cut short between renaming and syncing, and has left its folder in tmp/."""
    _old(folder)
    disk = PowerCut(70)
    with pytest.MonkeyPatch.context() as patch, index_watched(disk, patch):
        try:
            publish(folder / "store", NEW, disk=disk)
        except PowerFails:
            return
    raise AssertionError("the publication has fewer operations than that")


def _source_and_old_target(folder: Path) -> None:
    make_store(folder / "store")
    make_store(folder / "source")
    publish(folder / "source", NEW)
    shutil.rmtree(folder / "store" / "index")


def _source(folder: Path) -> None:
    make_store(folder / "source")


def _source_and_damaged(folder: Path) -> None:
    make_store(folder / "source")
    _damaged(folder)


def _hurt_with_replica(folder: Path) -> None:
    make_store(folder / "source")
    _damaged(folder)
    file_of(folder / "store", SOUTH.entry("files/calibration/other.yaml").id).unlink()
    (folder / "store" / "missions" / NORTH.id).write_bytes(b"")
    overwrite(folder / "store" / "log", lambda data: data + b"noise\n")
    (folder / "store" / "objects" / "README").write_bytes(b"not yours")


def _publish_new(folder: Path, disk: Disk) -> None:
    publish(folder / "store", NEW, disk=disk)


def _begin(folder: Path, disk: Disk) -> None:
    """From nothing to a published mission."""
    store = folder / "store"
    if not (store / "flightbag.toml").exists():
        Repository.init(store, disk).close()
    with Repository.open(store, disk) as repository:
        if not repository.evidence.root_versions():
            rotate(repository, root_draft(ROOT_FILE), now=NOW)
    publish(store, NORTH, disk=disk)


def _sync(folder: Path, disk: Disk, *, checksum: bool = False) -> None:
    with Repository.open(folder / "source") as source:
        try:
            with Repository.open(folder / "store", disk) as target:
                plan = plan_sync(source, target, (), checksum=checksum)
        except NoStore:
            plan = plan_sync(source, None, ())
        apply_sync(plan, source, folder / "store", disk=disk)


def _pack(folder: Path, split: int | None = None) -> None:
    """A bag of the source, which then is gone."""
    make_store(folder / "source", NEW, SOUTH)
    with Repository.open(folder / "source") as source:
        write_files(plan_pack(source, None, (), split=split), source, folder / "bag.tar")
    shutil.rmtree(folder / "source")


def _pack_beside_old(folder: Path) -> None:
    _old(folder)
    _pack(folder, 10_000)  # cuts the largest object of NEW in two


def _unpack(folder: Path, disk: Disk) -> None:
    for path in sorted(folder.glob("bag*.tar"), reverse=True):
        with open(path, "rb") as stream:
            unpack(stream, path.name, folder / "store", disk=disk)


def _collect(folder: Path, disk: Disk) -> None:
    with Repository.open(folder / "store", disk) as repository:
        collect(repository, now=time.time() + 15 * DAYS, keep_last=1)


def _repair(folder: Path, disk: Disk) -> None:
    with Repository.open(folder / "source") as source:
        repair(folder / "store", FULL, [source], audited=fsck, show=lambda _: None, disk=disk)


def _pin_and_unpin(folder: Path, disk: Disk) -> None:
    with Repository.open(folder / "store", disk) as repository:
        if not (folder / "store" / "pins" / "first").exists():
            pin(repository, "first", OLD)
        unpin(repository, "first")


def _remove(folder: Path, disk: Disk) -> None:
    """Take South out, and collect what it needed."""
    with Repository.open(folder / "store", disk) as repository:
        if SOUTH.id in repository.missions():
            remove(repository, SOUTH.id)
    _collect(folder, disk)


def _remove_and_publish(folder: Path, disk: Disk) -> None:
    """Take North out and publish it anew: what is left of the old one, of which the next sequence is, may go then."""
    with Repository.open(folder / "store", disk) as repository:
        missions = repository.missions()
        if NORTH.id in missions and repository.current(NORTH.id).manifest_id == OLD:
            remove(repository, NORTH.id)
    publish(folder / "store", NEW, disk=disk)


def _roll_back(folder: Path, disk: Disk) -> None:
    with Repository.open(folder / "store", disk) as repository:
        rollback(repository, NORTH.id, by(key("pilot")), now=NOW, to=OLD)


def _rolled_back() -> ObjectId:
    """The manifest that `_roll_back` signs: keys and times are always the same."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _with_both(folder)
        _roll_back(folder, Disk())
        mission = check(folder / "store", NORTH.id).mission
        assert mission is not None
        return mission.manifest_id


def _sign(folder: Path, disk: Disk) -> None:
    """A draft that nobody has signed, then its signature."""
    with Repository.open(folder / "store", disk) as repository:
        if repository.current(NORTH.id).manifest_id == SIGNED.manifest_id:
            return
        root = repository.trust_root().root
        with issuing(repository, NORTH.id, "the draft") as writer:
            with writer.inserting() as batch:
                for data in SIGNED.contents.values():
                    batch.add_bytes(data)
                batch.commit()
            issue(writer, SIGNED.manifest, SIGNED.table, (), root)
        sign_draft(repository, NORTH.id, by(key("pilot")), now=NOW)


def _rotate(folder: Path, disk: Disk) -> None:
    with Repository.open(folder / "store", disk) as repository:
        newest = repository.trust_root()
        if newest.root.version == 1:
            draft = drafts.with_key(RootDraft.after(newest, now=NOW), "mission", key("co-pilot").public)
            rotate(repository, draft.with_signature(key("root-a")), now=NOW)


def _release(folder: Path, disk: Disk) -> None:
    approvals = [Approval.of(NORTH.entry(ENGINE))]
    data, _ = releases.signed(releases.drafted("winter", "cpu-x86_64", approvals, now=NOW), ROOT, by(key("lab")))
    with Repository.open(folder / "store", disk) as repository:
        releases.add(repository, data)


BOTH = {NORTH.id: (OLD,), SOUTH.id: (SOUTH.manifest_id,)}
DONE = {NORTH.id: CURRENT, SOUTH.id: SOUTH.manifest_id}
SAME = {NORTH.id: OLD, SOUTH.id: SOUTH.manifest_id}
MISSIONS = frozenset(BOTH)

SCENARIOS: dict[str, Scenario] = {
    "init, trust root, first publication": Scenario(lambda _: None, _begin, {}, {NORTH.id: OLD}),
    "publication with reuse": Scenario(_old, _publish_new, BOTH, DONE),
    "publication that heals a damaged object": Scenario(
        _damaged, _publish_new, BOTH, DONE, frozenset({SHARED}), MISSIONS
    ),
    "publication after a killed one": Scenario(_killed, _publish_new, BOTH, DONE),
    "sync to a new store": Scenario(_source, _sync, {}, SAME),
    "sync to an older store": Scenario(_source_and_old_target, _sync, BOTH, DONE),
    "sync --checksum over a damaged object": Scenario(
        _source_and_damaged, lambda f, d: _sync(f, d, checksum=True), BOTH, SAME, frozenset({SHARED}), MISSIONS
    ),
    "gc": Scenario(_with_both, _collect, {**BOTH, NORTH.id: (CURRENT,)}, DONE),
    "pin and unpin": Scenario(_with_both, _pin_and_unpin, {**BOTH, NORTH.id: (CURRENT,)}, DONE),
    "removal, and a collection after it": Scenario(_old, _remove, {NORTH.id: (OLD,)}, {NORTH.id: OLD}),
    "removal, and a publication after it": Scenario(
        _old, _remove_and_publish, BOTH, DONE, grounded=frozenset({NORTH.id})
    ),
    "rollback": Scenario(_with_both, _roll_back, {**BOTH, NORTH.id: (CURRENT,)}, {**DONE, NORTH.id: _rolled_back()}),
    "a draft and its signature": Scenario(_old, _sign, BOTH, {**DONE, NORTH.id: SIGNED.manifest_id}),
    "rotation of the trust root": Scenario(_old, _rotate, BOTH, SAME),
    "release": Scenario(_old, _release, BOTH, SAME),
    "repair from a replica": Scenario(
        _hurt_with_replica,
        _repair,
        BOTH,
        SAME,
        frozenset({SHARED, SOUTH.entry("files/calibration/other.yaml").id}),
        MISSIONS,
    ),
    "unpack to a new store": Scenario(_pack, _unpack, {}, DONE),
    "unpack of parts to an older store": Scenario(_pack_beside_old, _unpack, BOTH, DONE),
}
