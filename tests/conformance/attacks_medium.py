"""Attacks by the medium itself: things that act when they are opened, crowds of names, and no answer at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from store.audit.fsck import fsck
from store.audit.scope import FULL, QUICK, Scope
from store.disk.media import FOLDER_LIMIT, SHARD_LIMIT, Media, object_path
from store.errors import FlightbagError
from store.takeoff.evidence import StoreEvidence
from store.takeoff.verify import verify_mission
from store.trust.root import MAX_STEPS
from tests.conformance.attacks import ENGINE, GO, Groups, Row
from tests.support.missions import BINDING, pinned
from tests.support.opens import make_device, opens_of
from tests.support.stores import NORTH, make_store

SHARD = os.path.dirname(object_path(NORTH.entry(ENGINE).id))


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody did to a store: `make` is called with the path of `name`, where nothing lies any more."""

    name: str
    make: Callable[[Path], object] | None = None
    scope: Scope = FULL


def _changed(change: Change, folder: Path) -> Path:
    store = make_store(folder / "store", NORTH)
    path = store / change.name
    if change.make is not None:
        if not path.is_dir():
            path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        change.make(path)
    return store


def unopened(change: Change, folder: Path) -> str:
    """The takeoff check, and whether it opened the thing: a device would have acted by then."""
    store = _changed(change, folder)
    with opens_of(store / change.name) as opens, Media(store) as media:
        verdict = verify_mission(StoreEvidence(media), NORTH.id, pinned(), BINDING)
    came = ", ".join(f"{one.step} {one.kind}" for one in verdict.findings) or GO
    return f"opened, {came}" if opens and change.make is not None else came


def audited(change: Change, folder: Path) -> str:
    """The kinds of errors of an audit. Whatever crowd there is, what is whole flies, and is found flyable."""
    store = _changed(change, folder)
    with Media(store) as media:
        assert verify_mission(StoreEvidence(media), NORTH.id, pinned(), BINDING).go
        audit = fsck(media, change.scope)
    assert audit.missions[NORTH.id] != "grounded"
    return ", ".join(sorted({one.kind for one in audit.findings if not one.information})) or GO


def listed(change: Change, folder: Path) -> str:
    """The check of every mission: a list that is too long is not GO by being cut."""
    store = _changed(change, folder)
    with Media(store) as media:
        try:
            assert StoreEvidence(media).missions() == [NORTH.id]
        except FlightbagError as error:
            return f"{type(error).__name__} {error.kind}"
    return GO


_SCRIPT = """
import sys, time
from tools.patience import Bound, patience
with patience(Bound("the medium", 0.5)):
    time.sleep(float(sys.argv[1]))
print("GO")
"""


def waited(seconds: float, _folder: Path) -> str:
    """What a command says of a medium that answers after so many seconds, and is waited for half a second."""
    done = subprocess.run([sys.executable, "-c", _SCRIPT, str(seconds)], capture_output=True, text=True, check=False)
    return GO if (done.returncode, done.stdout) == (0, "GO\n") else f"{done.returncode} {done.stdout.strip()}".strip()


def crowd(number: int, name: str = "{}") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        for one in range(number):
            (folder / name.format(one)).touch()

    return make


def things() -> Iterator[Row]:
    yield "the-original", GO, Change("log")
    places = {
        "ref": (f"missions/{NORTH.id}", "A wrong-type"),
        "manifest": (object_path(NORTH.manifest_id), "A wrong-type"),
        "table": (object_path(NORTH.manifest.table), "D wrong-type"),
        "engine": (object_path(NORTH.entry(ENGINE).id), "F wrong-type"),
        "next-root": ("trust/2.root.cbor", "B wrong-type"),
        "root-after-a-hole": ("trust/3.root.cbor", "B bad-trust-chain"),
        "last-root-that-is-asked-for": (f"trust/{MAX_STEPS + 2}.root.cbor", "B bad-trust-chain"),
        "log": ("log", GO),
        "lock": ("lock/store", GO),
    }
    for name, (path, refusal) in places.items():
        yield f"a-device-for-the-{name}", refusal, Change(path, make_device)
        yield f"a-fifo-for-the-{name}", refusal, Change(path, os.mkfifo)


def crowds() -> Iterator[Row]:
    yield "the-original", GO, Change("missions")
    some = crowd(FOLDER_LIMIT + 1, "x{}")
    for folder in ("", "missions", "trust", "drafts", "pins", "trash", "quarantine", "lock", "objects"):
        yield f"in-{folder or 'the-store'}", "too-many", Change(folder, some)
    yield "in-a-folder-of-objects", "too-many", Change(SHARD, crowd(SHARD_LIMIT + 1, "{:062x}"))
    exclusive = replace(QUICK, exclusive=True)
    lone = crowd(FOLDER_LIMIT + 1, "{:062x}")
    yield "of-objects-that-nothing-needs", "too-many, unreferenced", Change("objects/00", lone, exclusive)
    yield "as-many-as-may-be", "stray", Change("trust", crowd(FOLDER_LIMIT - 2, "x{}"))


def lists() -> Iterator[Row]:
    yield "the-original", GO, Change("missions")
    yield "more-names-than-missions", "Unavailable too-many", Change("missions", crowd(FOLDER_LIMIT, "m-{}"))


def waits() -> Iterator[Row]:
    yield "the-original", GO, 0
    yield "an-answer-that-comes-too-late", "3", 1.5
    yield "no-answer", "3", 50


GROUPS: Groups = {
    "unopened": (unopened, things),
    "crowded": (audited, crowds),
    "crowded-missions": (listed, lists),
    "unanswered": (waited, waits),
}
