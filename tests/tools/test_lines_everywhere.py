"""What people read fits 80 columns also where missions, flights, entries, keys and folders have long names."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import flightbag, too_wide
from tests.support.field import RIGHT, Desk, copy_of

LONG = "survey-of-the-upper-valley-and-of-the-glacier"
MISSIONS = [f"{side}-{LONG}" for side in ("north", "south")]
FLIGHT = f"2026-11-23-{LONG}"
ENTRY = f"calibration/{LONG}/camera-of-the-port-side.yaml"
KEY = "the second pilot of the glacier"


@pytest.fixture(scope="module")
def long_names(_first_built: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = copy_of(_first_built, tmp_path_factory.mktemp("a-folder-with-a-name-that-is-longer-than-most") / LONG)

    def done(*args: object) -> None:
        ran = flightbag(*args)
        assert ran.status == 0, ran.out + ran.err

    folder = desk.folder
    done("keys", "new", folder / "second.key", "--no-passphrase", "--name", KEY)
    done("trust", "add-key", desk.store, folder / "next.draft", "mission", folder / "second.key.pub")
    code = flightbag("trust", "show", folder / "next.draft", "--json").json["code"]
    done("trust", "sign", folder / "next.draft", "--key", folder / "owner.key", "--expect", code)
    done("trust", "rotate", desk.store, folder / "next.draft")
    for mission in MISSIONS:
        file = desk.write_mission(mission, flight=FLIGHT, bbox=RIGHT, files=[(ENTRY, Path("camera.yaml"))])
        done("build", file, "--store", desk.store, "--key", folder / "second.key")
    (folder / "camera.yaml").write_text("fx: 801.5\n")
    done("build", folder / f"{MISSIONS[0]}.toml", "--store", desk.store, "--key", folder / "second.key")
    done("pin", desk.store, f"kept-{LONG}", MISSIONS[0])
    done("aircraft", "enrol", "--state", folder / "state", "--id", f"uav-{LONG}", "--host", "cpu", "--trust", desk.root)
    done("verify", desk.store, "--trust", desk.root, "--receipt-key", folder / "second.key")
    return desk


# What a person types in the desk's folder, and the status.
SEEN = {
    "ls ground": 0,
    f"show ground {MISSIONS[0]}": 0,
    "log ground": 0,
    f"log ground {MISSIONS[0]}": 0,
    "stats ground": 0,
    f"diff ground {' '.join(MISSIONS)}": 0,
    "trust show ground": 0,
    "trust show next.draft": 0,
    "receipts ground": 0,
    f"engines show ground {MISSIONS[0]}": 0,
    f"engines order {MISSIONS[0]}.toml --store ground": 0,
    f"plan {MISSIONS[0]}.toml --store ground": 0,
    f"build {MISSIONS[0]}.toml --store ground --key second.key": 0,
    f"explain-key {MISSIONS[0]}.toml embedder": 0,
    f"map ground {MISSIONS[0]}": 0,
    "pin ground": 0,
    "gc ground --dry-run --grace 0s --keep-last 1": 0,
    "fsck ground": 0,
    "fsck ground --full": 0,
    f"sync ground {LONG}": 0,
    "sync ground one two --dry-run": 0,
    "pack ground -o bag.tar": 0,
    "unpack aboard bag.tar": 0,
    "aircraft show --state state": 0,
    "doctor ground": 0,
    f"rollback ground {MISSIONS[0]} --key second.key --dry-run": 0,
    "verify ground --trust pinned.root.cbor": 0,
    "verify ground --trust pinned.root.cbor --aircraft uav-1 --host cpu-aarch64 --flight another": 1,
    f"quality ground {MISSIONS[1]} --trust pinned.root.cbor --tiles terrain.mbtiles": 0,
    f"probe ground {MISSIONS[1]} --trust pinned.root.cbor": 0,
    f"checkout ground {MISSIONS[1]} out-{LONG} --trust pinned.root.cbor": 0,
    f"show ground nroth-{LONG}": 1,
    f"log ground nroth-{LONG}": 1,
    f"prove ground {MISSIONS[0]} calibration/camera.yaml -o x.proof": 1,
}


def test_every_line_fits(long_names: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(long_names.folder)
    seen = {typed: flightbag(*typed.split(), columns=80) for typed in SEEN}
    assert {typed: (ran.status, ran.err) for typed, ran in seen.items() if ran.status != SEEN[typed]} == {}
    wide = {typed: lines for typed, ran in seen.items() if (lines := too_wide(ran))}
    [line] = wide.pop("aircraft show --state state")  # one line, which goes into a file as it is
    assert line.endswith(f" uav-{LONG}")
    assert wide == {}


def test_the_lines_of_a_damaged_store_fit_as_well(
    long_names: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = copy_of(long_names, tmp_path / LONG)
    monkeypatch.chdir(desk.folder)
    for path in sorted((desk.store / "objects").glob("*/*"))[::3]:
        path.chmod(0o644)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    for typed in (
        "fsck ground --full",
        "verify ground --trust pinned.root.cbor",
        "fsck ground --full --repair --dry-run",
        "fsck ground --full --repair",
        "ls ground",
        "sync ground stick",
    ):
        ran = flightbag(*typed.split(), columns=80)
        assert ran.out + ran.err
        assert too_wide(ran) == [], typed
