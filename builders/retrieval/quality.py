"""How often a search in the map finds the right view for a picture that differs from it.

With its own tiles as queries, a map always answers right, whatever the backbone. So the queries are tiles that are
shifted, turned, scaled or lit otherwise, or imagery of another day. The engine that flies describes them, and the
search is exact, among the rows of their own zoom. Which views are queried follows from the area and the tiles, so a
second measurement with the same tiles gives the same figures. An answer is right where its view shows the same bytes
as the true one: repeated tiles are neither queries of their own nor wrong answers.

A recall says little by itself: among a few places, any network finds most. So the same queries are also asked among
the sampled views alone, once by the backbone and once by the same network without its training. The map is asked with
its own imagery, so none of this can see that the imagery is mirrored or in the wrong place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from builders.engines.untrained import SCHEMA as UNTRAINED_SCHEMA
from builders.engines.untrained import SEED
from builders.grid.live import live
from builders.grid.views import View
from builders.imagery.inventory import Inventory, Level, TileSources
from builders.onboard.exact import NO_ROW, RowBlock, search
from builders.onboard.layers import MapLayer
from builders.recipe import RowRecipe, tile_list
from builders.retrieval import perturb
from builders.retrieval.perturb import PERTURBATIONS, perturb_picture
from builders.retrieval.pictures import pictures, sample, shown, surroundings
from builders.retrieval.recall import Recall, tally
from store.format.cbor import Value, encode
from store.format.ids import BuildKey, derive
from store.takeoff.fidelity import FIGURE_CONTEXT
from store.takeoff.quality import AGAINST

SCHEMA = "flightbag/quality/2"
# Tiles round a view that a perturbed picture of it may show.
MARGIN = 1
_TOP = 5
# Views whose pictures are in memory at the same time.
_BATCH = 8


class Describer(Protocol):
    """Makes descriptors of pictures, in the way of the rows of a descriptor set."""

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [n, d] for n >= 1 images, each uint8 [height, width, 3]."""
        ...


class Baseline(Protocol):
    """Does the same, as long as it can: `UntrainedNetwork`."""

    def describe(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32] | None:
        """Return float32 [n, d] for n >= 1 images; None from the first failure on."""
        ...


@dataclass(frozen=True)
class Imagery:
    """Tiles to make queries of: open sources, and which tiles of the area they have."""

    sources: TileSources
    inventory: Inventory


class RecallFigure(NamedTuple):
    """A figure of FORMAT.md 6.7: `name` is that in the manifest. `kind` is what answers: `recall` (the whole map),
    `sampled` (the sampled views alone) or `untrained` (these, described by the untrained network)."""

    name: str
    kind: str
    top: int
    way: str


class _Answers(NamedTuple):
    """The queries of one way at one zoom: the origins of the true views uint64[q], and whether each of the nearest five
    is right, bool [q, 5], as in `Recall`."""

    true: NDArray[np.uint64]
    whole: NDArray[np.bool_]
    sampled: NDArray[np.bool_]
    untrained: NDArray[np.bool_] | None


@dataclass(frozen=True)
class RecallMeasurement:
    """The recall of one descriptor set.

    `map` is the imagery that the map was made from, `against` other imagery of the same area. `engine` is the build key
    of the engine that describes the queries, `rows` the row recipe of each zoom. Up to `sample` views of each zoom are
    queried.
    """

    set: str
    engine: BuildKey
    rows: tuple[RowRecipe, ...]
    map: Imagery
    against: Imagery | None
    sample: int

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways in which the queries differ from the map."""
        return (*sorted(PERTURBATIONS), *([AGAINST] if self.against is not None else []))

    def figures(self, way: str) -> tuple[RecallFigure, ...]:
        """Return the figures of a way."""
        kinds = (("recall", 1), ("recall", _TOP), ("sampled", 1), ("untrained", 1))
        return tuple(RecallFigure(f"{kind}@{top}/{self.set}/{way}", kind, top, way) for kind, top in kinds)

    def origins(self, way: str) -> tuple[NDArray[np.uint64], ...]:
        """Return uint64[n], ascending, for each zoom: the views of the sample."""
        return self._own if way != AGAINST else self._others

    def askable(
        self, way: str, zoom: int, required: NDArray[np.uint64], missing: NDArray[np.uint64]
    ) -> NDArray[np.uint64]:
        """Return the views of the sample of a zoom that can be queried: they have live rows, and a changed picture of
        them shows no missing tile. `required` and `missing` are as those of `is_live`."""
        place = self.map.inventory.zooms.index(zoom)
        view, margin = self._views[place], 0 if way == AGAINST else MARGIN
        origins = live(zoom, view, self.origins(way)[place], required, missing)
        around = surroundings(zoom, view, origins, margin)[1]
        return origins[~np.isin(around, missing).any(axis=(1, 2))]

    @cached_property
    def _own(self) -> tuple[NDArray[np.uint64], ...]:
        levels = self.map.inventory.levels
        return tuple(sample(level, view, MARGIN, self.sample) for level, view in zip(levels, self._views, strict=True))

    @cached_property
    def _others(self) -> tuple[NDArray[np.uint64], ...]:
        assert self.against is not None
        levels = [self.against.inventory.level(level.zoom) for level in self.map.inventory.levels]
        return tuple(sample(level, view, 0, self.sample) for level, view in zip(levels, self._views, strict=True))

    @cached_property
    def _own_tiles(self) -> list[bytes]:
        return list(self._tiles(self.map, self._own, MARGIN))

    @cached_property
    def _other_tiles(self) -> list[bytes]:
        assert self.against is not None
        return list(self._tiles(self.against, self._others, 0))

    def _tiles(self, imagery: Imagery, origins: Sequence[NDArray[np.uint64]], margin: int) -> Iterator[bytes]:
        """Yield, for each zoom, the digests of the views that are asked for and of all tiles that they may show."""
        for own, view, some in zip(self.map.inventory.levels, self._views, origins, strict=True):
            level = imagery.inventory.level(own.zoom)
            shows = np.unique(surroundings(level.zoom, view, some, margin)[1])
            for ids in (some, shows):
                yield derive(FIGURE_CONTEXT, tile_list(ids, level.hashes[level.find(ids)[1]]))

    @property
    def _views(self) -> tuple[View, ...]:
        return tuple(View(*rows.view) for rows in self.rows)

    def recipe(self, figure: RecallFigure) -> bytes:
        """Return the digest of everything that a figure depends on; equal tiles give an equal digest."""
        value: dict[str, Value] = {
            "schema": SCHEMA,
            "kind": figure.kind,
            "way": figure.way,
            "rows": [rows.fields() for rows in self.rows],
            "sample": self.sample,
            "margin": MARGIN,
            "perturbations": perturb.fields(),
            "tiles": self._own_tiles if figure.way != AGAINST else self._other_tiles,
        }
        if figure.kind == "untrained":
            value["network"] = [UNTRAINED_SCHEMA, SEED]
        else:
            value["engine"] = bytes(self.engine)
        return derive(FIGURE_CONTEXT, encode(value))

    def measure(
        self,
        layers: Sequence[MapLayer],
        engine: Describer,
        untrained: Baseline | None,
        progress: Callable[[int], None] | None = None,
    ) -> Mapping[str, Mapping[int, Recall]]:
        """Return way -> zoom -> recall, without the zooms that have no query.

        `engine` is the one that flies, `untrained` the same network without its training: where there is none, or it
        fails, that part is not measured. `progress` gets the number of queries since its last call.
        """
        results: dict[str, dict[int, Recall]] = {way: {} for way in self.ways}
        for layer in layers:
            for ways in (sorted(PERTURBATIONS), *([[AGAINST]] if self.against is not None else [])):
                rows, answers = self._ask(layer, ways, engine, untrained, progress)
                for way, one in answers.items():
                    if len(one.true):
                        other = None if one.untrained is None else tally(one.untrained)
                        results[way][layer.zoom] = Recall(rows, tally(one.whole), tally(one.sampled), other)
        return results

    def _ask(
        self,
        layer: MapLayer,
        ways: Sequence[str],
        engine: Describer,
        untrained: Baseline | None,
        progress: Callable[[int], None] | None,
    ) -> tuple[int, Mapping[str, _Answers]]:
        """Return the number of live rows, and the answers to queries of the same views in each of these ways."""
        true: list[int] = []
        queries: list[NDArray[np.float32]] = []
        others: list[NDArray[np.float32]] = []
        left = self.queries(ways, layer)
        while batch := list(itertools.islice(left, _BATCH)):
            # float32 [view, way, d]; the untrained network describes the view itself too, as the map has it.
            asked = engine.describe([picture for _, _, changed in batch for picture in changed])
            queries.append(asked.reshape(len(batch), len(ways), -1))
            if untrained is not None:
                rows = untrained.describe([picture for _, plain, changed in batch for picture in (plain, *changed)])
                if rows is not None:
                    others.append(rows.reshape(len(batch), 1 + len(ways), -1))
            true += [origin for origin, _, _ in batch]
            if progress is not None:
                progress(len(batch) * len(ways))
        ids = np.array(true, np.uint64)
        if not true:
            return 0, {}
        described = np.concatenate(queries)
        flat = described.reshape(-1, described.shape[2])
        gallery = _Gallery(layer, ids)
        whole = search(gallery.watched(), flat, _TOP)[0]
        sampled = search(gallery.found, flat, _TOP)[0]
        untrained_ids = None
        if sum(map(len, others)) == len(ids):
            rows = np.concatenate(others)
            untrained_ids = search([(ids, rows[:, 0])], rows[:, 1:].reshape(-1, rows.shape[2]), _TOP)[0]
        level = self.map.inventory.level(layer.zoom)

        def right(answers: NDArray[np.uint64], way: int) -> NDArray[np.bool_]:
            return _right(level, layer.view, ids, answers.reshape(len(ids), len(ways), _TOP)[:, way])

        return gallery.count, {
            way: _Answers(
                ids,
                right(whole, number),
                right(sampled, number),
                None if untrained_ids is None else right(untrained_ids, number),
            )
            for number, way in enumerate(ways)
        }

    def queries(
        self, ways: Sequence[str], layer: MapLayer
    ) -> Iterator[tuple[int, NDArray[np.uint8], list[NDArray[np.uint8]]]]:
        """Yield (origin, the view as the map has it, the same in each of the ways), pictures of the size of a view.
        Every query has a live row in the map; `against` is asked for by itself."""
        side, view = layer.recipe.tile_size, layer.view
        level = self.map.inventory.level(layer.zoom)
        origins = self.askable(ways[0], layer.zoom, layer.required, layer.missing)
        if AGAINST in ways:
            assert self.against is not None
            other = self.against.inventory.level(layer.zoom)
            own = pictures(self.map.sources, level, view, side, origins, 0)
            number, plain = next(own, (-1, None))
            for origin, picture in pictures(self.against.sources, other, view, side, origins, 0):
                # Both ascend, and either may lack views with a bad tile.
                while plain is not None and number < origin:
                    number, plain = next(own, (-1, None))
                if plain is not None and number == origin:
                    yield origin, plain, [picture]
            return
        for origin, mosaic in pictures(self.map.sources, level, view, side, origins, MARGIN):
            plain = mosaic[MARGIN * side : -MARGIN * side, MARGIN * side : -MARGIN * side]
            yield origin, plain, [perturb_picture(mosaic, view.tiles * side, way, seed=origin) for way in ways]


class _Gallery:
    """Gathers the rows of some views, uint64[n] ascending, while the whole layer is searched: `found` are these rows,
    `count` is the number of all live rows."""

    def __init__(self, layer: MapLayer, origins: NDArray[np.uint64]) -> None:
        self._layer, self._origins = layer, origins
        self.found: list[RowBlock] = []
        self.count = 0

    def watched(self) -> Iterator[RowBlock]:
        """Yield every live row of the layer."""
        for ids, rows in self._layer.rows():
            self.count += len(ids)
            inside = np.isin(ids, self._origins)
            self.found.append((ids[inside], rows[inside]))
            yield ids, rows


def _right(level: Level, view: View, true: NDArray[np.uint64], answers: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return bool [q, k]: whether each answer, by its origin in uint64 [q, k], shows the bytes of the true view."""
    views = np.unique(np.concatenate([true, answers[answers != NO_ROW]]))
    whole = level.find(view.footprint(level.zoom, views).ravel())[0].reshape(len(views), -1).all(axis=1)
    known = views[whole]
    same_as = dict(zip(known.tolist(), shown(level, view, known), strict=True))
    right: NDArray[np.bool_] = answers == true[:, None]
    for row, number in enumerate(true.tolist()):
        if number in same_as:
            right[row] |= [same_as.get(answer) == same_as[number] for answer in answers[row].tolist()]
    return right
