"""What is asked of a verified mission: where a picture was taken, whether the engine agrees with the map, how often the
map answers right. What the commands `query`, `probe` and `quality` do, and what onboard software may.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.areas.covering import tiles_of_area
from builders.descriptors.decoding import BadTile, decode
from builders.grid.tiles import MAX_TILE_BYTES
from builders.grid.views import View
from builders.imagery.inventory import SourceSpec, TileSources, Wanted, cells_of, cells_over
from builders.onboard.flying import FlyingEngine, batches_of, card_of, engine_of, flying_engine
from builders.onboard.layers import MapLayer
from builders.onboard.loading import open_engine
from builders.onboard.probes import Probe
from builders.onboard.retriever import Match, Retriever
from builders.recipe import fidelity_recipe
from builders.retrieval.quality import Imagery, RecallMeasurement
from builders.retrieval.recall import total
from store.errors import Invalid, NotFound, Refused, Unavailable
from store.format.ids import BuildKey
from store.format.manifest import PPM
from store.takeoff.loading import load
from store.takeoff.mission import VerifiedMission

_ANY_DATE = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure measured again, in parts per million, None where it was not: `signed` and `least` are those of the
    manifest, None where it has no such figure; `same` tells whether it was measured in the same way as the signed one;
    `zooms` has it zoom by zoom, `queries` how many were asked."""

    name: str
    value: int | None
    signed: int | None
    least: int | None
    same: bool
    zooms: dict[int, int]
    queries: int = 0

    @property
    def low(self) -> bool:
        """Whether it is less than the mission was allowed to have."""
        return self.value is not None and self.least is not None and self.value < self.least

    @property
    def unsure(self) -> bool:
        """Whether it says nothing of the signed figure: it was not measured, or in another way."""
        return self.value is None or (self.signed is not None and not self.same)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "signed": self.signed,
            "least": self.least,
            "same_recipe": self.same,
            "holds": not self.low and not self.unsure,
            "queries": self.queries,
            "zooms": {str(zoom): value for zoom, value in self.zooms.items()},
        }


def read_picture(path: Path) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of a JPEG, PNG or WebP file. Raises NotFound, Invalid or Unavailable, naming the
    file."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Invalid(f"{path} is not a regular file", path=str(path))
        with open(path, "rb") as file:
            return np.asarray(decode(file.read(MAX_TILE_BYTES + 1)))
    except FileNotFoundError:
        raise NotFound(f"there is no picture {path}", path=str(path)) from None
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    except BadTile as error:
        raise Invalid(f"{path} is no picture: {error.message}", path=str(path)) from error


def sets_of(mission: VerifiedMission) -> list[str]:
    """The descriptor sets of a mission, ascending."""
    return sorted({e.name.split("/")[1] for e in mission.table.entries if e.kind == "descriptors"})


def the_set(mission: VerifiedMission, set_: str | None) -> str:
    """The descriptor set that is meant. Raises Invalid where it has to be said which."""
    sets = sets_of(mission)
    if set_ is None and len(sets) != 1:
        raise Invalid(
            f"mission {mission.facts.id} has {len(sets)} descriptor sets", remedy=f"say which: {', '.join(sets)}"
        )
    return set_ if set_ is not None else sets[0]


def locate(
    mission: VerifiedMission, picture: NDArray[np.uint8], *, set_: str | None, zoom: int | None, index: str, top: int
) -> list[Match]:
    """The best places for a picture, uint8 [height, width, 3], that shows what a row of the map shows."""
    name = the_set(mission, set_)
    with Retriever(mission, name, zoom=zoom, index=index) as retriever:
        return retriever.search(flying_engine(mission, name).describe([picture]), top)[0]


def probes(mission: VerifiedMission) -> list[Measurement]:
    """The fidelity of each engine's set, by its probe. Raises NotFound for a mission without any: nothing was
    checked."""
    found = []
    for set_ in sets_of(mission):
        entry = mission.table.find(f"probes/{set_}.safetensors")
        if entry is None or entry.key is None:
            raise NotFound(f"mission {mission.facts.id} has no probe of the descriptor set {set_}", set=set_)
        probe = Probe.parse(load(mission, entry.name, kind="probe"))
        engine = engine_of(mission, set_, probe.recipe)
        flying = FlyingEngine(
            open_engine(mission, engine.meta["backbone"]), probe.recipe, batches_of(card_of(mission, engine))
        )
        value = int(max(probe.fidelity(flying), 0.0) * PPM)
        recipe = fidelity_recipe(entry.key, engine.key) if engine.key is not None else b""
        found.append(_remeasured(mission, f"fidelity/{set_}", value, recipe, {}, len(probe.images)))
    if not found:
        raise NotFound(f"mission {mission.facts.id} has no descriptor sets")
    return found


def measure(
    mission: VerifiedMission, tiles: Sequence[Path], against: Path | None, progress: Callable[[str, int, int], None]
) -> list[Measurement]:
    """The recall of each descriptor set, with tiles of these sources. Raises Refused where the tiles of the area are
    not those that the mission was built from."""
    found = []
    for set_ in sets_of(mission):
        with ExitStack() as stack:
            layers = stack.enter_context(Retriever(mission, set_)).layers
            side = layers[0].recipe.tile_size
            wanted = wanted_of(mission, layers)
            here = imagery_of(stack, tiles, side, wanted, partial(_told, progress, "reading tiles"))
            other = None
            if against is not None:
                other = imagery_of(stack, [against], side, wanted, partial(_told, progress, "reading other tiles"))
            if here.inventory.digest != mission.manifest.coverage.digest:
                raise Refused(
                    "the tiles of the area are not those that the mission was built from",
                    remedy="give the sources that it was built from, in the same order",
                    kind="other-tiles",
                )
            entry = engine_of(mission, set_, layers[0].recipe)
            rows = tuple(layer.recipe for layer in layers)
            question = RecallMeasurement(set_, entry.key or BuildKey(bytes(32)), rows, here, other)
            told = partial(_told, progress, f"asking {set_}")
            result = question.measure(layers, flying_engine(mission, set_), told)
            for name, way, top in question.figures():
                zooms = {zoom: tally.ppm(top) for zoom, tally in result[way].items()}
                pooled = total(result[way].values())
                found.append(_remeasured(mission, name, pooled.ppm(top), question.recipe(way), zooms, pooled.queries))
    done = {one.name for one in found}
    left = [one for one in mission.manifest.quality if one.name.startswith("recall@") and one.name not in done]
    return found + [Measurement(one.name, None, one.value, one.least, False, {}) for one in left]


def _told(progress: Callable[[str, int, int], None], what: str, count: int) -> None:
    progress(what, count, 0)


def wanted_of(mission: VerifiedMission, layers: Sequence[MapLayer]) -> dict[int, Wanted]:
    """What has to be known of tile sources to ask the map with their tiles."""
    views = {layer.zoom: layer.view for layer in layers}
    wanted = {}
    for zoom in mission.manifest.coverage.zooms:
        required = tiles_of_area(mission.facts.area, zoom)
        cells = [cells_of(zoom, required), cells_over(zoom, views.get(zoom, View()), required)]
        wanted[zoom] = Wanted(required, np.unique(np.concatenate(cells)))
    return wanted


def imagery_of(
    stack: ExitStack,
    paths: Sequence[Path],
    tile_size: int,
    wanted: dict[int, Wanted],
    progress: Callable[[int], None] | None = None,
) -> Imagery:
    """The tiles of these sources, the first of which wins where they overlap; open as long as the stack is."""
    specs = [SourceSpec(path, tuple(wanted), _ANY_DATE) for path in paths]
    sources = stack.enter_context(TileSources(specs, tile_size))
    return Imagery(sources, sources.inventory(wanted, progress))


def _remeasured(
    mission: VerifiedMission, name: str, value: int, recipe: bytes, zooms: dict[int, int], queries: int
) -> Measurement:
    signed = {figure.name: figure for figure in mission.manifest.quality}.get(name)
    same = signed is not None and recipe == signed.recipe
    was, least = (signed.value, signed.least) if signed else (None, None)
    return Measurement(name, value, was, least, same, zooms, queries)
