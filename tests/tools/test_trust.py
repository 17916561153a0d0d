"""Who may send an aircraft up, and with what: the trust commands as three operators and one aircraft live them.

The same story is told in README.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.backbone import write_backbone
from tests.support.commands import Ran, flightbag
from tests.support.field import WORLD, ZOOMS, Desk
from tests.support.terrain import write_terrain

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

    def rotate(self, *signers: str) -> Any:
        """Has the draft signed, one operator at a time, and puts it into effect."""
        for name in signers:
            self.json("trust", "sign", self.path("draft"), "--key", self.path(name))
        done = self.json("trust", "rotate", self.store, self.path("draft"))
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
            done = self.json("release", "sign", self.store, file, "--key", self.path(key))
        return done

    @property
    def stick(self) -> Path:
        return self.path("stick")

    def takeoff(self, *more: object) -> tuple[int, Any]:
        """What the aircraft says of the stick."""
        ran = flightbag("verify", self.stick, "--state", self.path("state"), "--json", *more)
        return ran.status, ran.json


def kinds(said: Any) -> list[str]:
    return [finding["kind"] for mission in said["missions"] for finding in mission["findings"]]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """A domain: root by two of three, missions by two, releases required and by the lab."""
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
        *("aircraft", "enrol", fleet.path("state"), "--id", "uav-07", "--host", f"{HOST}-avx2", "--trust", fleet.root)
    )
    fleet.edit("set-releases", "required")
    fleet.rotate("ada", "cho")
    return fleet


def test_three_operators_and_an_aircraft(fleet: Fleet) -> None:
    # Nothing flies whose engine the lab has not approved.
    report = fleet.make("left", "pilot", "copilot")
    assert report["outcome"] == "draft"
    assert "in no release" in report["why"]
    done = fleet.release("winter", "left", "lab")
    assert done["object"]
    # The mission takes two pilots, who sign apart.
    report = fleet.make("left", "pilot")
    assert (report["outcome"], report["manifest"]) == ("draft", "")
    assert "1 of the 2 signatures" in report["why"]
    assert flightbag("ls", fleet.store, "--json").json == []
    done = fleet.json("sign", fleet.store, "left", "--key", fleet.path("copilot"))
    assert done["manifest"]
    assert not list((fleet.store / "drafts").iterdir())
    assert fleet.make("left", "pilot")["outcome"] == "unchanged"
    fleet.ok("sync", fleet.store, fleet.stick)

    # The aircraft has root 1; the stick alone brings it to root 2.
    status, said = fleet.takeoff("--flight", said_flight(fleet))
    assert (status, said["go"]) == (0, True), said
    assert fleet.json("aircraft", "show", fleet.path("state"))["root"] == 2

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
    assert (status, said["go"]) == (0, True), said
    assert fleet.json("aircraft", "show", fleet.path("state"))["root"] == 4

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
