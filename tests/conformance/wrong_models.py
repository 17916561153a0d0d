"""Models that differ from themselves, models that cannot run, and engines that take one place for another.

A case writes the model, builds a mission with it, and verifies the mission. Where the build refuses, the verdict is the
kind of the failure.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from builders.engines.onnxruntime import cpu_class
from builders.example.backbone import write_backbone
from builders.grid.tiles import tile_from_id, tiles_of_bbox
from store.format.host import meets
from store.ground.repository import Repository
from tests.conformance.wrong import wrong
from tests.conformance.wrong_rows import from_south, mbtiles
from tests.support.field import Desk, make_desk
from tests.support.lookalikes import lookalikes

INT8 = ('precision = "fp32"', 'precision = "int8"')


def verdict(desk: Desk, mission: Path, *changes: tuple[str, str]) -> str:
    """GO, or the kind of the failure of the build, or the figures that were too low."""
    text = mission.read_text()
    for old, new in changes:
        text = text.replace(old, new)
    mission.write_text(text)
    ran = desk.build(mission)
    if ran.status != 0:
        value = json.loads(ran.out)
        if "error" in value:
            return f"{value['error'].get('kind') or 'invalid'} at build"
        low = [figure["name"].partition("/")[0] for figure in value["figures"] if figure["value"] < figure["least"]]
        return f"not published: {', '.join(low)} too low"
    return "GO" if desk.verify().json["ok"] else "NO-GO"


def built(folder: Path, change: Callable[[onnx.ModelProto], None], *changes: tuple[str, str]) -> str:
    """The verdict on a mission whose backbone is changed."""
    desk = make_desk(folder)
    path = folder / "embedder.onnx"
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    return verdict(desk, desk.write_mission("left", files=(), zooms=(15,)), *changes)


def behind(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], *weights: onnx.TensorProto) -> None:
    """Put nodes, from `raw` to `descriptor`, behind the network."""
    model.graph.node[-1].output[0] = "raw"
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)


def constant(name: str, value: object, dtype: type = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def dropout(model: onnx.ModelProto, ratio: float = 0.2) -> None:
    node = helper.make_node("Dropout", ["raw", "ratio", "training"], ["descriptor"], name="head/drop")
    behind(model, [node], constant("ratio", ratio), constant("training", True, bool))


# Models that differ from themselves


@wrong(
    "engine",
    "a model exported in training mode (Dropout)",
    before="wrong-output at build",
    now="not-repeatable at build",
)
def training_mode(folder: Path) -> str:
    return built(folder, dropout)


@wrong("engine", "the same in int8", before="wrong-output at build", now="not-repeatable at build")
def training_mode_int8(folder: Path) -> str:
    return built(folder, dropout, INT8)


@wrong("map", "a model with random numbers so weak that its engine passes", before="GO", now="not-repeatable at build")
def weak_noise(folder: Path) -> str:
    def noise(model: onnx.ModelProto) -> None:
        behind(model, [helper.make_node("RandomNormalLike", ["raw"], ["n"], scale=5e-5),
                       helper.make_node("Add", ["raw", "n"], ["descriptor"])])  # fmt: skip

    return built(folder, noise)


@wrong(
    "map",
    "a model that takes mean and deviation of the images of a run (BatchNorm as in training)",
    before="not published: fidelity too low",
    now="not-repeatable at build",
)
def batch_statistics(folder: Path) -> str:
    def normalise(model: onnx.ModelProto) -> None:
        behind(model, [helper.make_node("ReduceMean", ["raw"], ["mean"], axes=[0]),
                       helper.make_node("Sub", ["raw", "mean"], ["centred"]),
                       helper.make_node("Mul", ["centred", "centred"], ["squares"]),
                       helper.make_node("ReduceMean", ["squares"], ["variance"], axes=[0]),
                       helper.make_node("Add", ["variance", "epsilon"], ["v"]),
                       helper.make_node("Sqrt", ["v"], ["deviation"]),
                       helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
                       helper.make_node("Add", ["scaled", "epsilon"], ["descriptor"])],
               constant("epsilon", 1e-2))  # fmt: skip

    return built(folder, normalise)


@wrong("map", "a model that was quantised dynamically: one scale for all images of a run", before="GO",
       now="not-repeatable at build")  # fmt: skip
def dynamic_quantisation(folder: Path) -> str:
    def quantise(model: onnx.ModelProto) -> None:
        behind(model, [helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"]),
                       helper.make_node("DequantizeLinear", ["q", "s", "z"], ["seen"]),
                       helper.make_node("Identity", ["raw"], ["descriptor"])])  # fmt: skip
        nodes = [*model.graph.node]
        nodes[0].input[0] = "seen"
        del model.graph.node[:]
        model.graph.node.extend([*nodes[-3:-1], *nodes[:-3], nodes[-1]])

    return built(folder, quantise)


# Models that cannot run


def in_place_of_relu(operator: str, domain: str, **attributes: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = next(node for node in model.graph.node if node.op_type == "Relu")
        node.CopyFrom(helper.make_node(operator, node.input, node.output, name="odd", domain=domain, **attributes))
        model.opset_import.append(helper.make_opsetid(domain, 1))

    return change


@wrong("engine", "a network compiled for an accelerator (EPContext)", before="invalid at build",
       now="unsupported-op at build")  # fmt: skip
def compiled_elsewhere(folder: Path) -> str:
    change = in_place_of_relu("EPContext", "com.microsoft", source="QNN", embed_mode=1, ep_cache_context=b"blob")
    return built(folder, change)


@wrong("engine", "an operator of an unknown domain", before="invalid at build", now="unsupported-op at build")
def unknown_domain(folder: Path) -> str:
    return built(folder, in_place_of_relu("Warp", "com.example"))


# Models that ONNX Runtime runs


@wrong(
    "engine", "IR version 3, each weight among the inputs, two of them equal", before="wrong-output at build", now="GO"
)
def weights_are_inputs(folder: Path) -> str:
    def old(model: onnx.ModelProto) -> None:
        nodes = [
            helper.make_node("Mul", ["raw", "a"], ["once"]),
            helper.make_node("Mul", ["once", "b"], ["descriptor"]),
        ]
        behind(model, nodes, constant("a", [2.0]), constant("b", [2.0]))
        model.ir_version = 3
        for tensor in model.graph.initializer:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))

    return built(folder, old)


@wrong("engine", "random numbers in a branch that is never taken", before="GO", now="GO")
def branch_not_taken(folder: Path) -> str:
    def branch(model: onnx.ModelProto) -> None:
        ends = [helper.make_tensor_value_info("b", TensorProto.FLOAT, ["N", 32])]
        noise = helper.make_graph([helper.make_node("RandomUniformLike", ["raw"], ["b"])], "noise", [], ends)
        plain = helper.make_graph([helper.make_node("Identity", ["raw"], ["b"])], "plain", [], ends)
        behind(model, [helper.make_node("If", ["on"], ["descriptor"], then_branch=noise, else_branch=plain)],
               constant("on", False, bool))  # fmt: skip

    return built(folder, branch)


# Engines that take one place for another

AREA = (-99.29, 46.93, -99.09, 47.07)
SIDE = 32


def alike(folder: Path, *changes: tuple[str, str]) -> str:
    desk = make_desk(folder)
    write_backbone(folder / "embedder.onnx", size=SIDE)
    west, south, east, north = (round(value * 10**7) for value in AREA)
    tiles = [tile_from_id(number) for number in tiles_of_bbox((west, south, east, north), 14).tolist()]
    (folder / "terrain.mbtiles").unlink()

    def png(picture: np.ndarray) -> bytes:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        return file.getvalue()

    pictures = map(png, lookalikes(len(tiles), SIDE))
    bounds = ",".join(map(str, AREA))
    mbtiles(folder / "terrain.mbtiles", dict(zip(tiles, pictures, strict=True)), from_south, bounds=bounds)
    more = f"[coverage]\ntile_size = {SIDE}\n"
    mission = desk.write_mission(
        "left", files=(), zooms=(14,), bbox=AREA, resize=SIDE, takeoff=(47.0, -99.2), more=more
    )
    return verdict(desk, mission, *changes)


@wrong("engine", "an int8 engine that takes places of its own map for one another", before="GO",
       now="not published: self@1 too low")  # fmt: skip
def int8_confuses(folder: Path) -> str:
    return alike(folder, INT8)


@wrong("engine", "the same places with an engine in fp32", before="GO", now="GO")
def fp32_tells_apart(folder: Path) -> str:
    return alike(folder)


# Engines on another CPU


@wrong("engine", "a portable int8 engine aboard a CPU without VNNI", before="GO, its sums of bytes saturate there",
       now="GO, its sums of bytes are exact there")  # fmt: skip
def portable_without_vnni(folder: Path) -> str:
    desk = make_desk(folder)
    said = verdict(desk, desk.write_mission("left", files=(), zooms=(15,)), INT8)
    with Repository.open(desk.store) as repository:
        entry = next(entry for entry in repository.current("left").table.entries if entry.kind == "engine")
        engine = onnx.load_model_from_string(bytes(repository.evidence.bytes_of(entry.id, entry.size)))
    types = {tensor.name: tensor.data_type for tensor in engine.graph.initializer}
    weights = {types[node.input[3]] for node in engine.graph.node if node.op_type == "QLinearConv"}
    # Unsigned times signed bytes go through an instruction that saturates where there is no VNNI.
    sums = {TensorProto.INT8: "saturate", TensorProto.UINT8: "are exact"}
    return f"{said}, its sums of bytes {' and '.join(sums[one] for one in weights)} there"


AVX512 = "avx2 fma avx avx512f avx512bw avx512dq avx512vl"


def fast_aboard(made: str, aboard: str, machine: str = "x86_64") -> str:
    engine, aircraft = (cpu_class(machine, f"flags : {flags}") for flags in (made, aboard))
    return "GO" if meets(f"{aircraft}+ort-1.23.2", f"{engine}+ort-1.23.2") else "wrong-host"


@wrong(
    "engine", "a fast engine of a CPU with AVX-512 and without VNNI, aboard one with it", before="GO", now="wrong-host"
)
def without_vnni(folder: Path) -> str:
    return fast_aboard(AVX512, f"{AVX512} avx512_vnni")


@wrong("engine", "a fast engine of a CPU with AMX, aboard one without", before="GO", now="wrong-host")
def with_amx(folder: Path) -> str:
    return fast_aboard(f"{AVX512} avx512_vnni amx_tile amx_int8", f"{AVX512} avx512_vnni")


@wrong(
    "engine",
    "a fast engine of an ARM CPU with the dot product only, aboard one with i8mm",
    before="GO",
    now="wrong-host",
)
def without_i8mm(folder: Path) -> str:
    return fast_aboard("asimd asimdhp asimddp", "asimd asimdhp asimddp i8mm", "aarch64")
