"""A planner's desk: imagery, a backbone, keys, a ground store with a trust root, and mission files that build.

The fixtures `desk` and `built` of tests/conftest.py give a test a copy of its own.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.commands import Ran, code_of, flightbag
from tests.support.missions_toml import mission_toml

# Two missions that share half of their area; the terrain reaches beyond both.
WORLD = (-991900000, 469950000, -991200000, 470450000)
LEFT = (-99.180, 47.008, -99.155, 47.030)
RIGHT = (-99.168, 47.008, -99.143, 47.030)
TAKEOFF = (47.0201, -99.1602)
ZOOMS = (14, 15)


@dataclass(frozen=True)
class Desk:
    """The paths of a desk, and the commands that a planner types there."""

    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "ground"

    @property
    def key(self) -> Path:
        return self.folder / "planner.key"

    @property
    def root(self) -> Path:
        """The pinned trust root, apart from the store."""
        return self.folder / "pinned.root.cbor"

    def write_mission(self, mission: str, **changes: Any) -> Path:
        """Write a mission file and return its path; `changes` are arguments of `mission_toml`."""
        settings: dict[str, Any] = {
            "mission": mission,
            "tiles": Path("terrain.mbtiles"),
            "model": Path("embedder.onnx"),
            "bbox": LEFT,
            "zooms": ZOOMS,
            "takeoff": TAKEOFF,
            "files": [("calibration/camera.yaml", Path("camera.yaml"))],
            **changes,
        }
        path = self.folder / f"{mission}.toml"
        path.write_text(mission_toml(**settings))
        return path

    def build(self, mission: Path, *more: object) -> Ran:
        return flightbag("build", mission, "--store", self.store, "--key", self.key, "--json", *more)

    def built(self, mission: Path) -> dict[str, Any]:
        """Build the mission and return the report; fails the test unless the build succeeds."""
        ran = self.build(mission)
        assert ran.status == 0, ran.out + ran.err
        report: dict[str, Any] = json.loads(ran.out)
        return report

    def verify(self, store: Path | None = None, *more: object) -> Ran:
        return flightbag("verify", store or self.store, "--trust", self.root, "--json", *more)


def copy_of(desk: Desk, target: Path) -> Desk:
    """A copy of a desk, of the caller's own."""
    shutil.copytree(desk.folder, target)
    return Desk(target)


def make_desk(folder: Path) -> Desk:
    """A desk with an empty ground store. Takes about a second."""
    # A flight computer has neither onnx nor pillow, and runs tests that need no desk: `tests.support.pythons`.
    from builders.example.backbone import write_backbone
    from builders.example.terrain import write_terrain

    write_terrain(folder / "terrain.mbtiles", WORLD, ZOOMS)
    write_backbone(folder / "embedder.onnx")
    (folder / "camera.yaml").write_text("fx: 712.4\n")
    return make_store(folder)


def make_store(folder: Path) -> Desk:
    """A desk with keys and an empty ground store, without imagery and backbone."""
    desk = Desk(folder)
    for args in (
        ("init", desk.store),
        ("keys", "new", folder / "owner.key", "--no-passphrase"),
        ("keys", "new", desk.key, "--no-passphrase"),
        ("trust", "new", desk.store, "--domain", "test", "--root-key", folder / "owner.key", "--mission-key", desk.key),
    ):
        ran = flightbag(*args)
        assert ran.status == 0, ran.err
    shutil.copy(desk.store / "trust/1.root.cbor", desk.root)
    return desk


def two_keys(desk: Desk) -> Path:
    """Let a mission need the signatures of two keys; the second one is called Sam."""
    folder = desk.folder
    second = folder / "second.key"
    assert flightbag("keys", "new", second, "--no-passphrase", "--name", "Sam").status == 0
    for number, change in enumerate(
        (("add-key", "mission", folder / "second.key.pub"), ("set-threshold", "mission=2")), start=1
    ):
        draft = folder / f"{number}.draft"
        ran = flightbag("trust", change[0], desk.store, draft, *change[1:])
        assert ran.status == 0, ran.err
        code = code_of("trust", "show", draft)
        assert flightbag("trust", "sign", draft, "--key", folder / "owner.key", "--expect", code).status == 0
        assert flightbag("trust", "rotate", desk.store, draft).status == 0
    return second
