"""Queries of a verified mission on the ground: where a picture was taken, and how often the map finds the right place.

The commands `query` and `quality` call these functions. `builders.onboard` has what a flight computer needs for the
same queries, without decoding pictures and reading tile sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from builders.activity import doing
from builders.areas.covering import tiles_of_area
from builders.descriptors.photo import MAX_BYTES, decode_photo
from builders.files import read_regular
from builders.grid.views import View
from builders.imagery.inventory import LevelRequest, TileSources, cells_of, cells_over
from builders.imagery.roworder import SourcePath
from builders.mission.tiles import named_specs
from builders.onboard.camera import Camera
from builders.onboard.flying import engine_of, flying_engine, sets_of
from builders.onboard.layers import MapLayer
from builders.onboard.measurement import Measurement
from builders.onboard.retriever import Located, Retriever
from builders.retrieval.quality import Imagery, RecallFigure, RecallMeasurement
from builders.retrieval.recall import Recall, chance, total
from builders.retrieval.self_retrieval import SelfRetrieval
from store.errors import Invalid, Refused
from store.format.ids import BuildKey
from store.format.manifest import PPM
from store.takeoff.mission import VerifiedMission


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Return uint8 [height, width, 3]: the pixels of a JPEG, PNG or WebP file, upright. Raises as `decode_photo` does,
    naming the file; Invalid for a file that is absent or empty, and Unavailable for one that cannot be read."""
    data = read_regular(path, MAX_BYTES, "picture")
    if not data:
        raise Invalid(f"picture {path} is empty", remedy="copy it from the camera again", path=str(path))
    try:
        with doing(f"decoding the picture {path}"):
            return decode_photo(data)
    except Invalid as error:
        raise error.restated(f"picture {path}: {error.message}", path=str(path)) from error


def camera_of(metres: float | None, height: float | None, fov: float | None, heading: float | None) -> Camera:
    """Return the camera of the options of a query. Raises Invalid for options that do not fit together, and as `Camera`
    does."""
    if (height is None) != (fov is None) or (metres is not None and height is not None):
        raise Invalid(
            "the ground that a picture shows needs either --metres, or --height and --fov",
            remedy="give --metres, or both --height and --fov",
        )
    if height is not None and fov is not None:
        return Camera.at_height(height, fov, heading)
    return Camera(metres, heading)


def the_set(mission: VerifiedMission, set_: str | None) -> str:
    """Return `set_`, or the mission's only descriptor set for None. Raises Invalid for None where it has several."""
    sets = sets_of(mission)
    if set_ is None and len(sets) != 1:
        raise Invalid(
            f"mission {mission.facts.id} has {len(sets)} descriptor sets",
            remedy=f"name one of them: {', '.join(sets)}",
        )
    return set_ if set_ is not None else sets[0]


def locate(
    mission: VerifiedMission,
    picture: NDArray[np.uint8],
    camera: Camera,
    *,
    set_: str | None,
    zoom: int | None,
    index: str,
    top: int,
) -> Located:
    """Return the `top` places that fit a picture best, as `Retriever.locate` does.

    `picture` is uint8 [height, width, 3]. Raises as `the_set`, `flying_engine` and `Retriever` do.
    """
    name = the_set(mission, set_)
    with Retriever(mission, name, zoom=zoom, index=index) as retriever:
        return retriever.locate(flying_engine(mission, name), picture, camera, top)


def measure(
    mission: VerifiedMission,
    tiles: Sequence[SourcePath],
    against: SourcePath | None,
    sample: int,
    progress: Callable[[str, int, int], None],
) -> list[Measurement]:
    """Return the self-retrieval and the recall of each descriptor set, measured again with the tiles of these sources.

    `against` is a source of other imagery of the area, `sample` the number of views of each zoom that are asked for.
    A figure without a query is left out. The untrained network is not asked again: a store has no network. Figures that
    need `against` and that the mission is signed with follow without a value where it is None. `progress` gets (what,
    units done now, 0). Raises Refused where the tiles of the area are not the ones that the mission was built from.
    """
    figures = []
    for set_ in sets_of(mission):
        with ExitStack() as stack:
            layers = stack.enter_context(Retriever(mission, set_)).layers
            side, box = layers[0].recipe.tile_size, mission.facts.area.bbox
            wanted = wanted_of(mission, layers)
            here = imagery_of(stack, tiles, side, box, wanted, partial(_report, progress, "reading tiles"))
            other = None
            if against is not None:
                reading = partial(_report, progress, "reading other tiles")
                other = imagery_of(stack, [against], side, box, wanted, reading)
            if here.inventory.digest != mission.manifest.coverage.digest:
                raise Refused(
                    "the tiles of the area are not the ones that the mission was built from",
                    remedy="give the sources that it was built from, in the same order",
                    kind="other-tiles",
                )
            entry = engine_of(mission, set_, layers[0].recipe)
            rows = tuple(layer.recipe for layer in layers)
            key, flying = entry.key or BuildKey(bytes(32)), flying_engine(mission, set_)
            report = partial(_report, progress, f"querying {set_}")
            own = SelfRetrieval(set_, key, rows, here)
            counts = own.measure(layers, flying, report)
            right, queries = (sum(part) for part in zip(*counts.values(), strict=True))
            zooms = {zoom: right * PPM // queries for zoom, (right, queries) in counts.items()}
            figures.append(Measurement.of(mission, own.name, right * PPM // queries, own.recipe, zooms, queries))
            recall = RecallMeasurement(set_, key, rows, here, other, sample)
            results = recall.measure(layers, flying, None, report)
            figures += [
                _measurement(mission, figure, recall.recipe(figure), results[way])
                for way in recall.ways
                for figure in recall.figures(way)
                if results[way] and figure.kind != "untrained"
            ]
    measured = {figure.name for figure in figures}
    left = [one for one in mission.manifest.quality if one.name.startswith("recall@") and one.name not in measured]
    return figures + [Measurement.unmeasured(one) for one in left]


def _measurement(
    mission: VerifiedMission, figure: RecallFigure, recipe: bytes, results: Mapping[int, Recall]
) -> Measurement:
    """Return a figure of these recalls, beside the signed one."""
    counts = {zoom: recall.of(figure.kind) for zoom, recall in results.items()}
    tallies = {zoom: (rows, one) for zoom, (rows, one) in counts.items() if one is not None}
    pooled = total(one for _, one in tallies.values())
    zooms = {zoom: one.ppm(figure.top) for zoom, (_, one) in tallies.items()}
    by_chance = chance(((one.queries, rows) for rows, one in tallies.values()), figure.top)
    return Measurement.of(mission, figure.name, pooled.ppm(figure.top), recipe, zooms, pooled.queries, chance=by_chance)


def _report(progress: Callable[[str, int, int], None], what: str, count: int) -> None:
    progress(what, count, 0)


def wanted_of(mission: VerifiedMission, layers: Sequence[MapLayer]) -> dict[int, LevelRequest]:
    """Return, by zoom, which tiles of a source have to be looked up to query the map with them."""
    views = {layer.zoom: layer.view for layer in layers}
    wanted = {}
    for zoom in mission.manifest.coverage.zooms:
        required = tiles_of_area(mission.facts.area, zoom)
        cells = [cells_of(zoom, required), cells_over(zoom, views.get(zoom, View()), required)]
        wanted[zoom] = LevelRequest(required, np.unique(np.concatenate(cells)))
    return wanted


def imagery_of(
    stack: ExitStack,
    paths: Sequence[SourcePath],
    tile_size: int,
    bbox: tuple[int, int, int, int],
    wanted: dict[int, LevelRequest],
    progress: Callable[[int], None] | None = None,
) -> Imagery:
    """Return the tiles of these sources in a box; where sources overlap, the first wins. They are open as long as the
    stack."""
    sources = stack.enter_context(TileSources(named_specs(paths, tuple(wanted)), tile_size, bbox))
    return Imagery(sources, sources.inventory(wanted, progress))
