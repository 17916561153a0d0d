"""Every damage that an audit names, made on a small store: what `tests.store` and the drill break, and mend again.

A case says what is done, the kind of the one finding that it must be, and the missions that it grounds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.disk.index import Row
from store.disk.media import FOLDER_LIMIT
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.faults.disks import bad_sectors
from tests.support.commands import flightbag
from tests.support.missions import ROOT, Flight, flight, next_root, sign_root
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    SHARD,
    SOUTH,
    check,
    copy_of,
    file_of,
    flip,
    listing,
    make_store,
    overwrite,
)

BOTH = (NORTH.id, SOUTH.id)
SHARED = NORTH.entry(ENGINE).id
OWN = NORTH.entry(CAMERA).id
OTHER = SOUTH.entry("files/calibration/other.yaml").id
LETTERED = NORTH.entry(SHARD).id  # its folder has a letter in its name


@dataclass(frozen=True)
class Case:
    """A damage, the kind of its finding and what it grounds; `quick` says whether a quick audit sees it.

    `medium` is what the medium does besides, for as long as the patch lasts. `hopeless` damage cannot be mended from a
    replica of the same age: nobody may say which bytes are right. It grounds nothing.
    """

    damage: Callable[[Path], object]
    kind: str
    grounds: tuple[str, ...] = ()
    quick: bool = True
    information: bool = False
    medium: Callable[[pytest.MonkeyPatch, Path], None] = lambda _patch, _store: None
    hopeless: bool = False


def plant(store: Path, name: str, data: bytes = b"") -> Path:
    path = store / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def crowd(store: Path, folder: str) -> None:
    for number in range(FOLDER_LIMIT + 1):
        plant(store, f"{folder}/m-{number}")


def instead(path: Path) -> Path:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return path


def misname(path: Path) -> None:
    assert path.name != path.name.upper()
    path.rename(path.with_name(path.name.upper()))


def publish_by_hand(store: Path, one: Flight) -> None:
    """Puts a manifest in place that `publish` would refuse."""
    for data in (one.signed, one.table.render()):
        plant(store, str(file_of(store, ObjectId.of(data)).relative_to(store)), data)
    (store / "missions" / NORTH.id).write_text(f"{one.manifest_id}\n")


def unindexed(store: Path) -> None:
    """A file that the index has not seen yet, as after a sync or a copy."""
    with Repository.open(store) as repository, writing(repository) as writer:
        writer.index.commit(gone=[OWN])


def indexed_and_gone(store: Path) -> None:
    """A row of the index without a file."""
    with Repository.open(store) as repository, writing(repository) as writer:
        writer.index.commit(objects={ObjectId.of(b"gone"): Row(4, 1, 1, 1, 1, 1)})


def ref(store: Path) -> Path:
    return store / "missions" / NORTH.id


CASES: dict[str, Case] = {
    "missing, shared": Case(lambda s: file_of(s, SHARED).unlink(), "missing", BOTH),
    "missing, of one": Case(lambda s: file_of(s, OWN).unlink(), "missing", (NORTH.id,)),
    "missing manifest": Case(lambda s: file_of(s, NORTH.manifest_id).unlink(), "missing", (NORTH.id,)),
    "missing table": Case(lambda s: file_of(s, NORTH.manifest.table).unlink(), "missing", (NORTH.id,)),
    "missing shard folder": Case(lambda s: shutil.rmtree(file_of(s, OWN).parent), "missing", (NORTH.id,)),
    "truncated": Case(lambda s: overwrite(file_of(s, SHARED), lambda d: d[:-1]), "truncated", BOTH),
    "empty": Case(lambda s: overwrite(file_of(s, OWN), lambda _: b""), "truncated", (NORTH.id,)),
    "oversized": Case(lambda s: overwrite(file_of(s, SHARED), lambda d: d + b"x"), "oversized", BOTH),
    "bit-flip": Case(lambda s: flip(file_of(s, SHARED), 3), "bit-flip", BOTH, quick=False),
    "bit-flip in the manifest": Case(lambda s: flip(file_of(s, NORTH.manifest_id), 50), "bit-flip", (NORTH.id,)),
    "bit-flip in the table": Case(lambda s: flip(file_of(s, NORTH.manifest.table), 9), "bit-flip", (NORTH.id,)),
    "misnamed file": Case(lambda s: misname(file_of(s, OWN)), "misnamed", (NORTH.id,)),
    "misnamed manifest": Case(lambda s: misname(file_of(s, NORTH.manifest_id)), "misnamed", (NORTH.id,)),
    "misnamed shard": Case(lambda s: misname(file_of(s, LETTERED).parent), "misnamed", BOTH),
    "object is a folder": Case(lambda s: instead(file_of(s, OWN)).mkdir(), "wrong-type", (NORTH.id,)),
    "object is a link": Case(lambda s: instead(file_of(s, OWN)).symlink_to("/etc/passwd"), "wrong-type", (NORTH.id,)),
    "object is a FIFO": Case(lambda s: os.mkfifo(instead(file_of(s, SHARED))), "wrong-type", BOTH),
    "manifest is a link": Case(
        lambda s: instead(file_of(s, NORTH.manifest_id)).symlink_to("x"), "wrong-type", (NORTH.id,)
    ),
    "shard is a link": Case(lambda s: instead(file_of(s, OWN).parent).symlink_to("/"), "wrong-type", (NORTH.id,)),
    "shard is a file": Case(lambda s: plant_file(file_of(s, SHARED).parent), "wrong-type", BOTH),
    "objects is a link": Case(lambda s: instead(s / "objects").symlink_to("/"), "wrong-type", BOTH),
    "objects is not there": Case(lambda s: shutil.rmtree(s / "objects"), "missing", BOTH),
    "missions is a file": Case(lambda s: plant_file(s / "missions"), "wrong-type"),
    "missions is not there": Case(lambda s: shutil.rmtree(s / "missions"), "missing"),
    "ref is a link": Case(lambda s: instead(ref(s)).symlink_to(SOUTH.id), "wrong-type", (NORTH.id,)),
    "ref is a folder": Case(lambda s: instead(ref(s)).mkdir(), "wrong-type", (NORTH.id,)),
    "ref is a FIFO": Case(lambda s: os.mkfifo(instead(ref(s))), "wrong-type", (NORTH.id,)),
    "log is a link": Case(lambda s: instead(s / "log").symlink_to("flightbag.toml"), "wrong-type"),
    "tmp is a link": Case(lambda s: instead(s / "tmp").symlink_to("/"), "wrong-type"),
    "trust is a link": Case(lambda s: instead(s / "trust").symlink_to("/"), "wrong-type", BOTH),
    "root file is a FIFO": Case(lambda s: os.mkfifo(instead(s / "trust" / "1.root.cbor")), "wrong-type", BOTH),
    "stray at the top": Case(lambda s: plant(s, "notes.txt"), "stray"),
    "stray in objects": Case(lambda s: plant(s, "objects/README"), "stray"),
    "stray in a shard": Case(lambda s: plant(s, f"objects/{SHARED.hex()[:2]}/short"), "stray"),
    "stray in trust": Case(lambda s: plant(s, "trust/01.root.cbor"), "stray"),
    "stray in missions": Case(lambda s: plant(s, "missions/.hidden"), "stray"),
    "stray of an upper-case mission": Case(lambda s: plant(s, "missions/North"), "stray"),
    "stray among the locks": Case(lambda s: plant(s, "lock/evil"), "stray"),
    "stray beside the index": Case(lambda s: plant(s, "index/evil"), "stray"),
    "stray among the drafts": Case(lambda s: plant(s, "drafts/North"), "stray"),
    "stray among the pins": Case(lambda s: plant(s, "pins/north~"), "stray"),
    "empty draft": Case(lambda s: plant(s, "drafts/north-ridge"), "bad-manifest", hopeless=True),
    "empty pin": Case(lambda s: plant(s, "pins/first-flight"), "bad-ref", hopeless=True),
    "crowded drafts": Case(lambda s: crowd(s, "drafts"), "too-many", hopeless=True),
    "pin of what is not there": Case(
        lambda s: plant(s, "pins/x", b"0" * 64 + b"\n"), "incomplete-closure", hopeless=True
    ),
    "pin is a link": Case(lambda s: instead(plant(s, "pins/x")).symlink_to("../log"), "wrong-type"),
    "stray among the releases": Case(lambda s: plant(s, "trust/releases/Winter"), "stray"),
    "stray among the receipts": Case(lambda s: plant(s, "receipts/first"), "stray"),
    "empty receipt": Case(lambda s: plant(s, "receipts/" + "0" * 64), "bad-receipt"),
    "stray among the withdrawals": Case(lambda s: plant(s, "withdrawn/north"), "stray"),
    "empty draft of a withdrawal": Case(
        lambda s: plant(s, f"drafts/{NORTH.id}.mission"), "bad-withdrawal", hopeless=True
    ),
    "receipt is a link": Case(lambda s: instead(plant(s, "receipts/" + "0" * 64)).symlink_to("../log"), "wrong-type"),
    "empty release": Case(lambda s: plant(s, "trust/releases/winter"), "bad-ref"),
    "cut log": Case(lambda s: overwrite(s / "log", lambda d: b"".join(d.splitlines(keepends=True)[:-1])), "bad-log"),
    "log before the roots": Case(lambda s: overwrite(s / "log", lambda _: b""), "bad-log"),
    "stray in quarantine": Case(lambda s: plant(s, "quarantine/notes"), "stray"),
    "stray in the trash": Case(lambda s: plant(s, "trash/20261123T000000/notes"), "stray"),
    "a lock is a link": Case(lambda s: instead(plant(s, "lock/build-0a")).symlink_to("/etc/passwd"), "wrong-type"),
    "stray in tmp": Case(lambda s: plant(s, "tmp/1-dead/0"), "stray", information=True),
    "stray of odd bytes": Case(lambda s: plant(s, os.fsdecode(b"\xff\n\x1b[31m")), "stray"),
    "unreferenced": Case(
        lambda s: plant(s, str(file_of(Path(), ObjectId.of(b"lone"))), b"lone"), "unreferenced", information=True
    ),
    "short ref": Case(lambda s: overwrite(ref(s), lambda d: d[:40]), "bad-ref", (NORTH.id,)),
    "empty ref": Case(lambda s: overwrite(ref(s), lambda _: b""), "bad-ref", (NORTH.id,)),
    "ref without newline": Case(lambda s: overwrite(ref(s), lambda d: d[:64]), "bad-ref", (NORTH.id,)),
    "long ref": Case(lambda s: overwrite(ref(s), lambda d: d + b"x"), "bad-ref", (NORTH.id,)),
    "upper-case ref": Case(lambda s: overwrite(ref(s), bytes.upper), "bad-ref", (NORTH.id,)),
    "ref to another mission": Case(lambda s: ref(s).write_text(f"{SOUTH.manifest_id}\n"), "bad-ref", (NORTH.id,)),
    "ref to a table": Case(lambda s: ref(s).write_text(f"{NORTH.manifest.table}\n"), "bad-manifest", (NORTH.id,)),
    "ref to an artifact": Case(lambda s: ref(s).write_text(f"{SHARED}\n"), "bad-manifest", (NORTH.id,)),
    "unsigned manifest": Case(lambda s: publish_by_hand(s, flight(by=())), "bad-signature", (NORTH.id,)),
    "stranger's manifest": Case(lambda s: publish_by_hand(s, flight(by=("x",))), "bad-signature", (NORTH.id,)),
    "lying identity": Case(lambda s: publish_by_hand(s, flight(identity=bytes(32))), "bad-manifest", (NORTH.id,)),
    "no root file": Case(lambda s: (s / "trust" / "1.root.cbor").unlink(), "bad-trust-chain", BOTH),
    "no trust folder": Case(lambda s: shutil.rmtree(s / "trust"), "bad-trust-chain", BOTH),
    "bad root file": Case(lambda s: flip(s / "trust" / "1.root.cbor", 60), "bad-trust-chain", BOTH),
    "huge root file": Case(lambda s: plant(s, "trust/1.root.cbor", bytes(100_000)), "bad-trust-chain", BOTH),
    "gap in the chain": Case(
        lambda s: plant(s, "trust/3.root.cbor", sign_root(next_root(next_root(ROOT)), "x")), "bad-trust-chain", BOTH
    ),
    "next root by a stranger": Case(
        lambda s: plant(s, "trust/2.root.cbor", sign_root(next_root(ROOT), "x")), "bad-trust-chain", BOTH
    ),
    "first root of another version": Case(
        lambda s: plant(s, "trust/1.root.cbor", sign_root(next_root(ROOT), "root-a")), "bad-trust-chain", BOTH
    ),
    "changed log": Case(lambda s: overwrite(s / "log", lambda d: d.replace(b"north", b"nerth", 1)), "bad-log"),
    "in the index alone": Case(indexed_and_gone, "index-only", information=True),
    "not in the index": Case(unindexed, "file-only", information=True),
    "a second name": Case(lambda s: os.link(file_of(s, SHARED), s.with_name("second")), "hard-link", information=True),
    "bad sector": Case(
        lambda _: None, "unreadable", BOTH, False, medium=lambda p, s: bad_sectors(p, file_of(s, SHARED).stat().st_ino)
    ),
    "wrong once": Case(
        lambda _: None,
        "transient",
        BOTH,
        quick=False,
        medium=lambda p, s: bad_sectors(p, file_of(s, SHARED).stat().st_ino, times=1),
    ),
    "log of noise": Case(lambda s: overwrite(s / "log", lambda _: b"noise\n"), "bad-log"),
}


def plant_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def everything_at_once(store: Path) -> set[ObjectId]:
    """Damage of as many kinds as one store holds; the ids of the objects that were hurt."""
    flip(file_of(store, SHARED), 3)
    overwrite(file_of(store, OWN), lambda data: data[:-1])
    overwrite(file_of(store, SOUTH.entry("descriptors/net/16/13-1150-1411.safetensors").id), lambda data: data + b"x")
    file_of(store, NORTH.manifest.table).unlink()
    misname(file_of(store, NORTH.entry(SHARD).id))
    path = file_of(store, OTHER)
    path.unlink()
    path.symlink_to("/etc/passwd")
    flip(store / "trust" / "1.root.cbor", 60)
    (store / "missions" / SOUTH.id).write_bytes(b"")
    overwrite(store / "log", lambda data: data + b"noise\n")
    plant(store, "notes.txt", b"not yours")
    plant(store, "objects/README", b"not yours either")
    (store / "tmp").rmdir()
    (store / "tmp").symlink_to("/tmp")
    (store / "quarantine").write_bytes(b"in the way")
    shutil.rmtree(store / "index", ignore_errors=True)
    (store / "index").write_bytes(b"in the way")
    return {SHARED, OWN, NORTH.manifest.table, NORTH.entry(SHARD).id, OTHER, *(one.id for one in SOUTH.table.entries)}


def names_of(case: Case, findings: Iterable[str]) -> list[str]:
    """The kinds that an audit named. A planted manifest leaves the one before in no closure; that is no damage."""
    return [kind for kind in findings if kind != "unreferenced" or case.kind == kind]


def mended_by_command(name: str, folder: Path) -> list[str]:
    """Makes a damage on a copy of a store and mends it with the programs; what went otherwise than it should.

    The audit names it by its kind and names nothing else, and writes nothing. The repair, from a replica, makes both
    missions flyable, and touches nothing at the replica.
    """
    case, replica, store = CASES[name], folder / "replica", folder / "hurt" / "store"
    make_store(replica)
    store.parent.mkdir()
    copy_of(replica, store)
    case.damage(store)
    environment = {"XDG_STATE_HOME": str(folder / "state")}
    before, kept, wrong = listing(store), listing(replica), []
    with pytest.MonkeyPatch.context() as patch:
        case.medium(patch, store)
        audit = flightbag("fsck", store, "--full", "--json", env=environment)
        if listing(store) != before:
            wrong.append("the audit wrote into the store")
        kinds = names_of(case, (finding["kind"] for finding in audit.json["findings"]))
        if kinds != [case.kind]:
            wrong.append(f"named {kinds}, not {case.kind}")
        status = 0 if case.information else 8 if case.kind == "unreadable" else 4
        if audit.status != status:
            wrong.append(f"the audit ended with {audit.status}, not {status}")
        flightbag("fsck", store, "--repair", "--full", "--from", replica, env=environment)
    if listing(replica) != kept:
        wrong.append("the repair wrote into the replica")
    after = flightbag("fsck", store, "--full", "--json", env=environment)
    if after.status != (4 if case.hopeless else 0):
        wrong.append(f"after the repair the audit ends with {after.status}: {after.out}")
    wrong += [f"{mission} is not flyable" for mission in BOTH if not check(store, mission).go]
    return wrong
