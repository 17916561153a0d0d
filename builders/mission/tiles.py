"""The tile sources that a mission file or a command line names."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from builders.imagery.inventory import SourceSpec
from builders.imagery.roworder import SourcePath
from builders.mission.reader import load_mission
from builders.mission.schema import Tiles

# Where no mission is built, nobody asks for the date of a source.
_ANY_DATE = datetime.date(1970, 1, 1)


def specs_of(tables: Sequence[Tiles]) -> list[SourceSpec]:
    """The sources of the tables `[[tiles]]`."""
    return [
        SourceSpec(
            one.source[0],
            one.zooms,
            one.captured,
            one.footprints,
            float(one.resolution_m or 0),
            scheme=one.scheme,
            beside=one.source[1:],
            bands=one.bands,
            stretch=one.stretch,
        )
        for one in tables
    ]


def named_specs(sources: Sequence[SourcePath], zooms: tuple[int, ...]) -> list[SourceSpec]:
    """The sources that a command line names, at these zooms. A mission file (`.toml`) stands for those of its tables
    `[[tiles]]`, with their zooms, bands, stretch and lists of rasters. Raises Invalid for a wrong mission file."""
    specs = []
    for path, scheme in sources:
        if path.suffix == ".toml":
            specs += specs_of(load_mission(path).file.tiles)
        else:
            specs.append(SourceSpec(path, zooms, _ANY_DATE, scheme=scheme))
    return specs
