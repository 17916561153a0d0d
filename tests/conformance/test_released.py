"""What each release wrote, this version reads: ten years later, as a store that was found in a drawer is read.

`make_released` says what the folders of `released` have. A folder that is there belongs to a release: it never changes.
"""

from __future__ import annotations

import io
import json
import lzma
import tarfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

import store
from builders import onboard
from store.format.ids import BuildKey, ObjectId
from store.ground.repository import Repository
from store.remotes.shared_cache import SharedCache, shelf_of
from tests.conformance import independent
from tests.conformance.independent import Ask
from tests.conformance.make_released import ARCHIVE, FACTS, HASHES, OWNERS, PILOTS, RELEASED, write_keys
from tests.conformance.make_vectors import FOLDER as VECTORS
from tests.support.commands import Ran, code_of, flightbag

LATER = 10 * 365 * 86_400


@dataclass(frozen=True)
class Drawer:
    """The unpacked folder of a release, and what is known of it."""

    folder: Path
    facts: dict[str, Any]

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    @property
    def at(self) -> int:
        """A time at which its mission flew."""
        at: int = self.facts["at"]
        return at

    @property
    def pinned(self) -> Path:
        return self / "pinned.root.cbor"

    def verify(self, store: Path, *more: object) -> Ran:
        """Verify the mission `ridge` by the pinned root, as of the time at which it flew."""
        then = datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        asked = ("--aircraft", self.facts["aircraft"], "--host", self.facts["host"])
        return flightbag("verify", store, "ridge", "--trust", self.pinned, "--at", then, *asked, "--json", *more)

    def check(self, name: str = "ground", mission: str = "ridge", *, now: int) -> store.Verdict:
        """The takeoff check of a mission in the store of this name."""
        asked = {"aircraft": self.facts["aircraft"], "host": self.facts["host"]}
        return store.takeoff_check(self / name, mission, trust=self.pinned.read_bytes(), now=now, **asked)


def flight(verdict: store.Verdict) -> str:
    """The flight of a mission that is GO."""
    assert verdict.mission is not None, verdict.findings
    return verdict.mission.facts.flight


@pytest.fixture(params=sorted(path.name for path in RELEASED.iterdir()))
def drawer(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drawer:
    """A copy of what a release wrote, which is the current folder. The clock is ten years ahead of it."""
    released = RELEASED / request.param
    written = lzma.decompress((released / ARCHIVE).read_bytes())
    with tarfile.open(fileobj=io.BytesIO(written)) as tar:
        tar.extractall(tmp_path, filter="tar")
    facts = json.loads((released / FACTS).read_text())
    assert facts["version"] == request.param
    monkeypatch.chdir(tmp_path)
    ahead, clock = facts["at"] + LATER - time.time(), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + ahead)
    return Drawer(tmp_path, facts)


def test_the_folders_are_small() -> None:
    for folder in RELEASED.iterdir():
        assert sum(path.stat().st_size for path in folder.iterdir()) < 150_000


def test_the_mission_is_go_at_its_time_and_expired_now(drawer: Drawer) -> None:
    for name in ("ground", "stick"):
        ran = drawer.verify(drawer / name)
        assert ran.status == 0, ran.out + ran.err
    assert [one.kind for one in drawer.check(now=int(time.time())).findings] == ["expired"]


def test_both_verifiers_agree(drawer: Drawer) -> None:
    pinned = drawer.pinned.read_bytes()
    for mission, now in (("ridge", drawer.at), ("ridge", drawer.at + LATER), ("valley", drawer.at)):
        ask = Ask(drawer.facts["aircraft"], drawer.facts["host"], None, now)
        go, findings = independent.verify(drawer / "ground", mission, pinned, ask)
        verdict = drawer.check(mission=mission, now=now)
        assert (go, findings) == (verdict.go, {(one.step, one.kind) for one in verdict.findings})


def test_the_audit_finds_it_clean(drawer: Drawer) -> None:
    for name in ("ground", "earlier", "stick"):
        ran = flightbag("fsck", drawer / name, "--full")
        assert ran.status == 0, ran.out
        assert "0 findings" in ran.words
    assert f"{drawer.facts['objects']} objects" in flightbag("fsck", drawer / "ground", "--full").words


def test_every_artifact_loads_with_its_bytes(drawer: Drawer) -> None:
    verdict = drawer.check(now=drawer.at)
    assert verdict.mission is not None
    loaded = {}
    for entry in verdict.mission.table.entries:
        loaded[entry.name] = str(ObjectId.of(bytes(store.load(verdict.mission, entry.name, kind=entry.kind))))
    assert loaded == drawer.facts["entries"]


def test_the_engine_still_equals_the_map(drawer: Drawer) -> None:
    verdict = drawer.check(now=drawer.at)
    assert verdict.mission is not None
    assert onboard.probe(verdict.mission, "embedder").holds


def test_the_aircraft_remembers(drawer: Drawer) -> None:
    """Without a clock that it trusts, it knows that the time of issue has passed, and no more."""
    shown = flightbag("aircraft", "show", "--state", drawer / "state", "--json").json
    assert shown["id"] == drawer.facts["aircraft"]
    assert shown["consumed"] == ["2026-12-01-01"]
    ran = flightbag("verify", drawer / "stick", "ridge", "--state", drawer / "state", "--flight", "2026-12-02-01")
    assert ran.status == 0, ran.out
    ran = flightbag("verify", drawer / "earlier", "ridge", "--state", drawer / "state", "--json")
    kinds = {one["kind"] for one in ran.json["findings"]}
    assert {"rolled-back", "consumed-flight"} <= kinds
    assert independent.state(drawer / "state")["consumed"] == ["2026-12-01-01"]


def test_the_receipts_are_listed(drawer: Drawer) -> None:
    ran = flightbag("receipts", drawer / "ground", "--fleet", drawer / "fleet.keys")
    assert ran.status == 0, ran.out + ran.err
    assert "UNKNOWN" not in ran.out
    assert drawer.facts["aircraft"] in ran.out
    assert "2026-12-01-01" in ran.out  # flown
    assert len([*(drawer / "ground/receipts").iterdir()]) >= 4


def members(bag: Path) -> list[str]:
    with tarfile.open(bag) as tar:
        return tar.getnames()


@pytest.mark.parametrize("forwards", [True, False])
def test_the_bags_are_unpacked(drawer: Drawer, *, forwards: bool) -> None:
    """Parts in any order, with pieces and differences, into the store against which they were packed."""
    parts = sorted((drawer / "bags").iterdir(), reverse=not forwards)
    assert any(name.startswith("deltas/") for part in parts for name in members(part))
    *first, last = parts
    ran = flightbag("unpack", drawer / "earlier", *first)
    assert ran.status == 1, ran.out + ran.err
    assert flight(drawer.check("earlier", now=drawer.at)) == "2026-12-01-01"
    ran = flightbag("unpack", drawer / "earlier", last)
    assert ran.status == 0, ran.out + ran.err
    assert flight(drawer.check("earlier", now=drawer.at)) == "2026-12-02-01"


def test_it_is_synced_and_packed_again(drawer: Drawer) -> None:
    ran = flightbag("sync", drawer / "ground", drawer / "new")
    assert ran.status == 0, ran.out + ran.err
    assert drawer.check("new", now=drawer.at).go
    for pattern in ("orders/*", "receipts/*", "withdrawn/*.mission", "withdrawn/*.release", "trust/*.root.cbor"):
        carried = {path.name for path in (drawer / "new").glob(pattern)}
        assert carried == {path.name for path in (drawer / "ground").glob(pattern)}, pattern
        assert carried, pattern
    ran = flightbag("pack", drawer / "ground", "ridge", "-o", drawer / "again.tar")
    assert ran.status == 0, ran.err
    assert flightbag("unpack", drawer / "third", drawer / "again.tar").status == 0
    assert drawer.check("third", now=drawer.at).go


def test_proof_checkout_and_history(drawer: Drawer) -> None:
    proof = ("check-proof", drawer / "camera.proof", drawer / "camera.yaml", "--trust", drawer.pinned)
    assert flightbag(*proof).status == 0
    independent.prove((drawer / "camera.proof").read_bytes(), drawer.pinned.read_bytes())
    assert flightbag("checkout", "--check", drawer / "checkout", "--trust", drawer.pinned).status == 0
    for args in (("log",), ("stats",), ("pin",), ("gc", "--dry-run"), ("release", "show"), ("trust", "show")):
        *words, last = args
        command = [*args, drawer / "ground"] if not last.startswith("--") else [*words, drawer / "ground", last]
        ran = flightbag(*command)
        assert ran.status == 0, ran.out + ran.err
    lines = (drawer / "ground/log").read_text() + (drawer / "stick/log").read_text()
    events = {
        "published",
        "received",
        "signed",
        "rotated",
        "rolled-back",
        "removed",
        "ordered",
        "withdrawn",
        "repaired",
    }
    assert {json.loads(line)["event"] for line in lines.splitlines()} == {*events, "collected"}


def test_orders_wait_and_the_shared_cache_gives(drawer: Drawer) -> None:
    ran = flightbag("engines", "fulfil", drawer / "ground")
    assert ran.status == 0, ran.out + ran.err
    assert "cpu-aarch64" in ran.words
    keys = [BuildKey(bytes.fromhex(path.name)) for path in (drawer / "cache/built").rglob("*") if path.is_file()]
    with Repository.open(drawer / "ground") as repository:
        cache = SharedCache(shelf_of(str(drawer / "cache")), repository.trust_root().root)
        assert set(cache.find(keys)) == {*keys}
    assert len(keys) >= 4


def test_what_lacked_a_signature_is_signed_today(drawer: Drawer) -> None:
    """A draft of a mission, by a key under a passphrase; and a draft of a trust root."""
    code = code_of("show", drawer / "ground", "made", "--draft")
    key = ("--key", drawer / "pilot.key", "--passphrase-file", drawer / "passphrase", "--expect", code)
    ran = flightbag("sign", drawer / "ground", "made", *key)
    assert ran.status == 0, ran.out + ran.err
    verdict = drawer.check(mission="made", now=int(time.time()))
    assert "expired" not in {one.kind for one in verdict.findings}
    assert not {one.step for one in verdict.findings} & {"A", "B", "C", "D", "F"}

    write_keys(*OWNERS, *PILOTS)
    code = code_of("trust", "show", drawer / "later.draft")
    ran = flightbag("trust", "sign", drawer / "later.draft", "--key", "ben.key", "--expect", code)
    assert ran.status == 0, ran.err
    ran = flightbag("trust", "rotate", drawer / "ground", drawer / "later.draft", "--expect", code)
    assert ran.status == 0, ran.err
    assert (drawer / "ground/trust/3.root.cbor").is_file()
    assert drawer.verify(drawer / "ground").status == 0


@pytest.mark.parametrize("folder", sorted(RELEASED.iterdir()), ids=lambda folder: folder.name)
def test_the_golden_vectors_of_a_release_are_those_of_today(folder: Path) -> None:
    """Format 1 is frozen (FORMAT, its head): a vector may come, none changes and none goes."""
    for line in (folder / HASHES).read_text().splitlines():
        digest, name = line.split()
        assert blake3((VECTORS / name).read_bytes()).hexdigest() == digest, name
