"""Write what this version writes, to be read by every later one: `released/<version>/`.

    python -m tests.conformance.make_released

`written.tar.xz` has a folder as planners, a device and an aircraft leave it, with every kind of file of FORMAT: the
ground store with all that its log can tell but `received`, the stick that an aircraft verified and the same stick a
mission earlier, the aircraft's state, a bag in parts with differences, a proof, a checkout, a shared cache, the draft
of a trust root, an encrypted key. `facts.json` has what they say, and `vectors.b3` the hashes of the golden vectors.
Everything is made by the commands that people type. The keys are those of `tests.support.missions.key`, so that a test
can sign what follows.

A released folder is a fact of history: this script writes none that exists. Until the release, remove the folder
and run the script again.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import re
import shutil
import sqlite3
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import numpy_helper

import store
from builders.engines import onnxruntime as onnxruntime_backend
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.example.backbone import write_backbone
from builders.example.terrain import write_terrain
from builders.grid.tiles import Tile
from tests.conformance.make_vectors import FOLDER as VECTORS
from tests.support.commands import Ran, flightbag
from tests.support.field import LEFT, RIGHT, TAKEOFF, WORLD, ZOOMS
from tests.support.here import confine_here
from tests.support.missions_toml import mission_toml
from tests.support.pages import Reader

RELEASED = Path(__file__).with_name("released")
ARCHIVE, FACTS, HASHES = "written.tar.xz", "facts.json", "vectors.b3"
OWNERS, PILOTS = ("ada", "ben"), ("pilot", "copilot")
# A tile of the left mission alone, and none of the right one.
HOLE = Tile(15, 7356, 11522)
PASSPHRASE = "a passphrase of the tests"
SIDE = 32  # pixels of the backbone's input
AIRCRAFT, HOST = "uav-07", "cpu-x86_64-avx2+ort-1.30.0"
# What the archive has of the folder in which the commands run.
KEPT = (
    "ground", "earlier", "stick", "state", "bags", "cache", "checkout", "camera.proof", "camera.yaml", "later.draft",
    "pilot.key", "passphrase", "fleet.keys", "pinned.root.cbor",
)  # fmt: skip


def run(*args: object, status: int = 0) -> Ran:
    """Run a command as a person would, who gives the code of what there is to sign."""
    ran = flightbag(*Reader().typed([str(arg) for arg in args]))
    if ran.status != status:
        raise SystemExit(f"flightbag {' '.join(map(str, args))}: status {ran.status}\n{ran.out}{ran.err}")
    return ran


def write_keys(*names: str) -> None:
    """Write NAME.key and NAME.key.pub: equal names have equal keys."""
    for name in names:
        private = Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())
        pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
        Path(f"{name}.key").write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
        Path(f"{name}.key").chmod(0o600)
        public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        Path(f"{name}.key.pub").write_bytes(f"name: {name.title()}\n".encode() + public)


def write_mission(mission: str, flight: str, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "mission": mission,
        "flight": flight,
        "tiles": Path("terrain.mbtiles"),
        "model": Path("embedder.onnx"),
        "bbox": LEFT,
        "zooms": ZOOMS,
        "takeoff": TAKEOFF,
        "host": "cpu",
        "resize": SIDE,
        "more": "[quality]\nsample = 0\n",
        **changes,
    }
    path = Path(f"{mission}.toml")
    path.write_text(mission_toml(**settings))
    return path


def retrain(path: Path) -> None:
    """Change a few weights of the last layer, as another training of it would."""
    model = onnx.load(path)
    [last] = [one for one in model.graph.initializer if one.name == "w3"]
    weights = numpy_helper.to_array(last).copy()
    weights[:4] *= 1.5
    last.CopyFrom(numpy_helper.from_array(weights, "w3"))
    path.write_bytes(model.SerializeToString(deterministic=True))


SIGNED = tuple(part for who in PILOTS for part in ("--key", f"{who}.key"))


def build(mission: Path, *more: object, status: int = 0) -> Ran:
    more = more or SIGNED
    return run("build", mission, "--store", "ground", *more, "--passphrase-file", "passphrase", status=status)


def release(name: str, *missions: str, host: str = HOST) -> None:
    file = f"{name}.release"
    ids = [part for mission in missions for part in ("--mission", mission)]
    run("release", "new", "ground", file, "--name", name, *ids, "--host", host)
    run("release", "sign", "ground", file, "--key", "lab.key")


def rotate(draft: str, *change: str) -> None:
    run("trust", change[0], "ground", draft, *change[1:])
    for who in OWNERS:
        run("trust", "sign", draft, "--key", f"{who}.key")
    run("trust", "rotate", "ground", draft)


@contextmanager
def another_cpu() -> Iterator[None]:
    """This machine takes its CPU for one that the engines of orders do not run on."""
    file = Path("cpuinfo")
    file.write_text("flags : fpu sse sse2 avx\nFeatures : fp\n")
    with pytest.MonkeyPatch.context() as patch:
        confine_here(patch)
        patch.setattr(onnxruntime_backend, "CPU_FILE", file)
        yield


def write_everything() -> dict[str, Any]:
    """Live the life of a fleet in the current folder, and return what the tests need to know of it."""
    found_world()
    verify = ("verify", "stick", "--state", "state", "--json")

    # Of a drawing with a hole, with one tile that is missing; one file is from outside.
    drawn = {"more": """
[coverage]
at_least = 0.8

[quality]
sample = 4

[[indexes]]
name = "fast"
set = "embedder"
method = "hnsw"

[[files]]
name = "calibration/camera.yaml"
path = "../camera.yaml"
outside = true
"""}  # fmt: skip
    area = 'geojson = "area.geojson"'
    write_area(Path("area.geojson"))
    ridge = write_mission("ridge", "2026-12-01-01", area=area, **drawn)
    valley = write_mission("valley", "2026-12-01-02", bbox=RIGHT)
    build(ridge)  # drafts: their engine is in no release
    build(valley)
    release("winter", "ridge", "valley")
    build(ridge, *SIGNED, "--shared-cache", "cache", "--builder-key", "orin.key")
    build(valley)
    first = Path("ground/missions/valley").read_text().strip()
    run("sync", "ground", "stick")
    shutil.copytree("stick", "earlier", symlinks=True)

    run("aircraft", "enrol", "--state", "state", "--id", AIRCRAFT, "--host", HOST, "--trust", "pinned.root.cbor")
    line = re.search(rf"[0-9a-f]{{64}} {AIRCRAFT}\n", run("aircraft", "show", "--state", "state").out)
    assert line is not None
    Path("fleet.keys").write_text(line[0])
    run(*verify)
    run("aircraft", "consume", "2026-12-01-01", "--state", "state", "--store", "stick")
    desk = ("--trust", "pinned.root.cbor", "--receipt-key", "ben.key")
    run("verify", "stick", "valley", *desk)

    # Another training, another flight: the second manifest of the ridge, and of the valley, which goes back and ends.
    retrain(Path("embedder.onnx"))
    ridge = write_mission("ridge", "2026-12-02-01", area=area, **drawn)
    build(ridge)
    release("spring", "ridge")
    build(ridge)
    write_backbone(Path("embedder.onnx"), size=SIDE, dim=8)
    build(write_mission("valley", "2026-12-02-02", bbox=RIGHT))
    build(write_mission("gone", "2026-12-02-03", bbox=RIGHT))
    run("remove", "ground", "gone")
    run("rollback", "ground", "valley", "--to", first, *SIGNED, "--passphrase-file", "passphrase")
    for step in (("--reason", "old imagery", "--key", "copilot.key"), ("--key", "pilot.key")):
        run("withdraw", "ground", "valley", *step, "--passphrase-file", "passphrase")
    release("summer", "ridge")
    run("release", "withdraw", "ground", "summer", "--reason", "it drifts", "--key", "lab.key")

    # An engine that another machine made, and one that none has made yet.
    fast = {"bbox": RIGHT, "of_mission": 'valid_for = "36000d"'}  # signed by a test, however late
    host = OnnxRuntimeBackend().describe_host()
    here = write_mission("made", "2026-12-03-01", host=host, **fast)
    there = write_mission("ordered", "2026-12-03-02", host="cpu-aarch64-neon+ort-1.30.0", **fast)
    for mission in (here, there):
        mission.write_text(mission.read_text().replace('"fp32"\n', '"fp32"\nmode = "fast"\n'))
    with another_cpu():
        run("engines", "order", here, "--store", "ground")
        run("engines", "order", there, "--store", "ground")
    run("sync", "ground", "device")
    run("engines", "fulfil", "device", "--key", "orin.key")
    run("engines", "accept", "ground", "--from", "device")
    with another_cpu():
        build(here)
        release("autumn", "made", host=host)
        build(here, "--key", "copilot.key")  # a draft that one of two has signed

    run("sync", "ground", "stick")
    run("verify", "stick", "ridge", *verify[2:])
    run("sync", "stick", "ground")

    run("prove", "ground", "ridge", "files/calibration/camera.yaml", "-o", "camera.proof")
    run("checkout", "ground", "ridge", "checkout", "--trust", "pinned.root.cbor")
    run("pin", "ground", "last-good", "ridge")
    run("trust", "add-key", "ground", "later.draft", "mission", "relief.key.pub")
    run("trust", "sign", "later.draft", "--key", "ada.key")
    Path("ground/stray").write_text("no place in a store\n")
    run("fsck", "ground", "--full", "--repair", status=1)
    run("gc", "ground", "--grace", "0s")
    run("gc", "ground", "--empty")
    Path("bags").mkdir()
    least = re.search(r"give --split (\d+)", flightbag(*packing(1)).err)
    assert least is not None
    run(*packing(int(least[1])))
    return facts()


def found_world() -> None:
    """Terrain with a hole, a small backbone, keys, and a ground store with two trust roots."""
    write_terrain(Path("terrain.mbtiles"), WORLD, ZOOMS)
    with closing(sqlite3.connect("terrain.mbtiles")) as db, db:
        gone = (HOLE.z, HOLE.x, 2**HOLE.z - 1 - HOLE.y)
        db.execute("DELETE FROM tiles WHERE zoom_level = ? AND tile_column = ? AND tile_row = ?", gone)
    write_backbone(Path("embedder.onnx"), size=SIDE, dim=8)
    Path("../camera.yaml").write_text("fx: 712.4\n")
    shutil.copy("../camera.yaml", "camera.yaml")
    Path("passphrase").write_text(f"{PASSPHRASE}\n")
    write_keys(*OWNERS, *PILOTS, "lab", "orin", "relief")
    run("keys", "rewrap", "pilot.key", "--new-passphrase-file", "passphrase")
    run("init", "ground")
    roles = [part for who in OWNERS for part in ("--root-key", f"{who}.key")]
    roles += [part for who in PILOTS for part in ("--mission-key", f"{who}.key.pub")]
    roles += ["--release-key", "lab.key.pub", "--builder-key", "orin.key.pub"]
    roles += ["--threshold", "root=2", "--threshold", "mission=2", "--name", "lab.key.pub=The lab"]
    run("trust", "new", "ground", "--domain", "released", *roles)
    shutil.copy("ground/trust/1.root.cbor", "pinned.root.cbor")
    run("trust", "set-lifetime", "ground", "next.draft", "max=36500d")
    run("trust", "set-lifetime", "ground", "next.draft", "default=24h")
    rotate("next.draft", "set-releases", "required")


def write_area(path: Path) -> None:
    """The outline of the left mission, with a hole in it."""
    west, south, east, north = LEFT
    middle = [(west + east) / 2, (south + north) / 2]
    outer = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    hole = [[middle[0] + x / 1000, middle[1] + y / 1000] for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1), (-1, -1))]
    feature = {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [outer, hole]}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))


def packing(split: int) -> tuple[object, ...]:
    against = ("--against", "earlier", "--delta", "--split", split)
    return ("pack", "ground", "ridge", "-o", "bags/ridge.tar", *against)


def facts() -> dict[str, Any]:
    """What a reader of the archive must find, as far as the commands have printed it."""
    at = int(time.time())
    pinned = Path("pinned.root.cbor").read_bytes()
    verdict = store.takeoff_check("ground", "ridge", trust=pinned, now=at, aircraft=AIRCRAFT, host=HOST)
    assert verdict.mission is not None, verdict.findings
    return {
        "version": version("flightbag"),
        "at": at,
        "aircraft": AIRCRAFT,
        "host": HOST,
        "entries": {entry.name: str(entry.id) for entry in verdict.mission.table.entries},
        "objects": sum(1 for path in Path("ground/objects").rglob("*") if path.is_file()),
    }


def archive(names: tuple[str, ...]) -> bytes:
    """A tar of these files and folders, compressed."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            for path in [Path(name), *sorted(Path(name).rglob("*"))]:
                if path.parts[1:2] not in (("index",), ("lock",), ("tmp",)):  # views
                    tar.add(path, recursive=False, filter=plain)
    return lzma.compress(whole.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def hashes() -> str:
    """A line for each golden vector, as b3sum prints it."""
    files = sorted(path for path in VECTORS.rglob("*.cbor"))
    return "".join(f"{blake3(path.read_bytes()).hexdigest()}  {path.relative_to(VECTORS)}\n" for path in files)


def main() -> None:
    into = RELEASED / version("flightbag")
    if into.exists():
        sys.exit(f"{into} exists. What was released is not written again; before the release, remove the folder")
    with tempfile.TemporaryDirectory() as folder:
        os.makedirs(f"{folder}/desk")
        os.chdir(f"{folder}/desk")
        os.environ.update(XDG_CACHE_HOME=f"{folder}/cache", XDG_STATE_HOME=f"{folder}/state")
        facts = write_everything()
        written = archive(KEPT)
        os.chdir(RELEASED.parent)
    into.mkdir(parents=True)
    (into / ARCHIVE).write_bytes(written)
    (into / FACTS).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    (into / HASHES).write_text(hashes())


if __name__ == "__main__":
    main()
