"""Maps that find nothing, and recalls that rest on nothing: the engine equals the map, and neither is any good.

The area has 8 x 8 tiles of zoom 15 with a ring of tiles round it. A case writes the imagery and the backbone, builds a
mission and verifies it. The verdict says on how many queries the signed recall rests, and what a person is told of it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from builders.example.backbone import write_backbone
from builders.grid.tiles import Tile, tile_bounds
from builders.imagery.png import write_png
from tests.conformance.wrong import wrong
from tests.support.commands import flightbag
from tests.support.field import make_store
from tests.support.missions_toml import mission_toml

SIDE = 32
X0, Y0 = 7344, 11520
# Columns and rows of the area, and of the ring.
AREA, WORLD = range(8), range(-1, 9)
Pixels = NDArray[np.uint8]


def land(x: int, y: int) -> Pixels:
    """Broad fields under fine noise: no two tiles are alike."""
    random = np.random.default_rng([7, x + 8, y + 8])
    fields = random.integers(90, 166, (4, 4, 3), np.uint8)
    broad = np.asarray(Image.fromarray(fields).resize((SIDE, SIDE), Image.Resampling.BILINEAR)).astype(np.int16)
    return np.clip(broad + random.integers(-90, 90, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def noise(x: int, y: int) -> Pixels:
    return np.random.default_rng([9, x + 8, y + 8]).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def mostly_water(x: int, y: int) -> Pixels:
    """One picture in 40 of the 64 tiles of the area."""
    return land(0, 0) // 16 if x in AREA and y in range(5) else land(x, y)


def network(path: Path, nodes: list[NodeProto], **weights: NDArray[np.float32]) -> None:
    """A network from `image` to `descriptor`."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("descriptor", TensorProto.FLOAT, ["N", "d"])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def random_weights(path: Path) -> None:
    write_backbone(path, size=SIDE)


def trained(path: Path) -> None:
    """Sees the broad fields and no fine noise, as training would teach: the first cosines of each colour."""
    steps = (np.arange(SIDE) + 0.5) * np.pi / SIDE
    waves = [np.outer(np.cos(steps * v), np.cos(steps * u)).ravel() for v in range(4) for u in range(4) if u or v]
    basis = np.kron(np.eye(3), np.stack(waves, axis=1))
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w"], ["descriptor"]),
    ]
    network(path, nodes, w=basis)


def constant(path: Path) -> None:
    """Gives one descriptor, whatever it sees."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["descriptor"]),
    ]
    network(path, nodes, w=np.zeros((3 * SIDE * SIDE, 32)), b=np.arange(32) + 1.0)


def colours(path: Path) -> None:
    """Mixes the mean colours of a picture, and ignores where in it they lie."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "w"], ["descriptor"]),
    ]
    network(path, nodes, w=np.random.default_rng(3).standard_normal((3, 16)))


def without_weights(path: Path) -> None:
    """Averages blocks of pixels."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["p"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["p"], ["descriptor"], axis=1),
    ]
    network(path, nodes)


def verdict(
    folder: Path,
    backbone: Callable[[Path], None],
    quality: str = "",
    *,
    imagery: Callable[[int, int], Pixels] = land,
    area: range = AREA,
    coverage: str = "",
) -> str:
    """GO with what is signed and told of the recall; or the kind of the error, or why the mission is refused."""
    for x in WORLD:
        for y in WORLD:
            path = folder / f"tiles/15/{X0 + x}/{Y0 + y}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(write_png(imagery(x, y)))
    backbone(folder / "net.onnx")
    desk = make_store(folder)
    west, _, _, north = tile_bounds(Tile(15, X0 + area[0], Y0 + area[0]))
    _, south, east, _ = tile_bounds(Tile(15, X0 + area[-1], Y0 + area[-1]))
    inset = 1e-5
    text = mission_toml(
        mission="m",
        tiles=Path("tiles"),
        model=Path("net.onnx"),
        bbox=(west + inset, south + inset, east - inset, north - inset),
        zooms=(15,),
        takeoff=((south + north) / 2, (west + east) / 2),
        resize=SIDE,
        more=f"[coverage]\ntile_size = {SIDE}\n{coverage}\n[quality]\n{quality}\n",
    )
    (folder / "m.toml").write_text(text)
    ran = desk.build(folder / "m.toml")
    if ran.status:
        assert ran.status == 1, ran.err
        if "error" in ran.json:
            return str(ran.json["error"]["kind"])
        return f"refused: {'finds nothing' if 'finds nothing' in ran.json['why'] else 'below its bound'}"
    report = ran.json
    verified = desk.verify()
    assert verified.status == 0, verified.out
    # What is signed is what is shown.
    figures = {name: queries for name, _, _, queries, _ in flightbag("show", desk.store, "m", "--json").json["quality"]}
    if "recall of the descriptor set embedder: not measured" in verified.json["missions"][0]["not_judged"]:
        return "GO, recall not judged"
    text = f"GO, recall of {figures['recall@1/embedder/shift']} queries"
    if "untrained@1/embedder/shift" not in figures:
        assert any("untrained" in one for one in report["not_measured"])
        text += ", untrained not measured"
    return text + ", no better than untrained" * any(one["kind"] == "untrained" for one in report["findings"])


@wrong("map", "a backbone of random weights", before="GO", now="GO, recall of 32 queries, no better than untrained")
def random_backbone(folder: Path) -> str:
    return verdict(folder, random_weights)


@wrong(
    "map",
    "a backbone of random weights, with a gate",
    before="refused: below its bound",
    now="refused: below its bound",
)
def random_backbone_with_a_gate(folder: Path) -> str:
    return verdict(folder, random_weights, "recall_at_1 = 0.9")


@wrong("map", "a backbone that sees what lasts", before="GO", now="GO, recall of 32 queries")
def trained_backbone(folder: Path) -> str:
    return verdict(folder, trained)


@wrong("map", "a recall of 1.0 on one query, with a gate", before="GO, 1.0000 of 1 query", now="not-measured")
def one_query(folder: Path) -> str:
    return verdict(folder, trained, "recall_at_1 = 0.5", area=range(1))


@wrong("map", "a recall on one query, without a gate", before="GO", now="GO, recall not judged")
def one_query_without_a_gate(folder: Path) -> str:
    return verdict(folder, trained, area=range(1))


@wrong("map", "40 of 64 queries are one picture", before="GO, 64 queries", now="GO, recall of 25 queries")
def repeated_queries(folder: Path) -> str:
    return verdict(folder, trained, "sample = 128", imagery=mostly_water, coverage='repeated = "allowed"')


@wrong("map", "a map that is asked nothing", before="GO", now="GO, recall not judged")
def no_sample(folder: Path) -> str:
    return verdict(folder, trained, "sample = 0")


@wrong(
    "map",
    "one descriptor for every place (unnamed)",
    before="GO",
    now="refused: finds nothing",
)
def constant_backbone(folder: Path) -> str:
    return verdict(folder, constant)


@wrong(
    "map", "white noise for imagery (unnamed)", before="GO", now="GO, recall of 32 queries, no better than untrained"
)
def noise_imagery(folder: Path) -> str:
    return verdict(folder, random_weights, imagery=noise)


@wrong(
    "map",
    "a backbone that ignores position (unnamed)",
    before="GO",
    now="GO, recall of 32 queries, no better than untrained",
)
def colour_backbone(folder: Path) -> str:
    return verdict(folder, colours)


@wrong(
    "map", "a backbone without weights (unnamed)", before="GO", now="GO, recall of 32 queries, untrained not measured"
)
def weightless_backbone(folder: Path) -> str:
    return verdict(folder, without_weights)
