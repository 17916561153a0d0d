"""Who may send an aircraft up, and with what: the trust commands as three operators and one aircraft live them.

docs/tutorials/three-operators.md tells the same story.
"""

from __future__ import annotations

import math
import re
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.example.backbone import write_backbone
from builders.example.terrain import write_terrain
from store.format.cbor import INT_MAX
from store.format.cose import Envelope
from store.format.entries import sorted_table
from store.format.ids import ObjectId
from store.format.manifest import CONTENT_TYPE, PAYLOAD_LIMIT, TIME_MAX, Manifest
from store.ground.repository import Repository
from store.ground.writer import writing
from store.takeoff.verify import read_table
from tests.support.commands import Ran, code_of, flightbag, listing
from tests.support.field import WORLD, ZOOMS, Desk

HOST = "cpu-x86_64"


class Fleet(Desk):
    """A desk of which every key is somewhere else: operators ada, ben and cho, the lab, two pilots."""

    def path(self, name: str) -> Path:
        return self.folder / name

    def ok(self, *args: object) -> Ran:
        ran = flightbag(*args)
        assert ran.status == 0, ran.out + ran.err
        return ran

    def json(self, *args: object) -> Any:
        return self.ok(*args, "--json").json

    def refused(self, *args: object, status: int = 1) -> str:
        ran = flightbag(*args, "--json")
        assert ran.status == status, ran.out + ran.err
        return str(ran.json["error"]["kind"])

    def new_key(self, name: str) -> Path:
        self.ok("keys", "new", self.path(name), "--no-passphrase")
        return self.path(name)

    def pub(self, name: str) -> Path:
        return self.path(f"{name}.pub")

    def kid(self, name: str) -> str:
        return str(self.json("keys", "show", self.pub(name))["kid"])

    def edit(self, verb: str, *args: object) -> Any:
        return self.json("trust", verb, self.store, self.path("draft"), *args)

    def expected(self, *view: object) -> tuple[str, str]:
        """The option of somebody who has looked at what a view shows."""
        return "--expect", code_of(*view)

    def of_draft(self) -> tuple[str, str]:
        return self.expected("trust", "show", self.path("draft"))

    def of_mission(self, mission: str) -> tuple[str, str]:
        return self.expected("show", self.store, mission, "--draft")

    def back(self, mission: str) -> tuple[str, str]:
        dry = self.json("rollback", self.store, mission, "--key", self.path("pilot"), "--dry-run")
        return "--expect", dry["to_code"]

    def rotate(self, *signers: str) -> Any:
        """Has the draft signed, one operator at a time, and puts it into effect."""
        expected = self.of_draft()
        for name in signers:
            self.json("trust", "sign", self.path("draft"), "--key", self.path(name), *expected)
        done = self.json("trust", "rotate", self.store, self.path("draft"), *expected)
        self.path("draft").unlink()
        return done

    def make(self, mission: str, *keys: str, **changes: Any) -> Any:
        path = self.path(f"{mission}.toml")
        if not path.exists() or changes:
            path = self.write_mission(mission, **changes)
        keyed = [part for name in keys for part in ("--key", self.path(name))]
        return self.json("build", path, "--store", self.store, *keyed)

    def release(self, name: str, mission: str, *keys: str) -> Any:
        file = self.path(f"{name}.release")
        self.ok("release", "new", self.store, file, "--name", name, "--mission", mission)
        for key in keys:
            expected = self.expected("release", "show", file)
            done = self.json("release", "sign", self.store, file, "--key", self.path(key), *expected)
        return done

    @property
    def stick(self) -> Path:
        return self.path("stick")

    def takeoff(self, *more: object) -> tuple[int, Any]:
        """What the aircraft says of the stick."""
        ran = flightbag("verify", self.stick, "--state", self.path("state"), "--json", *more)
        return ran.status, ran.json


def kinds(said: Any) -> list[str]:
    return [finding["kind"] for finding in said["findings"]]


@pytest.fixture(scope="session")
def _first_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    tmp_path = tmp_path_factory.mktemp("fleet")
    fleet = Fleet(tmp_path)
    write_terrain(tmp_path / "terrain.mbtiles", WORLD, ZOOMS)
    write_backbone(tmp_path / "embedder.onnx")
    (tmp_path / "camera.yaml").write_text("fx: 712.4\n")
    fleet.ok("init", fleet.store)
    for name in ("ada", "ben", "cho", "lab", "pilot", "copilot"):
        fleet.new_key(name)
    made = fleet.json(
        *("trust", "new", fleet.store, "--domain", "ridge fleet", "--draft", tmp_path / "draft"),
        *("--root-key", fleet.path("ada"), "--root-key", fleet.pub("ben"), "--root-key", fleet.pub("cho")),
        *("--mission-key", fleet.pub("pilot"), "--mission-key", fleet.pub("copilot")),
        *("--release-key", fleet.pub("lab")),
        *("--threshold", "root=2", "--threshold", "mission=2"),
    )
    assert made["signatures"] == [{"root": 1, "have": 1, "threshold": 2}]
    assert fleet.refused("trust", "rotate", fleet.store, tmp_path / "draft") == "threshold"
    fleet.rotate("ben")
    shutil.copy(fleet.store / "trust/1.root.cbor", fleet.root)
    fleet.ok(
        *(
            "aircraft",
            "enrol",
            "--state",
            fleet.path("state"),
            "--id",
            "uav-07",
            "--host",
            f"{HOST}-avx2",
            "--trust",
            fleet.root,
        )
    )
    fleet.edit("set-releases", "required")
    fleet.rotate("ada", "cho")
    return fleet


@pytest.fixture
def fleet(_first_fleet: Fleet, tmp_path: Path) -> Fleet:
    """A domain: root by two of three, missions by two, releases required and by the lab."""
    shutil.copytree(_first_fleet.folder, tmp_path / "fleet")
    return Fleet(tmp_path / "fleet")


def test_trust_new(tmp_path: Path) -> None:
    store = tmp_path / "store"
    flightbag("init", store)
    for name in ("o1", "o2", "m", "d"):
        flightbag("keys", "new", tmp_path / name, "--no-passphrase")
    args = ("trust", "new", store, "--domain", "fleet", "--mission-key", tmp_path / "m.pub")
    too_few = flightbag(
        *args, "--root-key", tmp_path / "o1", "--root-key", tmp_path / "o2.pub", "--threshold", "root=2"
    )
    assert too_few.status == 2
    assert not (store / "trust/1.root.cbor").exists()
    assert flightbag(*args, "--root-key", tmp_path / "o1", "--threshold", "root=0").status == 2
    assert flightbag(*args, "--root-key", tmp_path / "o1", "--threshold", "mission=2").status == 2
    both = ("--root-key", tmp_path / "o1", "--root-key", tmp_path / "o2", "--threshold", "root=2")
    assert flightbag(*args, *both, "--builder-key", tmp_path / "m.pub").status == 2
    assert flightbag(*args, *both, "--builder-key", tmp_path / "d.pub").status == 0
    assert "builder: 1 of 1 key" in flightbag("trust", "show", store).out
    assert flightbag(*args, *both).status == 1, "a root is never replaced"


def test_names_stand_beside_the_kids_that_they_are_of(tmp_path: Path) -> None:
    store, draft = tmp_path / "store", tmp_path / "next"
    flightbag("init", store)
    kids = {}
    for name in ("owner", "pilot", "relief", "=x"):
        kids[name] = flightbag("keys", "new", tmp_path / name, "--no-passphrase", "--json").json["kid"]
    files = (
        "--root-key",
        tmp_path / "owner",
        "--mission-key",
        tmp_path / "pilot.pub",
        "--mission-key",
        tmp_path / "=x",
    )
    new = ("trust", "new", store, "--domain", "fleet", *files)
    for bad in ("Pia", f"{tmp_path}/nobody=Pia", f"{tmp_path}/pilot.pub=Pia\n", f"{tmp_path}/pilot.pub="):
        assert flightbag(*new, "--name", bad).status == 2
    names = (f"{tmp_path}/pilot.pub=Pia of the ridge", f"{tmp_path}/owner=The owner", f"{tmp_path}/=x=Odd")
    assert flightbag(*new, *(word for name in names for word in ("--name", name))).status == 0
    shown = flightbag("trust", "show", store)
    assert f"  {kids['pilot'][:12]}  Pia of the ridge\n" in shown.out
    assert f"  {kids['owner'][:12]}  The owner  has signed\n" in shown.out
    add = ("trust", "add-key", store, draft, "mission")
    again = flightbag(*add, tmp_path / "pilot.pub")
    assert (again.status, f"{kids['pilot'][:12]} (Pia of the ridge) is already in the role" in again.err) == (2, True)
    taken = flightbag(*add, tmp_path / "relief.pub", "--name", "The owner")
    assert (taken.status, "already the name of the key" in taken.err) == (2, True)
    assert f"+ mission {kids['relief'][:12]} (Rea)" in flightbag(*add, tmp_path / "relief.pub", "--name", "Rea").out
    renamed = flightbag(*add, tmp_path / "pilot.pub", "--name", "Pia")
    assert f"{kids['pilot'][:12]} is called Pia, before Pia of the ridge" in renamed.out
    revoked = flightbag("trust", "revoke", store, draft, tmp_path / "pilot.pub")
    assert f"revoked {kids['pilot'][:12]} (Pia)" in revoked.out
    assert flightbag("trust", "show", draft, "--json").json["names"] == {
        kids["owner"]: "The owner", kids["pilot"]: "Pia", kids["relief"]: "Rea", kids["=x"]: "Odd",
    }  # fmt: skip


def test_a_root_shows_who_has_signed_it(tmp_path: Path) -> None:
    """The keys of the root before, too, where that root is at hand to check them."""
    store, draft, kids = tmp_path / "store", tmp_path / "next", []
    for name in ("Ada", "Ben"):
        new = flightbag("keys", "new", tmp_path / name, "--no-passphrase", "--name", name, "--json")
        kids.append({"kid": new.json["kid"], "name": name})
    ada, ben = tmp_path / "Ada", tmp_path / "Ben"
    for command in (
        ("init", store),
        ("trust", "new", store, "--domain", "fleet", "--root-key", ada, "--mission-key", f"{ben}.pub"),
        ("trust", "add-key", store, draft, "root", f"{ben}.pub"),
        ("trust", "remove-key", store, draft, "root", f"{ada}.pub"),
    ):
        ran = flightbag(*command)
        assert ran.status == 0, ran.err
    sign = ("trust", "sign", draft, "--key", ada, "--key", ben, "--expect", code_of("trust", "show", draft))
    assert flightbag(*sign).status == 0
    assert flightbag("trust", "show", draft, "--json").json["signers"] == kids[::-1]
    assert flightbag("trust", "rotate", store, draft).status == 0
    shown = flightbag("trust", "show", store).out
    assert f"root: 1 of 1 key\n  {kids[1]['kid'][:12]}  Ben  has signed\n" in shown
    assert f"root key of trust root 1 alone\n  {kids[0]['kid'][:12]}  Ada  has signed\n" in shown
    assert flightbag("trust", "show", store, "--json").json["signers"] == kids[::-1]
    file = store / "trust/2.root.cbor"
    assert kids[0]["kid"][:12] not in flightbag("trust", "show", file).out
    assert flightbag("trust", "show", file, "--json").json["signers"] == kids[1:]


def test_three_operators_and_an_aircraft(fleet: Fleet) -> None:
    # Nothing flies whose engine the lab has not approved.
    report = fleet.make("left", "pilot", "copilot")
    assert report["outcome"] == "draft"
    assert "no valid release approves" in report["why"]
    done = fleet.release("winter", "left", "lab")
    assert done["object"]
    # The mission takes two pilots, who sign apart.
    report = fleet.make("left", "pilot")
    assert (report["outcome"], report["manifest"]) == ("draft", None)
    assert "1 of 2 required signatures" in report["why"]
    (row,) = fleet.json("ls", fleet.store)["missions"]
    assert (row["draft"], row["signatures"], row["threshold"]) == (True, 1, 2)
    shown = fleet.json("show", fleet.store, "left", "--draft")
    assert shown["issue"]["sequence"] == row["sequence"]
    assert (shown["signers"], shown["overtaken"]) == ([{"kid": fleet.kid("pilot"), "name": ""}], "")
    assert flightbag("show", fleet.store, "left").status == 1
    done = fleet.json("sign", fleet.store, "left", "--key", fleet.path("copilot"), *fleet.of_mission("left"))
    assert done["manifest"]
    assert not list((fleet.store / "drafts").iterdir())
    assert fleet.make("left", "pilot")["outcome"] == "unchanged"
    fleet.ok("sync", fleet.store, fleet.stick)

    # The aircraft has root 1; the stick alone brings it to root 2.
    status, said = fleet.takeoff("--flight", said_flight(fleet))
    assert (status, said["ok"]) == (0, True), said
    assert fleet.json("aircraft", "show", "--state", fleet.path("state"))["trust_root_version"] == 2

    # The copilot's key is lost: revoked, and replaced by a new one. The aircraft misses that, and the next one too.
    fleet.new_key("relief")
    fleet.edit("add-key", "mission", fleet.pub("relief"))
    fleet.edit("revoke", fleet.kid("copilot")[:12])
    fleet.rotate("ben", "cho")
    fleet.edit("set-threshold", "mission=1")
    fleet.rotate("ada", "ben")
    old = fleet.path("old")
    shutil.copytree(fleet.stick, old)
    assert fleet.make("left", "relief")["outcome"] == "built"
    fleet.ok("sync", fleet.store, fleet.stick)
    status, said = fleet.takeoff()
    assert (status, said["ok"]) == (0, True), said
    assert fleet.json("aircraft", "show", "--state", fleet.path("state"))["trust_root_version"] == 4

    # The old stick, signed with the key that was revoked, flies no more, though its chain knows nothing of that.
    shutil.rmtree(fleet.stick)
    old.rename(fleet.stick)
    status, said = fleet.takeoff()
    assert (status, kinds(said)) == (1, ["revoked-key"])


def said_flight(fleet: Fleet) -> str:
    opened = fleet.json("show", fleet.store, "left")
    return str(opened["mission"]["flight"])


def test_an_engine_from_a_stolen_laptop(fleet: Fleet) -> None:
    """Both pilots' keys were on it, and the store: still no engine that the lab has not seen."""
    fleet.make("left", "pilot", "copilot")
    fleet.release("winter", "left", "lab")
    assert fleet.make("left", "pilot", "copilot")["outcome"] == "built"
    write_backbone(fleet.path("evil.onnx"), seed=13)
    report = fleet.make("left", "pilot", "copilot", model=Path("evil.onnx"))
    assert report["outcome"] == "draft"
    assert fleet.refused("sign", fleet.store, "left", "--key", fleet.path("pilot")) == "unreleased"


@pytest.fixture(scope="session")
def _first_ready(_first_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    fleet = Fleet(tmp_path_factory.mktemp("ready") / "fleet")
    shutil.copytree(_first_fleet.folder, fleet.folder)
    fleet.make("left", "pilot", "copilot")
    fleet.release("winter", "left", "lab")
    assert fleet.make("left", "pilot", "copilot")["outcome"] == "built"
    return fleet


@pytest.fixture
def ready(_first_ready: Fleet, tmp_path: Path) -> Fleet:
    """A published mission, approved and signed by both pilots."""
    shutil.copytree(_first_ready.folder, tmp_path / "fleet")
    return Fleet(tmp_path / "fleet")


def verify(fleet: Fleet, *more: object) -> tuple[int, Any]:
    ran = flightbag("verify", fleet.store, "left", "--trust", fleet.root, "--json", *more)
    return ran.status, ran.json


class TestAuditor:
    """Who was not there."""

    def test_would_it_have_been_go_then(self, ready: Fleet) -> None:
        then = int(time.time())
        issued = ready.json("show", ready.store, "left")["issue"]["issued_at"]
        time.sleep(1.1)
        ready.edit("add-key", "mission", ready.pub("ada"))
        ready.edit("revoke", ready.kid("copilot"))
        ready.rotate("ben", "cho")
        status, said = verify(ready)
        assert (status, kinds(said)) == (1, ["revoked-key"])
        status, said = verify(ready, "--at", str(then))
        assert (status, said["missions"][0]["trust_root_version"]) == (0, 2)
        # Before the mission was there, and before its domain was.
        status, said = verify(ready, "--at", str(issued - 1))
        if status == 1:
            assert kinds(said) == ["missing"]
        else:
            assert (status, said["error"]["kind"]) == (2, "invalid")
        for wrong in ("2020-01-01T00:00:00Z", "yesterday", "2026-11-25"):
            ready.refused("verify", ready.store, "--trust", ready.root, "--at", wrong, status=2)

    def test_an_anchor(self, ready: Fleet) -> None:
        head = ready.json("log", ready.store)["events"][-1]["hash"]
        assert verify(ready, "--anchor", head)[0] == 0
        ready.make("left", "pilot", "copilot", flight="F-2")
        assert verify(ready, "--anchor", head)[0] == 0
        log = ready.store / "log"
        lines = log.read_bytes().splitlines(keepends=True)
        # The log is cut before the anchor, and goes on from there as if nothing had been.
        log.write_bytes(b"".join(lines[:3]))
        assert ready.refused("verify", ready.store, "left", "--trust", ready.root, "--anchor", head) == "bad-log"
        assert ready.refused("verify", ready.store, "left", "--trust", ready.root, "--anchor", "12", status=2)

    def test_the_log_says_who_did_what(self, ready: Fleet) -> None:
        events = [
            (row["event"], row.get("mission") or row.get("release") or row.get("version"))
            for row in ready.json("log", ready.store)["events"]
        ]
        assert events == [
            ("rotated", 1),
            ("rotated", 2),
            ("signed", "left"),
            ("signed", "winter"),
            ("published", "left"),
        ]
        assert flightbag("fsck", ready.store).status == 0

    def test_the_tiles_that_it_was_built_from(self, ready: Fleet) -> None:
        tiles = ready.path("terrain.mbtiles")
        where = "WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?"
        assert verify(ready, "--tiles", tiles)[0] == 0
        with closing(sqlite3.connect(tiles)) as db:
            area = ready.json("show", ready.store, "left")["mission"]["area"]["bbox"]
            west, south, east, north = (value / 1e7 for value in area)
            n = 2**15
            column = int((west + east + 360) / 720 * n)
            row = int((1 - math.asinh(math.tan(math.radians((south + north) / 2))) / math.pi) / 2 * n)
            place = (15, column, n - 1 - row)
            other = db.execute("SELECT tile_data FROM tiles WHERE zoom_level = 14 LIMIT 1").fetchone()[0]
            changed = db.execute(
                "UPDATE tiles SET tile_data = ? WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?",
                (other, *place),
            )
            assert changed.rowcount == 1
            db.commit()
        status, said = verify(ready, "--tiles", tiles)
        assert status == 1
        found = said["findings"]
        assert [(one["step"], one["kind"]) for one in found] == [("G", "other-tiles")] * 2
        assert "tiles changed" in found[1]["message"]
        assert found[1]["entry"].startswith("descriptors/embedder/15/")
        with closing(sqlite3.connect(tiles)) as db:
            db.execute(f"DELETE FROM tiles {where}", place)
            db.commit()
        _, said = verify(ready, "--tiles", tiles)
        assert f"gone: 15/{column}/{row}" in said["findings"][1]["message"]
        assert verify(ready, "--tiles", ready.path("none.mbtiles"))[0] == 2


class TestProof:
    def test_one_engine_with_nothing_else_at_hand(self, ready: Fleet, tmp_path: Path) -> None:
        shown = ready.json("show", ready.store, "left")
        entry = next(one for one in shown["entries"] if one["kind"] == "engine")
        away = tmp_path / "away"
        away.mkdir()
        ready.ok("prove", ready.store, "left", entry["name"], "-o", away / "proof")
        shutil.copy(ready.store / "objects" / entry["id"][:2] / entry["id"][2:], away / "engine")
        (away / "engine").chmod(0o644)

        def checked(*more: object) -> Ran:
            return flightbag("check-proof", away / "proof", away / "engine", "--trust", ready.root, "--json", *more)

        assert checked().json["entry"] == entry["name"]
        data = (away / "engine").read_bytes()
        for bad, kind in ((data[:-1], "truncated"), (data + b"x", "oversized"), (b"x" + data[1:], "bit-flip")):
            (away / "engine").write_bytes(bad)
            ran = checked()
            assert (ran.status, ran.json["error"]["kind"]) == (1, kind)
        (away / "engine").write_bytes(data)
        (away / "proof").write_bytes((away / "proof").read_bytes()[:-1])
        assert checked().status == 1
        assert flightbag("prove", ready.store, "left", "engines/none/x.onnx", "-o", away / "x").status == 1
        assert not (away / "x").exists()


class TestSigner:
    """A key that lives in a token: a command that is given the bytes and gives the signature."""

    @pytest.fixture
    def token(self, fleet: Fleet) -> str:
        script = fleet.path("hsm.py")
        script.write_text(
            "import os, sys\n"
            "from cryptography.hazmat.primitives.serialization import load_pem_private_key\n"
            "key = load_pem_private_key(open(sys.argv[1], 'rb').read(), None)\n"
            "assert len(os.environ['FLIGHTBAG_KID']) == 64\n"
            "sys.stdout.buffer.write(key.sign(sys.stdin.buffer.read()))\n"
        )
        return f"{sys.executable} {script}"

    def test_signs(self, fleet: Fleet, token: str) -> None:
        fleet.make("left", "pilot", "copilot")
        file = fleet.path("winter.release")
        fleet.ok("release", "new", fleet.store, file, "--name", "winter", "--mission", "left")
        command = ("--key", fleet.pub("lab"), "--signer", f"{token} {fleet.path('lab')}")
        assert fleet.json("release", "sign", fleet.store, file, *command, *fleet.expected("release", "show", file))[
            "object"
        ]
        assert fleet.make("left", "pilot")["outcome"] == "draft"
        command = ("--key", fleet.pub("copilot"), "--signer", f"{token} {fleet.path('copilot')}")
        assert fleet.json("sign", fleet.store, "left", *command, *fleet.of_mission("left"))["manifest"]

    @pytest.mark.parametrize(
        ("command", "status", "kind"),
        [
            ("false", 3, "signer"),
            ("/no/such/program", 3, "signer"),
            ("head -c 63 /dev/zero", 3, "signer"),
            ("head -c 64 /dev/zero", 1, "bad-signature"),
            ("'unbalanced", 3, "signer"),
            ("", 3, "signer"),
        ],
    )
    def test_a_command_that_does_not_sign(self, fleet: Fleet, command: str, status: int, kind: str) -> None:
        fleet.edit("set-threshold", "mission=1")
        before = fleet.path("draft").read_bytes()
        args = ("trust", "sign", fleet.path("draft"), "--key", fleet.pub("ada"), "--signer", command, *fleet.of_draft())
        assert fleet.refused(*args, status=status) == kind
        assert fleet.path("draft").read_bytes() == before

    def test_a_public_key_alone_signs_nothing(self, fleet: Fleet) -> None:
        fleet.edit("set-threshold", "mission=1")
        fleet.refused("trust", "sign", fleet.path("draft"), "--key", fleet.pub("ada"), *fleet.of_draft(), status=2)
        args = ("trust", "sign", fleet.path("draft"), "--key", fleet.path("ada"), "--signer", "true", *fleet.of_draft())
        fleet.refused(*args, status=2)


class TestRefusals:
    """Before anything is written."""

    @pytest.mark.parametrize(("name", "kind"), [("lab", "unknown-signer"), ("ada", "unknown-signer")])
    def test_a_key_of_another_role(self, ready: Fleet, name: str, kind: str) -> None:
        path = ready.write_mission("left", flight="F-2")
        before = listing(ready.store)
        args = ("build", path, "--store", ready.store, "--key", ready.path(name))
        assert ready.refused(*args) == kind
        assert listing(ready.store) == before
        ready.make("left", "pilot")
        # The lock of the mission is held before any key is opened.
        before = listing(ready.store, without=("lock",))
        assert ready.refused("sign", ready.store, "left", "--key", ready.path(name), *ready.of_mission("left")) == kind
        assert listing(ready.store, without=("lock",)) == before

    def test_a_draft_that_was_overtaken(self, ready: Fleet) -> None:
        ready.make("left", "pilot", flight="F-2")
        ready.edit("set-threshold", "mission=1")
        ready.rotate("ada", "ben")
        assert ready.refused("sign", ready.store, "left", "--key", ready.path("copilot")) == "stale-draft"

    def test_a_draft_with_a_forged_signature(self, ready: Fleet) -> None:
        ready.make("left", "pilot", flight="F-2")
        draft = ready.store / "drafts/left"
        data = bytearray(draft.read_bytes())
        data[-1] ^= 1
        draft.write_bytes(data)
        assert ready.refused("sign", ready.store, "left", "--key", ready.path("copilot")) == "bad-signature"

    def test_a_build_adds_its_signature_to_the_draft(self, ready: Fleet) -> None:
        ready.make("left", "pilot", flight="F-2")
        first = (ready.store / "drafts/left").read_bytes()
        assert ready.make("left", "pilot")["outcome"] == "draft"
        assert (ready.store / "drafts/left").read_bytes() == first
        assert ready.make("left", "copilot")["outcome"] == "built"
        assert verify(ready)[0] == 0

    def test_a_rollback_may_be_a_draft_too(self, ready: Fleet) -> None:
        ready.make("left", "pilot", "copilot", flight="F-2")
        done = ready.json("rollback", ready.store, "left", "--key", ready.path("pilot"), *ready.back("left"))
        assert (done["manifest"], done["signatures"]) == (None, 1)
        assert ready.json("sign", ready.store, "left", "--key", ready.path("copilot"), *ready.of_mission("left"))[
            "manifest"
        ]
        assert said_flight(ready) != "F-2"

    def test_trust_inside_what_is_verified(self, ready: Fleet) -> None:
        inside = ready.store / "trust/1.root.cbor"
        assert flightbag("verify", ready.store, "--trust", inside).status == 2
        inside = ready.store / "state"
        assert flightbag("verify", ready.store, "--state", inside).status == 2

    def test_a_release_of_another_key(self, fleet: Fleet) -> None:
        fleet.make("left", "pilot", "copilot")
        file = fleet.path("winter.release")
        fleet.ok("release", "new", fleet.store, file, "--name", "winter", "--mission", "left")
        before = file.read_bytes()
        args = ("release", "sign", fleet.store, file, "--key", fleet.path("pilot"))
        args = (*args, *fleet.expected("release", "show", file))
        assert fleet.refused(*args) == "unknown-signer"
        assert file.read_bytes() == before
        assert fleet.json("release", "show", fleet.store)["releases"] == []

    def test_a_revoked_release_key_takes_its_approval_along(self, ready: Fleet) -> None:
        ready.new_key("lab2")
        ready.edit("add-key", "release", ready.pub("lab2"))
        ready.edit("revoke", ready.pub("lab"))
        ready.rotate("ada", "ben")
        status, said = verify(ready)
        assert status == 1
        assert kinds(said) == ["revoked-key", "unreleased"]
        assert [row["holds"] for row in ready.json("release", "show", ready.store)["releases"]] == [False]


def test_a_go_fits_one_screen_and_has_a_code_for_the_radio(ready: Fleet) -> None:
    ran = flightbag("verify", ready.store, "left", "--trust", ready.root)
    assert ran.status == 0
    lines = ran.out.splitlines()
    assert len(lines) <= 24
    code = ready.json("verify", ready.store, "left", "--trust", ready.root)["missions"][0]["code"]
    assert re.fullmatch(r"[0-9A-Z]{5}-[0-9A-Z]{5}", code)
    assert code in lines[1]


class TestWhatTheReviewFound:
    def test_a_planted_draft_is_not_signed(self, fleet: Fleet) -> None:
        """It has the right identity, and another engine: whoever can write a file could have put it there."""
        fleet.edit("set-releases", "optional")
        fleet.rotate("ada", "ben")
        fleet.make("left")
        draft = fleet.store / "drafts/left"
        envelope = Envelope.parse(draft.read_bytes(), CONTENT_TYPE, PAYLOAD_LIMIT)
        manifest, evil = Manifest.parse(envelope.payload), b"evil engine"
        with Repository.open(fleet.store) as repository, writing(repository) as writer:
            table = read_table(repository.evidence, manifest)
            entries = [
                replace(one, id=ObjectId.of(evil), size=len(evil)) if one.kind == "engine" else one
                for one in table.entries
            ]
            other = sorted_table(entries)
            data = other.render()
            changed = replace(manifest, merkle_root=other.merkle_root, table=ObjectId.of(data), table_size=len(data))
            assert changed.identity == manifest.identity
            with writer.inserting() as batch:
                batch.add_bytes(evil)
                batch.add_bytes(data)
                batch.commit()
            draft.write_bytes(Envelope(CONTENT_TYPE, changed.render()).render())
        assert fleet.make("left", "pilot", "copilot")["outcome"] == "built"
        shown = fleet.json("show", fleet.store, "left")
        assert str(ObjectId.of(evil)) not in [entry["id"] for entry in shown["entries"]]

    @pytest.mark.parametrize(
        "change",
        [{"sequence": INT_MAX}, {"issued_at": TIME_MAX, "sequence": TIME_MAX}, {"expires_at": TIME_MAX}],
        ids=str,
    )
    def test_a_draft_that_leaves_no_room_for_the_next_is_not_signed(self, ready: Fleet, change: dict[str, int]) -> None:
        ready.make("left", flight="F-2")
        draft = ready.store / "drafts/left"
        manifest = Manifest.parse(Envelope.parse(draft.read_bytes(), CONTENT_TYPE, PAYLOAD_LIMIT).payload)
        changed = replace(manifest, issue=replace(manifest.issue, **change))
        draft.write_bytes(Envelope(CONTENT_TYPE, changed.render()).render())
        if "sequence" in change:
            assert ready.refused("sign", ready.store, "left", "--key", ready.path("pilot")) == "stale-draft"
        assert ready.make("left", "pilot", "copilot")["outcome"] == "built"
        issue = ready.json("show", ready.store, "left")["issue"]
        assert issue["sequence"] <= time.time() + 100
        assert "expires_at" not in issue

    def test_a_route_that_was_taken_back_is_not_signed(self, ready: Fleet) -> None:
        ready.make("left", flight="F-2")
        assert ready.make("left", flight="2026-11-23-01")["outcome"] == "unchanged"
        assert ready.refused("sign", ready.store, "left", "--key", ready.path("pilot")) == "missing"

    def test_a_draft_is_replaced_loudly_and_discarded_at_will(self, ready: Fleet) -> None:
        ready.make("left", "pilot", flight="F-2")
        report = ready.make("left", "pilot", flight="F-3")
        assert "whose 1 signature is lost: " in report["why"]
        discarded = flightbag("discard", ready.store, "left", "--json")
        assert discarded.own == {"discarded": "left", "signatures": 1}
        assert ready.refused("discard", ready.store, "left") == "missing"
        assert ready.refused("discard", ready.store, "Left", status=2) == "invalid"
        assert flightbag("fsck", ready.store).status == 0

    def test_a_build_that_adds_nothing_writes_nothing(self, ready: Fleet) -> None:
        ready.make("left", "pilot", flight="F-2")
        before = (ready.store / "log").read_bytes()
        ready.make("left", "pilot")
        ready.make("left")
        assert (ready.store / "log").read_bytes() == before

    def test_a_rollback_by_two_is_logged_as_one(self, ready: Fleet) -> None:
        ready.make("left", "pilot", "copilot", flight="F-2")
        ready.json("rollback", ready.store, "left", "--key", ready.path("pilot"), *ready.back("left"))
        ready.json("sign", ready.store, "left", "--key", ready.path("copilot"), *ready.of_mission("left"))
        assert ready.json("log", ready.store)["events"][-1]["event"] == "rolled-back"

    def test_a_rollback_that_could_not_fly_is_no_draft(self, ready: Fleet) -> None:
        ready.edit("set-releases", "optional")
        ready.rotate("ada", "ben")
        write_backbone(ready.path("other.onnx"), seed=13)
        ready.make("left", "pilot", "copilot", model=Path("other.onnx"))
        ready.make("left", "pilot", "copilot", model=Path("embedder.onnx"))
        ready.edit("set-releases", "required")
        ready.rotate("ada", "ben")
        args = ("rollback", ready.store, "left", "--key", ready.path("pilot"), *ready.back("left"))
        assert ready.refused(*args) == "unreleased"
        assert not (ready.store / "drafts/left").exists()

    def test_a_release_is_signed_anew_under_its_name(self, ready: Fleet) -> None:
        file = ready.path("winter.release")
        ready.new_key("lab2")
        ready.edit("add-key", "release", ready.pub("lab2"))
        ready.edit("revoke", ready.pub("lab"))
        ready.rotate("ada", "ben")
        file.unlink()
        ready.ok("release", "new", ready.store, file, "--name", "winter", "--mission", "left")
        assert ready.json(
            *("release", "sign", ready.store, file, "--key", ready.path("lab2")),
            *ready.expected("release", "show", file),
        )["object"]
        assert [row["holds"] for row in ready.json("release", "show", ready.store)["releases"]] == [True]
        assert ready.make("left", "pilot", "copilot")["outcome"] == "built"

    def test_a_torn_release_stops_no_build(self, ready: Fleet) -> None:
        (ready.store / "trust/releases/torn").write_bytes(b"")
        assert ready.make("left", "pilot", "copilot", flight="F-2")["outcome"] == "built"
        assert flightbag("fsck", ready.store).status == 4
        assert flightbag("fsck", ready.store, "--repair").status == 1
        assert flightbag("fsck", ready.store).status == 0

    def test_a_proof_needs_the_release_too(self, fleet: Fleet) -> None:
        fleet.edit("set-releases", "optional")
        fleet.rotate("ada", "ben")
        fleet.make("left", "pilot", "copilot")
        shown = fleet.json("show", fleet.store, "left")
        entry = next(one for one in shown["entries"] if one["kind"] == "engine")
        fleet.ok("prove", fleet.store, "left", entry["name"], "-o", fleet.path("before"))
        fleet.edit("set-releases", "required")
        fleet.rotate("ada", "ben")
        fleet.ok("prove", fleet.store, "left", entry["name"], "-o", fleet.path("after"))
        engine = fleet.path("engine")
        shutil.copy(fleet.store / "objects" / entry["id"][:2] / entry["id"][2:], engine)
        assert fleet.ok("check-proof", fleet.path("before"), engine, "--trust", fleet.root)
        assert fleet.refused("check-proof", fleet.path("after"), engine, "--trust", fleet.root) == "unreleased"

    def test_a_revocation_travels_though_nothing_is_built_anew(self, ready: Fleet) -> None:
        ready.ok("sync", ready.store, ready.stick)
        ready.edit("add-key", "mission", ready.pub("ada"))
        ready.edit("revoke", ready.kid("copilot"))
        before = listing(ready.store)
        dry = ready.json("trust", "rotate", ready.store, ready.path("draft"), "--dry-run")["ended"]
        assert (
            "left would be grounded" in flightbag("trust", "rotate", ready.store, ready.path("draft"), "--dry-run").out
        )
        assert listing(ready.store) == before
        done = ready.rotate("ben", "cho")
        assert done["ended"] == dry
        assert "left" in done["ended"]["missions"]
        ran = flightbag("sync", ready.store, ready.stick, "--json")
        assert ran.status == 1
        assert [row["mission"] for row in ran.json["destinations"][0]["refused"]] == ["left"]
        status, said = ready.takeoff()
        assert (status, kinds(said)) == (1, ["revoked-key"])
        for args in (("stats", ready.store), ("gc", ready.store, "--grace", "0s"), ("ls", ready.store)):
            assert "Traceback" not in flightbag(*args).err
        assert flightbag("gc", ready.store).status == 0

    def test_files_to_carry_are_not_written_into_a_store(self, ready: Fleet) -> None:
        before = listing(ready.store)
        inside = ready.store / "x"
        for args in (
            ("prove", ready.store, "left", "files/calibration/camera.yaml", "-o", inside),
            ("release", "new", ready.store, inside, "--name", "x", "--mission", "left"),
            ("trust", "set-threshold", ready.store, inside, "mission=1"),
            ("aircraft", "enrol", "--state", inside, "--id", "a", "--host", "cpu", "--trust", ready.root),
        ):
            ready.refused(*args, status=2)
        assert listing(ready.store) == before

    def test_the_past_is_no_clearance(self, ready: Fleet) -> None:
        time.sleep(1.1)
        ran = flightbag("verify", ready.store, "left", "--trust", ready.root, "--at", str(int(time.time()) - 1))
        assert ran.status == 0
        assert "WOULD HAVE BEEN GO" in ran.out
        assert "code" not in ran.out
        ready.refused("verify", ready.store, "--trust", ready.root, "--at", "2090-01-01T00:00:00Z", status=2)


def test_what_cannot_be_joined_is_named_with_a_remedy(tmp_path: Path) -> None:
    store, one, other = tmp_path / "store", tmp_path / "one.draft", tmp_path / "other.draft"
    assert flightbag("init", store).status == 0
    assert flightbag("keys", "new", tmp_path / "a.key", "--no-passphrase").status == 0
    keys = ("--root-key", tmp_path / "a.key.pub", "--mission-key", tmp_path / "a.key.pub")
    for draft in (one, other):
        assert flightbag("trust", "new", store, "--domain", "ridge", *keys, "--draft", draft).status == 0
    ran = flightbag("trust", "join", one, other)
    assert (ran.status, f"{one} and {other}: they are two drafts" in ran.err) == (1, True)
    ran = flightbag("trust", "join", one, tmp_path / "a.key.pub")
    assert (ran.status, "-> give a draft that `flightbag trust` made" in ran.err) == (1, True)
