"""The tile sources that a mission file or a command line names."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.imagery.roworder import SourcePath
from builders.mission.reader import load_mission
from builders.mission.tiles import named_specs, specs_of
from store.errors import Invalid
from tests.support.field import Desk


def test_a_mission_file_on_a_command_line_stands_for_its_sources(desk: Desk) -> None:
    for name in ("b.tif", "a.tif"):
        (desk.folder / name).write_bytes(b"II*\0")
    mission = desk.write_mission("left", tiles=Path("LIST"), of_tiles="bands = [3, 2, 1]\nstretch = [120, 3400]")
    mission.write_text(mission.read_text().replace('"LIST"', '["b.tif", "a.tif"]'))
    (spec,) = specs_of(load_mission(mission).file.tiles)
    assert (spec.path, spec.beside) == (desk.folder / "b.tif", (desk.folder / "a.tif",))
    assert (spec.bands, spec.stretch) == ((3, 2, 1), (120, 3400))
    other = SourcePath(desk.folder / "other.mbtiles", "xyz")
    named = named_specs([SourcePath(mission), other], (15,))
    assert named[0] == spec
    assert (named[1].path, named[1].scheme, named[1].zooms) == (other.path, "xyz", (15,))
    mission.write_text("[mission]")
    with pytest.raises(Invalid, match=r"left\.toml"):
        named_specs([SourcePath(mission)], (15,))
