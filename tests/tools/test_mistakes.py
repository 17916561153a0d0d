"""The mistakes that planners and crews make most: each is answered with the thing, what is wrong with it, and what to
do next, in lines that fit 80 columns. All are typed in the folder of a desk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.commands import flightbag, too_wide
from tests.support.field import Desk

TRUST = "--trust pinned.root.cbor"
# What is typed, its status, and words of the answer: the thing and the cause, then the remedy.
MISTAKES: dict[str, tuple[int, str, str]] = {
    # A store.
    "ls grond": (3, "grond does not exist", "give ground"),
    "ls .": (3, "is not a store, and several lie below it", "/ground"),
    "ls left.toml": (3, "left.toml is a file, and a store is a folder", "give the folder of a store"),
    "init ground": (2, "ground is a store already", "use it, or give another folder"),
    "sync ground ground/backup": (2, "lies in the source store", "give a folder outside of the source store"),
    "fsck ground --repair --from emtpy": (8, "emtpy does not exist", "give empty"),
    # A mission, a draft, an entry, a pin, a flight.
    "show ground lefft": (1, "has no mission lefft", "give left, or sync lefft"),
    f"verify ground lefft {TRUST}": (1, "has no mission lefft", "give left"),
    "show ground rigth --draft": (1, "has no draft of mission rigth", "give right, or make a draft"),
    "show ground left --draft --at 2026-11-30T00:00:00Z": (2, "--at excludes --draft", "leave one of them out"),
    "show ground left --at yesterday": (2, "'yesterday' is not a time", "give a time like 2026-11-25T12:00:00Z"),
    "show ground left --at 9999-01-01T00:00:00Z": (2, "lies in the future", "give a time in the past"),
    "sign ground rigth --key planner.key": (1, "has no draft of mission rigth", "give right, or make a draft"),
    "discard ground rihgt": (1, "rihgt", "give right"),
    "log ground lift": (1, "has no mission lift", "give left"),
    "rollback ground lift --key planner.key --dry-run": (1, "has no mission lift", "give left"),
    "diff ground left lift": (1, "has no mission lift", "give left"),
    "withdraw ground lefft --reason old --key planner.key": (1, "has no mission lefft", "give left"),
    f"checkout ground lift out {TRUST}": (1, "has no mission lift", "give left"),
    "pack ground lift -o x.tar": (1, "has no mission lift", "give left"),
    "sync ground new --mission lift": (1, "has no mission lift", "give left"),
    "engines show ground lift": (1, "has no mission lift", "give left"),
    f"probe ground lift {TRUST}": (1, "has no mission lift", "give left"),
    "release new ground x.release --name x --mission lift": (1, "has no mission lift", "give left"),
    "pin ground fresh lift": (1, "has no mission lift", "give left"),
    "unpin ground kpet": (1, "has no pin kpet", "give kept"),
    "prove ground left camera.yaml -o x.proof": (1, "no entry camera.yaml", "give files/calibration/camera.yaml"),
    "aircraft consume 2026-11-23-10 --state state": (1, "no GO for the flight 2026-11-23-10", "2026-11-23-01"),
    # A file.
    f"verify ground {TRUST.replace('pinned', 'pinnd')}": (2, "pinnd.root.cbor does not exist", "give pinned.root.cbor"),
    "verify ground --trust planner.key": (2, "planner.key", "give the root file"),
    "verify ground --trust ground/trust/1.root.cbor": (2, "lies inside ground", "reached you by another way"),
    "build lfet.toml --store ground --key planner.key": (2, "lfet.toml does not exist", "give left.toml"),
    "build left.toml --store ground --key planer.key": (2, "planer.key does not exist", "give planner.key"),
    "build left.toml --store ground --key planner.key.pub": (2, "is a public key, and cannot sign", "key planner.key,"),
    f"query ground left fram.png {TRUST}": (2, "fram.png does not exist", "give frame.png"),
    f"query ground left left.toml {TRUST}": (2, "left.toml: the picture cannot be decoded", "give a whole JPEG"),
    f"quality ground left {TRUST} --tiles terain.mbtiles": (2, "terain.mbtiles does not exist", "give terrain.mbtiles"),
    "new n.toml --imagery embedder.onnx --model terrain.mbtiles": (2, "embedder.onnx", "--model embedder.onnx"),
    "unpack aboard lfet.tar": (3, "lfet.tar does not exist", "give left.tar"),
    "unpack left.tar aboard": (2, "left.tar is a file", "aboard left.tar"),
    "trust show root.drfat": (2, "root.drfat does not exist", "give root.draft"),
    "trust join root.draft signd.draft": (2, "signd.draft does not exist", "give signed.draft"),
    "aircraft show --state stat": (3, "stat has no aircraft state", "give state"),
    "map ground left -o x.jpg": (2, "x.jpg is neither a .png nor a .geojson", "one of these endings"),
    "keys new planner.key": (2, "planner.key exists already", "give another name"),
    f"checkout ground left plain {TRUST}": (1, "plain exists already", "a folder that does not exist yet"),
    f"check-proof carried.yaml camera.proof {TRUST}": (2, "camera.proof is one", "camera.proof carried.yaml"),
    f"check-proof carried.yaml carried.yaml {TRUST}": (1, "not a proof", "the file that `flightbag prove` wrote"),
    # A key, an aircraft, a flight, a signature.
    f"verify ground left {TRUST} --aircraft uav-7": (
        1,
        "for the aircraft uav-07, not for uav-7",
        "an aircraft that it",
    ),
    f"verify ground left {TRUST} --flight 2026-11-23-1": (
        1,
        "for the flight 2026-11-23-01, not",
        "check the flight id",
    ),
    f"verify ground left {TRUST} --host cpu-x86-64": (2, "the nearest is cpu-x86_64", "`flightbag engines host`"),
    "sign ground right --key planner.key": (2, "so it is not signed", "`flightbag show ground right --draft`"),
    "sign ground right --key planner.key --expect AAAAA-AAAAA": (1, "and not AAAAA-AAAAA", "compare the codes"),
    "trust rotate ground root.draft": (1, "lacks signatures", "`flightbag trust sign"),
    "trust revoke ground next.draft 00000000": (1, "begins with 00000000", "give "),
    # A value.
    "trust add-key ground next.draft misson lab.key.pub": (2, "'misson' is not a role", "give mission"),
    "trust set-releases ground next.draft requird": (2, "'requird' is neither", "give required"),
    "trust set-threshold ground next.draft mission=two": (2, "'mission=two' is not ROLE=N", "N from 1 to 8"),
    "trust set-lifetime ground next.draft max=3weeks": (2, "'max=3weeks' is not a lifetime", "14d"),
    "gc ground --grace 2weeks": (2, "'2weeks' is not a duration", "14d"),
    "fsck ground --sample ten": (16, "'ten' is not a percentage", "10%"),
    "pack ground left -o bag.tar --split 4gigs": (2, "'4gigs' is not a size", "4GB"),
    "completion bsh": (2, "the shell 'bsh'", "give bash"),
    "build left.toml --store ground --key planner.key --executor loacl": (2, "'loacl' names no executor", "give local"),
    "explain-key left.toml embeder": (2, "no backbone 'embeder'", "embedder"),
    "explain-key left.toml embedder --against lift --store ground": (1, "has no mission lift", "give left"),
    # What is missing.
    "verify ground": (2, "--trust or --state", "the file of the pinned trust root"),
    "pack ground left": (2, "-o is missing", "give -o FILE"),
}


@pytest.fixture(scope="module")
def folder(_first_equipped: Desk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.support.field import copy_of

    return copy_of(_first_equipped, tmp_path_factory.mktemp("mistakes") / "desk").folder


@pytest.mark.parametrize("typed", MISTAKES)
def test_a_mistake_is_answered(folder: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.chdir(folder)
    status, cause, remedy = MISTAKES[typed]
    ran = flightbag(*typed.split(), columns=80)
    before, arrow, after = " ".join((ran.out + ran.err).split()).partition("-> ")
    assert (ran.status, bool(arrow)) == (status, True), ran
    assert cause in before
    assert remedy in after
    assert too_wide(ran) == []


def changed(old: str, new: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return change


# A mistake in a mission file, and words of the answer.
IN_A_FILE: dict[str, tuple[Callable[[str], str], str]] = {
    "key": (changed("zooms = ", "zoms = "), "tiles[0].zoms is not a known key, did you mean 'zooms'?"),
    "backend": (changed('"onnxruntime"', '"onnxruntim"'), 'must be "onnxruntime", "tensorrt" or "tensorrt-rtx"'),
    "sector": (changed("stable_rear", "stable_rare"), 'mission.sector is "stable_rare", must be "stable_rear" or'),
    "source": (changed("terrain.mbtiles", "terain.mbtiles"), "does not exist, did you mean terrain.mbtiles?"),
    "model": (changed('"embedder.onnx"', '"embeder.onnx"'), "does not exist, did you mean embedder.onnx?"),
    "host": (changed('host = "auto"', 'host = "cpu_x86_64"'), "the nearest is cpu-x86_64"),
    "quote": (changed('id = "left"', 'id = "left'), "line 2, column"),
    "exchanged": (changed("lat = 47.0201, lon = -99.1602", "lat = -99.1602, lon = 47.0201"), "degrees from -90 to 90"),
}


@pytest.mark.parametrize("what", IN_A_FILE)
def test_a_mistake_in_a_mission_file_is_answered(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.chdir(folder)
    change, words = IN_A_FILE[what]
    (folder / "wrong.toml").write_text(change((folder / "left.toml").read_text()))
    ran = flightbag("plan", "wrong.toml", "--store", "ground", columns=80)
    text = " ".join(ran.err.split())
    assert (ran.status, text.startswith("flightbag: wrong.toml: "), words in text) == (2, True, True), text
    assert " -> correct the file" in text
    assert too_wide(ran) == []


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("buidl left.toml", "-> give build"),
        ("trust shwo ground", "-> give show"),
        ("map ground left --outptu x.png", "-> give --output"),
        ("checkout ground left out", "--trust (env var: FLIGHTBAG_TRUST) is missing"),
    ],
)
def test_a_mistake_in_a_name_of_the_program_is_answered(typed: str, words: str) -> None:
    ran = flightbag(*typed.split(), columns=80)
    assert (ran.status, words in ran.err) == (2, True), ran.err
    assert too_wide(ran) == []
