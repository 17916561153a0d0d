"""The mission file: one table of everything that can be wrong with it, and the laws of its numbers."""

from __future__ import annotations

import copy
import datetime
import os
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.files import MAX_MISSION_FILE, read_regular
from builders.mission.reader import LoadedMission, load_mission, toml_key
from builders.mission.schema import MissionFile
from store.errors import Invalid, Unavailable
from store.format.manifest import Takeoff
from tests.support import drawings

MISSION = """\
[mission]
id = "north-ridge"
flight = "2026-11-23-01"
aircraft = ["uav-09", "uav-07"]
takeoff = { lat = 47.0201, lon = -99.1602, alt_m = 480.0 }
area = { bbox = [-99.175, 47.008, -99.135, 47.033] }
sector = "stable_rear"

[target]
host = "auto"

[[tiles]]
source = "map.mbtiles"
zooms = [16, 17]
captured = 2018-07-16

[[backbones]]
name = "place-embedder"
model = "nets/place-embedder.onnx"
backend = "onnxruntime"
precision = "fp32"
inputs = { image = { shape = ["N", 3, 256, 256], min = 1, opt = 8, max = 32 } }

[[descriptors]]
name = "place-embedder"
backbone = "place-embedder"
output = "descriptor"
dtype = "float16"
preprocess = { resize = [256, 256], colour = "RGB", scale = "0..1" }

[[files]]
name = "calibration/camera.yaml"
path = "camera.yaml"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nets").mkdir()
    for name in ("map.mbtiles", "other.mbtiles", "nets/place-embedder.onnx", "camera.yaml"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "mission.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems_of(folder: Path, text: str) -> list[str]:
    """The problems of a mission file, without its name in front of each."""
    path = write(folder, text)
    with pytest.raises(Invalid) as caught:
        load_mission(path)
    lines = caught.value.message.split("\n")
    assert caught.value.problems == caught.value.fields["problems"] == tuple(lines)
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_the_example_of_the_design_is_read_whole(folder: Path) -> None:
    mission = load_mission(write(folder, MISSION)).file
    assert mission.mission.id == "north-ridge"
    assert mission.mission.aircraft == ("uav-09", "uav-07")
    assert mission.mission.aircraft_ids == ("uav-07", "uav-09")
    assert mission.mission.takeoff.exact == Takeoff(470201000, -991602000, 480000)
    assert mission.mission.area.bbox_e7 == (-991750000, 470080000, -991350000, 470330000)
    assert [one.host for one in mission.target] == ["auto"]
    (tiles,) = mission.tiles
    assert (tiles.source, tiles.zooms, tiles.captured) == (
        (folder / "map.mbtiles",),
        (16, 17),
        datetime.date(2018, 7, 16),
    )
    (backbone,) = mission.backbones
    assert backbone.model == folder / "nets/place-embedder.onnx"
    image = backbone.inputs["image"]
    assert (image.shape, image.symbol, image.min, image.opt, image.max) == (("N", 3, 256, 256), "N", 1, 8, 32)
    (descriptors,) = mission.descriptors
    assert descriptors.preprocess.resize == (256, 256)
    assert descriptors.preprocess.mean == ()
    assert descriptors.preprocess.std == ()
    assert descriptors.preprocess.filter == "bilinear"
    (file,) = mission.files
    assert (file.name, file.path) == ("calibration/camera.yaml", folder / "camera.yaml")


@pytest.mark.parametrize(
    ("keys", "validity"),
    [
        ("", (None, None, None)),
        ('valid_for = "72h"', (None, None, 259200)),
        ('valid_for = "1.5h"\nvalid_from = 2026-12-01T12:00:00Z', (1796126400, None, 5400)),
        ("valid_until = 2026-12-01T13:00:00+01:00", (None, 1796126400, None)),
        ("valid_from = 2026-12-01 12:00:00Z\nvalid_until = 2026-12-01T12:00:00Z", (1796126400, 1796126400, None)),
        ("valid_until = 9999-12-31T23:59:59Z\nvalid_from = 1970-01-01T00:00:00Z", (0, 253402300799, None)),
    ],
)
def test_the_validity(folder: Path, keys: str, validity: tuple[int | None, int | None, int | None]) -> None:
    text = MISSION.replace('sector = "stable_rear"', f'sector = "stable_rear"\n{keys}')
    mission = load_mission(write(folder, text)).file.mission
    assert (mission.start, mission.end, mission.length) == validity


def test_files_may_be_left_out(folder: Path) -> None:
    assert load_mission(write(folder, MISSION.partition("[[files]]")[0])).file.files == ()


def test_paths_are_relative_to_the_mission_file_not_to_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, MISSION)
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert load_mission(Path("../mission.toml")).file.tiles[0].source == (folder / "map.mbtiles",)


def test_a_mission_file_cannot_be_changed_in_memory(folder: Path) -> None:
    mission = load_mission(write(folder, MISSION)).file
    with pytest.raises(ValueError, match="frozen"):
        mission.target[0].host = "cpu"


# What is replaced in the example, by what, and the beginning of each problem that must be told: key, value, right.
SIXTEEN = "".join(f'[[target]]\nhost = "ort-{number}"\n' for number in range(16))
WRONG = [
    ('id = "north-ridge"', 'id = "North Ridge"', 'mission.id is "North Ridge", must be 1 to 64 characters of a-z'),
    ('id = "north-ridge"', 'id = "north-ridge\\n"', 'mission.id is "north-ridge\\n", must be'),
    ('id = "north-ridge"', f'id = "{"a" * 65}"', f'mission.id is "{"a" * 65}", must be'),
    ('id = "north-ridge"', "id = 7", "mission.id is 7, must be"),
    ('id = "north-ridge"\n', "", "mission.id is missing, must be 1 to 64"),
    ('flight = "2026-11-23-01"', 'flight = "a b"', 'mission.flight is "a b", must be 1 to 64'),
    ('flight = "2026-11-23-01"', 'flight = ""', 'mission.flight is "", must be'),
    ('flight = "2026-11-23-01"', 'flight = "ü"', 'mission.flight is "ü", must be'),
    ('flight = "2026-11-23-01"', "flight = 2026-11-23", "mission.flight is 2026-11-23, must be"),
    ('["uav-09", "uav-07"]', '["uav-07", "uav-07"]', 'mission.aircraft is ["uav-07", "uav-07"], must be an array of 1'),
    ('["uav-09", "uav-07"]', "[]", "mission.aircraft is [], must be an array of 1 to 64"),
    ('["uav-09", "uav-07"]', str([f"u{i}" for i in range(65)]), 'mission.aircraft is ["u0", "u1",'),
    ('["uav-09", "uav-07"]', '["uav-07", "UAV"]', 'mission.aircraft[1] is "UAV", must be 1 to 64'),
    ('["uav-09", "uav-07"]', '"uav-07"', 'mission.aircraft is "uav-07", must be an array'),
    ("lat = 47.0201", "lat = 90.1", "mission.takeoff.lat is 90.1, must be degrees from -90 to 90"),
    ("lat = 47.0201", "lat = nan", "mission.takeoff.lat is NaN, must be degrees"),
    ("lat = 47.0201", "lat = inf", "mission.takeoff.lat is Infinity, must be degrees"),
    ("lat = 47.0201", 'lat = "47"', 'mission.takeoff.lat is "47", must be degrees'),
    ("lat = 47.0201", "lat = true", "mission.takeoff.lat is true, must be degrees"),
    ("lon = -99.1602", "lon = -180.0000001", "mission.takeoff.lon is -180.0000001, must be degrees from -180 to 180"),
    ("alt_m = 480.0", "alt_m = 20000.5", "mission.takeoff.alt_m is 20000.5, must be metres from -1000 to 20000"),
    (", alt_m = 480.0", "", "mission.takeoff has lat and lon, must have lat, lon and alt_m, or plan"),
    ("alt_m = 480.0", "alt = 480.0", "mission.takeoff.alt is not a known key, did you mean 'alt_m'?"),
    ("lat = 47.0201", "lat = 47.0331", "mission.takeoff is at lat 47.0331, lon -99.1602, must be inside mission.area"),
    (", 47.033]", "]", "mission.area.bbox[3] is missing, must be degrees"),
    (", 47.033]", ", 47.033, 1]", "mission.area.bbox is [-99.175, 47.008, -99.135, 47.033, 1], must be [west, south"),
    (", 47.033]", ", 47.007]", "mission.area.bbox is [-99.175, 47.008, -99.135, 47.007], must be [west, south, east"),
    ("-99.135", "-99.17500000001", "mission.area.bbox is [-99.175, 47.008, -99.17500000001, 47.033], must be [west"),
    ("[-99.175, 47.008, -99.135", "[180, 47.008, -180", "mission.area.bbox is [180, 47.008, -180, 47.033], must be"),
    ("[-99.175, 47", "[-199.175, 47", "mission.area.bbox[0] is -199.175, must be degrees from -180 to 180"),
    ('"stable_rear"', '"rear"', 'mission.sector is "rear", must be "stable_rear" or "active_conflict"'),
    *[
        ('"stable_rear"', f'"stable_rear"\nvalid_for = {wrong}', f"mission.valid_for is {wrong}, must be a duration")
        for wrong in ('"72"', '"0h"', '"-1h"', '"1.0005h"', '"0.5s"', '"3 days"', '"999999999999d"', "72", "true")
    ],
    *[
        ('"stable_rear"', f'"stable_rear"\n{key} = {wrong}', f"mission.{key} is {shown}, must be a time without quotes")
        for key in ("valid_from", "valid_until")
        for wrong, shown in (
            ('"2026-12-01T12:00:00Z"', '"2026-12-01T12:00:00Z"'),
            ("2026-12-01T12:00:00", "2026-12-01 12:00:00"),
            ("2026-12-01", "2026-12-01"),
            ("2026-12-01T12:00:00.5Z", "2026-12-01 12:00:00.500000+00:00"),
            ("1969-12-31T23:59:59Z", "1969-12-31 23:59:59+00:00"),
            ("0001-01-01T00:00:00+23:59", "0001-01-01 00:00:00+23:59"),
            ("9999-12-31T23:59:59-00:01", "9999-12-31 23:59:59-00:01"),
            ("1795000000", "1795000000"),
        )
    ],
    (
        '"stable_rear"',
        '"stable_rear"\nvalid_for = "72h"\nvalid_until = 2026-12-01T12:00:00Z',
        "mission has valid_for and valid_until, must have at most one of them",
    ),
    (
        '"stable_rear"',
        '"stable_rear"\nvalid_from = 2026-12-01T12:00:01Z\nvalid_until = 2026-12-01T13:00:00+01:00',
        "mission has valid_from 2026-12-01 12:00:01+00:00, which is after valid_until 2026-12-01 13:00:00+01:00",
    ),
    ('host = "auto"', 'host = "Jetson"', 'target.host is "Jetson", must be "auto", or a class'),
    ('host = "auto"', 'host = "trt+cpu"', 'target.host is "trt+cpu", must be "auto"'),
    ('host = "auto"', 'host = "cpu+cpu"', 'target.host is "cpu+cpu", must be "auto"'),
    ('host = "auto"', f'host = "{"+".join(f"c{i:02}" + "x" * 60 for i in range(5))}"', "target.host is "),
    ('host = "auto"', 'host = "auto"\nproof = "later"', 'target.proof is "later", must be "required" or "aboard"'),
    ('host = "auto"', 'host = "auto"\nproof = true', 'target.proof is true, must be "required" or "aboard"'),
    ('[target]\nhost = "auto"\n', "", "target is missing, must be a table [target], or up to 16"),
    ("zooms = [16, 17]", "zooms = [16, 25]", "tiles[0].zooms[1] is 25, must be a whole number from 0 to 24"),
    ("zooms = [16, 17]", "zooms = [16.0]", "tiles[0].zooms[0] is 16.0, must be a whole number"),
    ("zooms = [16, 17]", "zooms = [true]", "tiles[0].zooms[0] is true, must be a whole number"),
    ("zooms = [16, 17]", "zooms = [17, 16]", "tiles[0].zooms is [17, 16], must be an array of whole numbers"),
    ("zooms = [16, 17]", "zooms = [16, 16]", "tiles[0].zooms is [16, 16], must be"),
    ("zooms = [16, 17]", "zooms = []", "tiles[0].zooms is [], must be"),
    ("zooms = [16, 17]", "zoom = [16]", "tiles[0].zoom is not a known key, did you mean 'zooms'?"),
    ("zooms = [16, 17]", "zooms = [16, 17]\nqwerty = 1", "tiles[0].qwerty is not a known key, known: source, zooms,"),
    ("zooms = [16, 17]", "zooms = [16]\nbands = [1, 2]", "tiles[0].bands is [1, 2], must be [red, green, blue] or"),
    ("zooms = [16, 17]", "zooms = [16]\nbands = [1, 2, 1]", "tiles[0].bands is [1, 2, 1], must be [red, green, blue]"),
    ("zooms = [16, 17]", "zooms = [16]\nbands = [0, 1, 2]", "tiles[0].bands[0] is 0, must be [red, green, blue]"),
    ('"map.mbtiles"', "[]", "tiles[0].source is [], must be the path of a file or folder"),
    ('"map.mbtiles"', '["map.mbtiles", 7]', 'tiles[0].source is ["map.mbtiles", 7], must be the path of a file'),
    ('"map.mbtiles"', '["camera.yaml", "gone.tif"]', 'tiles[0].source[1] is "gone.tif", must be the path of a file; '),
    (
        '"map.mbtiles"',
        '["map.mbtiles", "camera.yaml", "./map.mbtiles"]',
        'tiles[0].source[2] is "./map.mbtiles", must be another file than that of tiles[0].source[0]',
    ),
    ("zooms = [16, 17]", "zooms = [16]\nstretch = [1]", "tiles[0].stretch[1] is missing, must be [low, high]"),
    ("zooms = [16, 17]", "zooms = [16]\nstretch = [9, 9]", "tiles[0].stretch is [9, 9], must be [low, high]"),
    ("zooms = [16, 17]", "zooms = [16]\nstretch = [0, 65536]", "tiles[0].stretch[1] is 65536, must be [low, high]"),
    ("zooms = [16, 17]", "zooms = [16]\nstretch = [0.5, 9]", "tiles[0].stretch[0] is 0.5, must be [low, high]"),
    ("zooms = [16, 17]", 'zooms = [16]\nbands = "RGB"', 'tiles[0].bands is "RGB", must be [red, green, blue]'),
    ("[mission]", "[coverage]\nrepeated = true\n[mission]", 'coverage.repeated is true, must be "refused" or'),
    (
        "captured = 2018-07-16",
        'captured = 2018-07-16\nscheme = "XYZ"',
        'tiles[0].scheme is "XYZ", must be "tms" if its rows count from the south, or "xyz"',
    ),
    ("captured = 2018-07-16", "", "tiles[0].captured is missing, must be a date without quotes"),
    ("captured = 2018-07-16", 'captured = "2018-07-16"', 'tiles[0].captured is "2018-07-16", must be a date'),
    ("2018-07-16", "2018-07-16T00:00:00Z", "tiles[0].captured is 2018-07-16 00:00:00+00:00, must be a date"),
    ('"map.mbtiles"', '"gone.mbtiles"', 'tiles[0].source is "gone.mbtiles", must be the path of a file; '),
    ('"nets/place-embedder.onnx"', '"nets"', 'backbones[0].model is "nets", must be the path of a file; '),
    ('"map.mbtiles"', '""', 'tiles[0].source is "", must be the path of a file'),
    ('"map.mbtiles"', '"a\\u0000b"', 'tiles[0].source is "a\\u0000b", must be the path of a file'),
    ('"map.mbtiles"', f'"{"a" * 300}"', f'tiles[0].source is "{"a" * 79}..., must be the path of a file; '),
    ('"nets/place', '"nets/no/place', 'backbones[0].model is "nets/no/place-embedder.onnx", must be the path of a'),
    ('"camera.yaml"', '"map.mbtiles/x"', 'files[0].path is "map.mbtiles/x", must be the path of a file; '),
    ('name = "place-embedder"\nmodel', 'name = "P"\nmodel', 'backbones[0].name is "P", must be 1 to 64 characters'),
    ('"onnxruntime"', '"onnx"', 'backbones[0].backend is "onnx", must be "onnxruntime", "tensorrt" or "tensorrt-rtx"'),
    ('"fp32"', '"fp8"', 'backbones[0].precision is "fp8", must be "fp32", "fp16" or "int8"'),
    ('"fp32"', '"fp16"', 'backbones[0].precision is "fp16", must be "fp32" or "int8": the backend "onnxruntime"'),
    ('["N", 3,', '["N", "C",', 'backbones[0].inputs.image.shape is ["N", "C", 256, 256], must be an array of 1 to 8'),
    ('["N", 3,', '["N", 0,', 'backbones[0].inputs.image.shape[1] is 0, must be a whole number above 0, or a name'),
    ('["N", 3,', '["N N", 3,', 'backbones[0].inputs.image.shape[0] is "N N", must be a whole number above 0'),
    ('["N", 3,', "[true, 3,", "backbones[0].inputs.image.shape[0] is true, must be a whole number above 0"),
    ('["N", 3,', "[1, 3,", "backbones[0].inputs.image has min, opt or max and a fixed shape; leave them out"),
    ("min = 1, opt = 8", "min = 9, opt = 8", "backbones[0].inputs.image has min 9, opt 8, max 32 for 'N'; give"),
    (", max = 32", "", "backbones[0].inputs.image has min 1, opt 8 for 'N'; give min, opt and max"),
    (", min = 1, opt = 8, max = 32", "", "backbones[0].inputs.image has no range for 'N'; give min, opt and max"),
    ("min = 1", "min = 0", "backbones[0].inputs.image.min is 0, must be a whole number above 0"),
    ("inputs = { image", 'inputs = { ""', 'backbones[0].inputs."" is not a valid name, must be the name of an input'),
    ("inputs = { image = {", "inputs = { image = 4, b = {", "backbones[0].inputs.image is 4, must be a table with"),
    ("{ image = {", '{ "a b" = { x = 1,', 'backbones[0].inputs."a b".x is not a known key, known: shape, value, min,'),
    ("max = 32 } }", 'max = 32 }, b = { shape = ["N"], min = 1, opt = 1, max = 1 } }', "backbones[0].inputs.b gives"),
    ('backbone = "place-embedder"', 'backbone = "place"', 'descriptors[0].backbone is "place", must be the name of'),
    ('dtype = "float16"', 'dtype = "int8"', 'descriptors[0].dtype is "int8", must be "float16" or "float32"'),
    ('output = "descriptor"', 'output = ""', 'descriptors[0].output is "", must be the name of an output'),
    ("[256, 256], c", "[256], c", "descriptors[0].preprocess.resize[1] is missing, must be a whole number of pixels"),
    ("[256, 256], c", "[0, 256], c", "descriptors[0].preprocess.resize[0] is 0, must be a whole number of pixels"),
    ('"RGB"', '"rgb"', 'descriptors[0].preprocess.colour is "rgb", must be "RGB", "BGR", or "grey" for'),
    ('"0..1"', '"1"', 'descriptors[0].preprocess.scale is "1", must be "0..1", "0..255" or "-1..1"'),
    ('"0..1"', '"0..1", std = [1, 1, 0]', "descriptors[0].preprocess.std[2] is 0, must be a number above 0"),
    ('"0..1"', '"0..1", mean = [0.1234567, 0, 0]', "descriptors[0].preprocess.mean[0] is 0.1234567, must be a number"),
    ('"0..1"', '"0..1", filter = "area"', 'descriptors[0].preprocess.filter is "area", must be "nearest", "bilinear"'),
    ('"calibration/', '"/', 'files[0].name is "/camera.yaml", must be 1 to 3 parts joined by /'),
    ('"calibration/', '"../', 'files[0].name is "../camera.yaml", must be 1 to 3 parts'),
    ('"calibration/', '"a/b/c/', 'files[0].name is "a/b/c/camera.yaml", must be 1 to 3 parts'),
    ('"calibration/', '"Cal/', 'files[0].name is "Cal/camera.yaml", must be 1 to 3 parts'),
    ("[mission]", "[limits]\nmax_byte = 1\n[mission]", "limits.max_byte is not a known key, did you mean 'max_bytes'?"),
    ("[mission]", "missions = 1\n[mission]", "missions is not a known key, did you mean 'mission'?"),
    ("[target]", "[[target]]\nhost = 1\n[[target]]", 'target[0].host is 1, must be "auto"'),
    ("[target]", "[[target]]\nhost = 'auto'\n[[target]]", 'target[1].host is "auto", must be another class than'),
    (
        "[target]",
        "[target]\nbackend = 'cuda'",
        'target.backend is "cuda", must be "onnxruntime", "tensorrt" or "tensorrt-rtx"',
    ),
    ("[target]", "[target]\nbackends = 'tensorrt'", "target.backends is not a known key, did you mean 'backend'?"),
    ("[target]", SIXTEEN + "[[target]]", "target is [..., ..., "),
    ("[[tiles]]", "[tiles]", "tiles is a table, must be at least one table [[tiles]]"),
]  # fmt: skip


ONE_EACH = '[[target]]\nhost = "cpu-x86_64"\n\n[[target]]\nhost = "sm87"\nbackend = "tensorrt"\n'
FP32 = 'precision = "fp32"'


def test_a_fleet_has_a_target_for_each_class(folder: Path) -> None:
    fleet = MISSION.replace('[target]\nhost = "auto"\n', ONE_EACH)
    both = fleet.replace(FP32, f'{FP32}\nmode = "fast"\ntensorrt = {{ optimisation_level = 5 }}')
    for text in (fleet, both):
        targets = load_mission(write(folder, text)).file.target
        assert [(one.host, one.backend, one.proof) for one in targets] == [
            ("cpu-x86_64", None, "required"),
            ("sm87", "tensorrt", "required"),
        ]


@pytest.mark.parametrize(
    ("own", "backends", "keys", "problems"),
    [
        ("onnxruntime", (None, "tensorrt"), "", ['backbones[0].precision is "fp16", must be "fp32" or "int8"']),
        ("onnxruntime", ("tensorrt", "tensorrt"), "", []),
        ("onnxruntime", ("tensorrt", "onnxruntime"), "", ['backbones[0].precision is "fp16", must be "fp32" or']),
        (
            "tensorrt",
            ("onnxruntime", None),
            "",
            ['target[0].backend is "onnxruntime", must be "tensorrt" or "tensorrt-rtx": backbones[0]'],
        ),
        (
            "onnxruntime",
            ("tensorrt", "tensorrt"),
            'mode = "fast"',
            ["backbones[0].mode means nothing for tensorrt and"],
        ),
    ],
)
def test_a_backend_of_a_target_fits_every_backbone(
    folder: Path, own: str, backends: tuple[str | None, str | None], keys: str, problems: list[str]
) -> None:
    tables = "".join(
        f'[[target]]\nhost = "{host}"\n' + (f'backend = "{backend}"\n' if backend else "")
        for host, backend in zip(("cpu-x86_64", "sm87"), backends, strict=True)
    )
    text = MISSION.replace('backend = "onnxruntime"', f'backend = "{own}"')
    text = text.replace('[target]\nhost = "auto"\n', tables).replace(FP32, f'precision = "fp16"\n{keys}')
    told = problems_of(folder, text) if problems else []
    assert len(told) == len(problems)
    assert all(one in other for one, other in zip(problems, told, strict=True))
    if not problems:
        load_mission(write(folder, text))


@pytest.mark.parametrize(("old", "new", "problem"), WRONG, ids=[row[2][:60] for row in WRONG])
def test_a_problem_names_the_key_the_value_and_what_is_right(folder: Path, old: str, new: str, problem: str) -> None:
    assert old in MISSION
    problems = problems_of(folder, MISSION.replace(old, new, 1))
    assert any(line.startswith(problem) for line in problems), problems


def test_a_single_mistake_is_told_once(folder: Path) -> None:
    assert len(problems_of(folder, MISSION.replace("zooms = [16, 17]", "zooms = [16, 99]"))) == 1


@pytest.mark.parametrize("table", ["tiles", "backbones", "descriptors"])
def test_each_table_is_needed(folder: Path, table: str) -> None:
    start = MISSION.index(f"[[{table}]]")
    end = MISSION.find("[[", start + 2)
    problems = problems_of(folder, MISSION[:start] + MISSION[end:])
    assert f"{table} is missing, must be at least one table [[{table}]]" in problems


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (
            '[[tiles]]\nsource = "./nets/../map.mbtiles"\nzooms = [1]\ncaptured = 2019-01-01\n',
            'tiles[1].source is "./nets/../map.mbtiles", must be another file than that of tiles[0]',
        ),
        (
            '[[files]]\nname = "calibration/camera.yaml"\npath = "camera.yaml"\n',
            'files[1].name is "calibration/camera.yaml", must be another name than that of files[0]',
        ),
        (
            '[[files]]\nname = "calibration"\npath = "camera.yaml"\n',
            "files[0].name is \"calibration/camera.yaml\", must be outside 'calibration', which is the file files[1]",
        ),
        (
            '[[descriptors]]\nname = "place-embedder"\nbackbone = "place-embedder"\noutput = "d"\n'
            'dtype = "float32"\npreprocess = { resize = [1, 1], colour = "BGR", scale = "-1..1" }\n',
            'descriptors[1].name is "place-embedder", must be another name than that of descriptors[0]',
        ),
        (
            '[[backbones]]\nname = "place-embedder"\nmodel = "camera.yaml"\nbackend = "tensorrt"\n'
            'precision = "fp16"\ninputs = { x = { shape = [1] } }\n',
            'backbones[1].name is "place-embedder", must be another name than that of backbones[0]',
        ),
    ],
)
def test_what_is_there_twice_is_told(folder: Path, more: str, problem: str) -> None:
    assert problems_of(folder, MISSION + more) == [problem]


def test_a_link_to_a_tile_source_is_that_source(folder: Path) -> None:
    (folder / "link.mbtiles").symlink_to("map.mbtiles")
    more = '[[tiles]]\nsource = "link.mbtiles"\nzooms = [1]\ncaptured = 2019-01-01\n'
    (problem,) = problems_of(folder, MISSION + more)
    assert problem.startswith('tiles[1].source is "link.mbtiles", must be another file')


def test_all_problems_of_all_passes_are_told_together(folder: Path) -> None:
    text = MISSION
    for old, new in (
        ("zooms = [16, 17]", "zooms = [16, 99]"),
        ("lat = 47.0201", "lat = 48"),
        ('"fp32"', '"fp16"'),
        ('"camera.yaml"', '"gone.yaml"'),
        ('"map.mbtiles"', '"gone.mbtiles"'),
        ('backbone = "place-embedder"', 'backbone = "place"'),
        ('sector = "stable_rear"', "sector = 3"),
    ):
        text = text.replace(old, new, 1)
    keys = {line.split(" is ", 1)[0] for line in problems_of(folder, text)}
    assert keys == {
        "tiles[0].zooms[1]",
        "mission.takeoff",
        "backbones[0].precision",
        "files[0].path",
        "tiles[0].source",
        "descriptors[0].backbone",
        "mission.sector",
    }


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a = 1\nb = = 3\n", 2, 5),
        ("a = [1,\n", 2, 1),
        ("a = 1\na = 2", 2, 6),
        ("x = 2020-13-01", 1, 9),
        (b"a = 1\nb = '\xff'", 2, 6),
        (b"\xef\xbb\xbf[mission", 1, 9),
        (b"\xff\xfea\0", 1, 1),
    ],
)
def test_what_is_no_toml_is_told_with_line_and_column(folder: Path, text: str | bytes, line: int, column: int) -> None:
    path = write(folder, text)
    with pytest.raises(Invalid) as caught:
        load_mission(path)
    assert (caught.value.fields["line"], caught.value.fields["column"]) == (line, column)
    assert caught.value.message.startswith(f"{path}: line {line}, column {column}: ")


@pytest.mark.parametrize(
    "text",
    ["x = " + "[" * 100_000, "x = " + "9" * 5000, "x = 1e999999999999999999999999", "#" * MAX_MISSION_FILE + "\n"],
    ids=["nested", "long integer", "huge exponent", "large"],
)
def test_what_would_exhaust_the_parser_is_refused(folder: Path, text: str) -> None:
    path = write(folder, text)
    with pytest.raises(Invalid, match=r"mission\.toml"):
        load_mission(path)


def test_thousands_of_problems_are_a_short_list(folder: Path) -> None:
    problems = problems_of(folder, MISSION.replace("zooms = [16, 17]", f"zooms = [{'-1, ' * 10_000}]"))
    assert len(problems) == 101
    assert problems[-1] == "9900 more problems are not listed"


def test_a_file_of_the_greatest_size_is_read(folder: Path) -> None:
    lines = MISSION + "#\n" * ((MAX_MISSION_FILE - len(MISSION)) // 2)
    text = lines.ljust(MAX_MISSION_FILE)
    assert len(text) == MAX_MISSION_FILE
    assert load_mission(write(folder, text)).file.mission.id == "north-ridge"


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, os.mkfifo], ids=["absent", "folder", "pipe"])
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "mission.toml"
    make(path)
    with pytest.raises(Invalid, match=r"mission\.toml"):
        load_mission(path)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "link", "away/secret", "nets/../../secret"])
def test_a_file_outside_the_folder_is_stored_only_where_the_mission_file_says_so(folder: Path, path: str) -> None:
    """A store is not encrypted, and a mission file may come from somebody else."""
    top = folder / "mission"
    top.mkdir()
    for entry in ("map.mbtiles", "nets", "camera.yaml"):
        (folder / entry).rename(top / entry)
    (folder / "secret").write_bytes(b"x")
    (top / "link").symlink_to("../secret")
    (top / "away").symlink_to("..")
    text = MISSION.replace('"camera.yaml"', f'"{path}"')
    (problem,) = problems_of(top, text)
    assert problem.startswith(f'files[0].path is "{path}", must be in the folder of the mission file; /')
    assert "outside = true" in problem
    assert load_mission(write(top, text + "outside = true\n")).file.files[0].outside
    (problem,) = problems_of(top, text + "outside = 1\n")
    assert problem.startswith("files[0].outside is 1, must be true for a file outside")


def test_a_mission_file_that_is_a_link_has_the_folder_of_the_link(folder: Path) -> None:
    """That is the folder that its paths are relative to."""
    (folder / "elsewhere").mkdir()
    write(folder / "elsewhere", MISSION)
    (folder / "mission.toml").symlink_to("elsewhere/mission.toml")
    assert load_mission(folder / "mission.toml").file.files[0].path == folder / "camera.yaml"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_to_be_stored_is_a_regular_one(folder: Path, make: Callable[[Path], object]) -> None:
    (folder / "camera.yaml").unlink()
    make(folder / "camera.yaml")
    assert any("must be the path of a file" in problem for problem in problems_of(folder, MISSION))


def test_a_file_that_cannot_be_looked_at_is_not_called_absent(folder: Path) -> None:
    (folder / "loop.mbtiles").symlink_to("loop.mbtiles")
    with pytest.raises(Unavailable, match=r"tiles\[0\]\.source"):
        load_mission(write(folder, MISSION.replace("map.mbtiles", "loop.mbtiles")))


def test_an_area_over_the_antimeridian_holds_a_takeoff_on_either_side(folder: Path) -> None:
    for lon in ("179.9", "-179.9"):
        text = MISSION.replace("-99.175, 47.008, -99.135", "179.5, 47.008, -179.5").replace("-99.1602", lon)
        assert load_mission(write(folder, text)).file.mission.area.bbox_e7[0] == 1795000000
    problems = problems_of(folder, MISSION.replace("-99.175, 47.008, -99.135", "179.5, 47.008, -179.5"))
    assert len(problems) == 1
    assert problems[0].startswith("mission.takeoff is at lat 47.0201, lon -99.1602, must be inside")


SQUARE = '{"type":"Polygon","coordinates":[[[-99.18,47],[-99.13,47],[-99.13,47.04],[-99.18,47.04],[-99.18,47]]]}'


def test_the_area_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Path] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> bytes:
        files.append(path)
        return read_regular(path, *arguments, **options)

    monkeypatch.setattr("builders.areas.drawing.read_regular", counted)
    (folder / "area.geojson").write_text(SQUARE)
    text = MISSION.replace("bbox = [-99.175, 47.008, -99.135, 47.033]", 'geojson = "area.geojson"')
    mission = write(folder, text)
    loaded = load_mission(mission)
    assert files == [folder / "area.geojson"]
    assert loaded.area.bbox == (-991800000, 470000000, -991300000, 470400000)
    assert len(loaded.area.polygons) == 1


def test_an_area_file_with_a_problem_is_one_problem(folder: Path) -> None:
    text = MISSION.replace("bbox = [-99.175, 47.008, -99.135, 47.033]", 'geojson = "area.geojson"')
    (problem,) = problems_of(folder, text)
    assert problem.startswith(f"mission.area cannot be used: file {folder}/area.geojson does not exist")
    (folder / "area.geojson").symlink_to("area.geojson")
    with pytest.raises(Unavailable, match=r"mission\.area: file") as caught:
        load_mission(write(folder, text))
    assert caught.value.problems == (caught.value.message,)


BBOX = "bbox = [-99.175, 47.008, -99.135, 47.033]"
ORIGIN = "{ lat = 47.0201, lon = -99.1602, alt_m = 480.0 }"


def drawn(folder: Path, area: str = BBOX, takeoff: str = ORIGIN, of_mission: str = "") -> LoadedMission:
    text = MISSION.replace(BBOX, area).replace(ORIGIN, takeoff)
    return load_mission(write(folder, text.replace("sector =", f"{of_mission}\nsector =")))


def test_a_plan_states_area_and_takeoff_and_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[Path] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> bytes:
        files.append(path)
        return read_regular(path, *arguments, **options)

    monkeypatch.setattr("builders.areas.drawing.read_regular", counted)
    fences = [drawings.fence(), drawings.fence(drawings.RING[:3], inclusion=False)]
    path = drawings.written(folder / "ridge.plan", drawings.plan(polygons=fences, items=[drawings.survey()]))
    loaded = drawn(folder, 'plan = "ridge.plan", select = "geofence"', '{ plan = "ridge.plan" }')
    assert files == [path]
    assert loaded.area.polygons == ((drawings.ring_e7(),),)
    assert loaded.takeoff == Takeoff(470200000, -991600000, 480000)
    assert loaded.file.mission.takeoff.exact is None
    assert loaded.notes == (
        f"{path}: geoFence.polygons[1] excludes ground: passed over, the map shows it all the same",
    )


def test_a_route_of_a_plan_is_a_corridor(folder: Path) -> None:
    path = drawings.written(folder / "ridge.plan", drawings.plan(items=drawings.route()))
    loaded = drawn(folder, 'corridor = "ridge.plan", width_m = 400', '{ plan = "ridge.plan", alt_m = 470.5 }')
    assert loaded.area == drawings.corridor_in(path, 400)
    assert loaded.takeoff.alt == 470500
    assert loaded.notes == (f"{path}: home is at 480 m there, alt_m says 470.5 m, which counts",)


def test_a_kml_has_area_and_takeoff_by_name(folder: Path) -> None:
    text = drawings.kml(
        drawings.placemark(drawings.kml_polygon(), "ridge"),
        drawings.placemark(drawings.kml_point(47.02, -99.16), "home"),
    )
    drawings.written(folder / "a.kmz", drawings.kmz(doc_kml=text))
    loaded = drawn(folder, 'plan = "a.kmz", select = "ridge"', '{ plan = "a.kmz", select = "home", alt_m = 480 }')
    assert loaded.takeoff == Takeoff(470200000, -991600000, 480000)
    text = MISSION.replace(ORIGIN, '{ plan = "a.kmz", select = "home" }')
    (problem,) = problems_of(folder, text)
    assert problem.endswith("states no height above sea level for the takeoff; add alt_m to takeoff")


@pytest.mark.parametrize(
    ("area", "takeoff", "told"),
    [
        ('plan = "a.geojson"', ORIGIN, "is GeoJSON by its bytes, and plan says KML"),
        ('geojson = "a.plan"', ORIGIN, "is QGroundControl plan by its bytes, and geojson says GeoJSON"),
        (BBOX, '{ plan = "a.geojson" }', "is GeoJSON, which states no takeoff; give takeoff = { lat ="),
        (BBOX, '{ plan = "high.plan" }', "has a takeoff at 30000 m, must be -1000 to 20000 m"),
        (BBOX, '{ plan = "none.plan" }', "file .* does not exist"),
        ('plan = "a.plan", geojson = "a.geojson"', ORIGIN, "has geojson and plan, must have bbox, or geojson, or plan"),
        (f'{BBOX}, select = "a"', ORIGIN, "has bbox and select, must have"),
        ('plan = "a.plan", width_m = 5', ORIGIN, "has plan and width_m, must have"),
        (BBOX, '{ plan = "a.plan", lat = 47.0 }', "has lat and plan, must have lat, lon and alt_m, or plan"),
        (BBOX, '{ lat = 47.0, lon = -99.16, alt_m = 4, select = "a" }', "must have lat, lon and alt_m, or plan"),
        (BBOX, "{ }", "has nothing, must have lat, lon and alt_m, or plan"),
        ('geojson = "a.geojson", select = ""', ORIGIN, "must be the name of one feature"),
    ],
)
def test_a_file_that_contradicts_its_key(folder: Path, area: str, takeoff: str, told: str) -> None:
    (folder / "a.geojson").write_text(SQUARE)
    drawings.written(folder / "a.plan", drawings.plan(polygons=[drawings.fence()]))
    drawings.written(folder / "high.plan", drawings.plan(home=[47.02, -99.16, 30000]))
    (problem,) = problems_of(folder, MISSION.replace(BBOX, area).replace(ORIGIN, takeoff))
    assert re.search(told, problem), problem


def test_a_takeoff_outside_the_area_is_allowed_where_the_file_says_so(folder: Path) -> None:
    away = ORIGIN.replace("47.0201", "47.043")
    (problem,) = problems_of(folder, MISSION.replace(ORIGIN, away))
    assert "it is about 1112 m outside" in problem
    assert "takeoff_outside = true" in problem
    loaded = drawn(folder, takeoff=away, of_mission="takeoff_outside = true")
    assert loaded.takeoff == Takeoff(470430000, -991602000, 480000)
    assert loaded.file.mission.takeoff_outside
    told = "mission.takeoff_outside is true, and the takeoff is inside mission.area: leave it out"
    assert problems_of(folder, MISSION.replace("sector =", "takeoff_outside = true\nsector =")) == [told]


def test_the_mission_is_stated_before_a_file_that_it_names_is_opened(folder: Path) -> None:
    opened: list[str] = []
    text = MISSION.replace(BBOX, 'geojson = "area.geojson"')

    def stated(file: MissionFile) -> None:
        opened.append(file.mission.id)
        (folder / "area.geojson").write_text(SQUARE)

    assert load_mission(write(folder, text), stated).area.polygons
    assert opened == ["north-ridge"]


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n"),
                                    lambda t: t.replace(" = ", "\t=\t").replace(", ", ",\t")])  # fmt: skip
def test_a_mission_file_as_editors_write_it(folder: Path, change: Callable[[str], str]) -> None:
    assert load_mission(write(folder, change(MISSION))).file == load_mission(write(folder, MISSION)).file


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("zooms", "zoom", "tiles[0].zoom is not a known key, did you mean 'zooms'?"),
        ("zooms", "Zooms", "tiles[0].Zooms is not a known key, did you mean 'zooms'?"),
        ("lat =", "latitude =", "mission.takeoff.latitude is not a known key, did you mean 'lat'?"),
        ("takeoff =", "take-off =", "mission.take-off is not a known key, did you mean 'takeoff'?"),
        ("takeoff =", "takeOff =", "mission.takeOff is not a known key, did you mean 'takeoff'?"),
        ("[target]", "[targets]", "targets is not a known key, did you mean 'target'?"),
        ("[[tiles]]", "[[Tile]]", "Tile is not a known key, did you mean 'tiles'?"),
        ("captured", "tile_size = 512\ncaptured", "tiles[0].tile_size is not a known key, [coverage] has it"),
        ("captured", "max_bytes = 5\ncaptured", "tiles[0].max_bytes is not a known key, [limits] has it"),
        ("sector", "lon = 5\nsector", "mission.lon is not a known key, [mission.takeoff] has it"),
        ("sector", "xyzzy = 5\nsector", "mission.xyzzy is not a known key, known: id, flight, aircraft"),
    ],
)
def test_a_typing_error_in_a_key_names_the_key_that_is_meant(folder: Path, before: str, after: str, told: str) -> None:
    problems = problems_of(folder, MISSION.replace(before, after, 1))
    assert [problem for problem in problems if problem.startswith(told)], problems


def test_whole_degrees_are_numbers_too(folder: Path) -> None:
    text = MISSION.replace("-99.175, 47.008, -99.135, 47.033", "-100, 47, -99, 48").replace("480.0", "480")
    mission = load_mission(write(folder, text)).file.mission
    assert mission.area.bbox_e7 == (-1000000000, 470000000, -990000000, 480000000)
    assert mission.takeoff.exact == Takeoff(470201000, -991602000, 480000)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals() | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@given(st.data())
def test_any_value_at_any_key_is_either_right_or_told_at_that_key(data: st.DataObject) -> None:
    """No value that TOML can hold leads to anything but a mission or a list of problems about that key."""
    import tomllib

    from builders.mission import reader as mission_reader

    whole = tomllib.loads(MISSION, parse_float=Decimal)
    places: list[tuple[str | int, ...]] = []

    def walk(value: Any, key: tuple[str | int, ...]) -> None:
        places.append(key)
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            walk(item, (*key, part)) if isinstance(item, dict | list) else places.append((*key, part))

    walk(whole, ())
    key = data.draw(st.sampled_from(places[1:]))
    changed: Any = copy.deepcopy(whole)
    at = changed
    for part in key[:-1]:
        at = at[part]
    at[key[-1]] = data.draw(VALUES.filter(lambda value: value is not None))
    report = mission_reader._Report(Path("m.toml"), changed)
    try:
        mission_reader.MissionFile.model_validate(changed, context={"folder": Path("/")})
    except mission_reader.ValidationError as error:
        report.add_validation(error)
        assert report.problems
        # A range is told at the input that has it, and an order or a box at the array.
        assert all(line.startswith(f"m.toml: {toml_key(key[:2])}") for line in report.problems), report.problems
        assert not any("must be  " in line or line.endswith("must be ") for line in report.problems)


# -- backbones as people export them

SHAPE, COLOUR = '["N", 3, 256, 256]', 'colour = "RGB"'
MASK = 'max = 32 }, mask = { shape = ["N", 4], value = true } }'
RIGHT = [
    ([(SHAPE, '["N", 256, 256, 3]')], "NHWC"),
    ([(SHAPE, '["N", "N", 256, 256]')], None),
    ([(SHAPE, '["N", 1, 256, 256]'), (COLOUR, 'colour = "grey"')], "NCHW"),
    ([(SHAPE, '["N", 256, 256, 1]'), (COLOUR, 'colour = "grey", mean = [0.5], std = [0.25]')], "NHWC"),
    ([(SHAPE, '["N", 3, 256, 3]'), (COLOUR, 'colour = "RGB", layout = "NHWC"')], "NHWC"),
    ([("max = 32 } }", MASK)], "NCHW"),
    ([("max = 32 } }", 'max = 32 }, size = { shape = [1, 2], value = [640, 0.5] } }')], "NCHW"),
    ([("max = 32 } }", "max = 32 }, gain = { shape = [], value = 1.5 } }")], "NCHW"),
    ([('output = "descriptor"', 'output = "tokens"\npool = "gem"')], "NCHW"),
    ([('precision = "fp32"', 'precision = "fp32"\ncompare = ["descriptor"]\nreference = "camera.yaml"')], "NCHW"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "layout"), RIGHT, ids=[str(row[0][0][1])[:50] for row in RIGHT])
def test_exports_of_other_makes_are_read(folder: Path, changes: list[tuple[str, str]], layout: str | None) -> None:
    text = MISSION
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    if layout is None:
        problems_of(folder, text)
        return
    mission = load_mission(write(folder, text)).file
    keys = mission.descriptors[0].preprocess
    assert layout in keys.layouts(mission.backbones[0].inputs["image"].shape)


EXPORTS = [
    ([(SHAPE, '["N", 1, 256, 256]')],
     'descriptors[0].preprocess.colour is "RGB" and the input of place-embedder has the shape ["N", 1, 256, 256], must '
     'be the channels of one of its dimensions, or set colour = "grey"'),
    ([(COLOUR, 'colour = "grey"')],
     'descriptors[0].preprocess.colour is "grey" and the input of place-embedder has the shape ["N", 3, 256, 256], '
     'must be the channels of one of its dimensions, or set colour = "RGB"'),
    ([(SHAPE, '["N", 3, 256, 3]')],
     "descriptors[0].preprocess.layout is missing, must be one of NCHW and NHWC: the shape fits both"),
    ([(COLOUR, 'colour = "RGB", layout = "NHWC"')],
     'descriptors[0].preprocess.layout is "NHWC", must be "NCHW", as the shape ["N", 3, 256, 256] has it'),
    ([(COLOUR, 'colour = "grey", mean = [0, 0, 0]')],
     "descriptors[0].preprocess has 3 numbers as mean; grey has one number, one a channel"),
    ([(COLOUR, 'colour = "RGB", std = [1]')],
     "descriptors[0].preprocess has 1 numbers as std; RGB has three numbers, one a channel"),
    ([("min = 1, opt = 8, max = 32", "value = 1")],
     "backbones[0].inputs has a value for each input, must leave out that of the images"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [2, 2], value = [1, 2, 3] } }')],
     "backbones[0].inputs.b has 3 numbers as value for a shape of 4; give one, or all"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [2, "N"], value = 1 } }')],
     "backbones[0].inputs.b has a value and a name in shape that is not the first"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = ["N"], value = 1, min = 1, opt = 1, max = 1 } }')],
     "backbones[0].inputs.b has a value and min, opt or max"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [4096, 4096], value = 1 } }')],
     "backbones[0].inputs.b has a value for 16777216 numbers, more than 4194304"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [2], value = "one" } }')],
     'backbones[0].inputs.b.value is "one", must be a number, true or false'),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [1], value = inf } }')],
     "backbones[0].inputs.b.value is Infinity, must be a number, true or false"),
    ([("max = 32 } }", 'max = 32 }, b = { shape = [] } }')], "backbones[0].inputs.b has an empty shape"),
    ([('output = "descriptor"', 'output = "tokens"\npool = "max"')],
     'descriptors[0].pool is "max", must be "cls", "mean" or "gem"'),
    ([('precision = "fp32"', 'precision = "fp32"\ncompare = ["a", "a"]')],
     'backbones[0].compare is ["a", "a"], must be an array of names of outputs of the model, each once'),
    ([('precision = "fp32"', 'precision = "fp32"\nreference = "io.npz"')],
     'backbones[0].reference is "io.npz", must be the path of a file;'),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), EXPORTS, ids=[row[1][:70] for row in EXPORTS])
def test_what_does_not_fit_in_an_export_is_told(folder: Path, changes: list[tuple[str, str]], problem: str) -> None:
    text = MISSION
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    problems = problems_of(folder, text)
    assert any(line.startswith(problem) for line in problems), problems
