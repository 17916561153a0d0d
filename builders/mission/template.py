"""The text of a new mission file: every key of the schema with a line of explanation, filled in as far as facts go.

A key that has a good value without one is commented out, and so is a table that a mission does without. A test holds
the text against the schema: it has every key, and each that is commented out is right once it is not. Opens no file.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

# Names of outputs that hold one descriptor of an image, the best first.
_DESCRIPTORS = ("descriptor", "embedding", "embeddings", "image_embeds", "pooler_output", "features", "output")
# Where a model leaves its sides open: a multiple of the patches of usual transformers, 14 and 16.
_SIDE = 224
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_WIDTH = 44


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the model: a dimension is a size, or a name or "" where it is open. `rank` is -1 where the
    model does not declare a shape."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    rank: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a new mission. Paths are as the mission file has them; `bbox` is west, south, east, north in
    1e-7 degree, `captured` the best guess at the date of the imagery, `scheme` "" unless somebody named it."""

    id: str
    source: str
    zooms: tuple[int, ...]
    bbox: tuple[int, int, int, int]
    captured: datetime.date
    tile_size: int
    scheme: str
    about_source: str
    model: str
    backbone: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    today: datetime.date


@dataclass
class _Text:
    lines: list[str] = field(default_factory=list)

    def table(self, header: str, *about: str, on: bool = True) -> None:
        """Begin a table, with what it is about above it."""
        self.lines += ["", *(f"# {line}" for line in about), header if on else f"# {header}"]

    def key(self, key: str, value: str, about: str, *, on: bool = True) -> None:
        """Add a key with its line of explanation; commented out unless it is `on`."""
        text = f"{'' if on else '# '}{key} = {value}"
        self.lines.append(f"{text:<{_WIDTH}}  # {about}")


def template(facts: Facts) -> tuple[str, tuple[str, ...]]:
    """Return the text of the mission file, and what somebody has to decide or correct in it."""
    text = _Text()
    open_points: list[str] = []
    text.lines.append(
        "# A mission of Flightbag. Paths are relative to this file. Lines that begin with `#` show what else"
    )
    text.lines.append("# may be said: take the `#` away, and keep one of the ways where a table has several.")
    open_points += _mission(text, facts)
    _target(text)
    open_points += _tiles(text, facts)
    open_points += _network(text, facts)
    _policy(text, facts)
    return "\n".join(text.lines) + "\n", tuple(open_points)


def _mission(text: _Text, facts: Facts) -> Sequence[str]:
    west, south, east, north = (f"{edge / 10**7:.7f}" for edge in facts.bbox)
    lat, lon = (facts.bbox[1] + facts.bbox[3]) / 2e7, (facts.bbox[0] + facts.bbox[2]) / 2e7
    text.table("[mission]")
    text.key("id", _quoted(facts.id), "names the mission in a store")
    text.key("flight", f'"{facts.today}-01"', "names the flight; an aircraft flies each once")
    text.key("aircraft", '["uav-01"]', "the ids of the aircraft that may fly it: CORRECT IT")
    text.key("sector", '"stable_rear"', 'or "active_conflict": how old imagery may customarily be')
    text.key("takeoff_outside", "true", "allows a takeoff outside of the area", on=False)
    text.key("valid_from", f"{facts.today}T06:00:00Z", "the first second of the validity; at once without it", on=False)
    text.key("valid_until", f"{facts.today}T18:00:00Z", "the last second of the validity", on=False)
    text.key("valid_for", '"72h"', "or how long it is valid; else the trust root decides", on=False)
    text.table("[mission.takeoff]", "Where the aircraft takes off; or the home position of a plan.")
    text.key("lat", f"{lat:.7f}", "degrees; the middle of the area: CORRECT IT")
    text.key("lon", f"{lon:.7f}", "degrees; the middle of the area: CORRECT IT")
    text.key("alt_m", "0.0", "metres above sea level: CORRECT IT")
    text.key("plan", '"flight.plan"', "a plan that has the position, in place of lat and lon", on=False)
    text.key("select", '"home"', "the one thing of the plan that is meant", on=False)
    text.table("[mission.area]", "The area of the map, in one of four ways. This box is all that the imagery covers.")
    text.key("bbox", f"[{west}, {south}, {east}, {north}]", "west, south, east, north in degrees")
    text.key("geojson", '"area.geojson"', "or a GeoJSON file with polygons", on=False)
    text.key("plan", '"flight.plan"', "or a plan with a geofence or surveys, or a KML file", on=False)
    text.key("corridor", '"route.kml"', "or a file with a line", on=False)
    text.key("width_m", "2000", "and the whole width of the corridor along it, in metres", on=False)
    text.key("select", '"north"', "the one feature of a file that is meant", on=False)
    return (
        "mission.takeoff: the middle of the area at 0 m stands there; write where the aircraft takes off",
        "mission.aircraft: write the ids of the aircraft that may fly it",
    )


def _target(text: _Text) -> None:
    text.table("[target]", "What the engines are compiled for; [[target]], several times, for a mixed fleet.")
    text.key("host", '"auto"', "this machine's class, or one that `flightbag engines host` prints aboard")
    text.key("backend", '"onnxruntime"', "compiles for it, in place of those that the backbones name", on=False)
    text.key("proof", '"aboard"', "each aircraft proves an engine that no machine here runs", on=False)


def _tiles(text: _Text, facts: Facts) -> Sequence[str]:
    zooms = f"[{', '.join(map(str, facts.zooms))}]"
    about = _comment(facts.about_source)
    text.table("[[tiles]]", about, "Where several sources overlap, the first listed wins.")
    text.key("source", _quoted(facts.source), "a file or folder of tiles, or GeoTIFFs, a list of them too")
    text.key("zooms", zooms, "the zooms that are described, ascending")
    text.key("captured", str(facts.captured), "when the imagery was taken; the date of the file: CORRECT IT")
    text.key("footprints", '"dates.geojson"', "polygons with a datetime, for imagery of several dates", on=False)
    text.key("resolution_m", "0.5", "metres on the ground a pixel, where the tiles are finer than that", on=False)
    scheme = facts.scheme or "tms"
    text.key("scheme", f'"{scheme}"', "rows count from the south (tms) or north (xyz)", on=bool(facts.scheme))
    text.key("bands", "[1, 2, 3]", "the bands of red, green and blue in a GeoTIFF, or the one of grey", on=False)
    text.key("stretch", "[0, 4095]", "values of 16 bits that become black and full brightness", on=False)
    return (f"tiles[0].captured: {facts.captured} is the date of the file; write when the imagery was taken",)


# -- the network


def _network(text: _Text, facts: Facts) -> Sequence[str]:
    points: list[str] = []
    image = _image(facts.inputs)
    name = _quoted(facts.backbone)
    text.table("[[backbones]]", "The network: its engine flies, and describes the map.")
    text.key("name", name, "names it in this file and in the store")
    text.key("model", _quoted(facts.model), "the ONNX file; external data lie beside it")
    text.key("backend", '"onnxruntime"', 'compiles it: or "tensorrt", "tensorrt-rtx"')
    text.key("precision", '"fp32"', 'or "fp16" (TensorRT), "int8" (calibrated with tiles of the area)')
    text.key("mode", '"fast"', 'of onnxruntime: "portable" (any CPU) or "fast" (one class of CPU)', on=False)
    text.key("salt", '"a"', "goes into the build keys: another one builds everything again", on=False)
    outputs = ", ".join(_quoted(one.name) for one in facts.outputs[:1])
    text.key("compare", f"[{outputs}]", "the outputs by which the engine is checked; all without it", on=False)
    text.key("reference", '"reference.npz"', "inputs, and what the author's framework made of them", on=False)
    for tensor in facts.inputs:
        points += _input(text, tensor, is_image=tensor is image)
    text.table("[backbones.calibration]", "Of int8.", on=False)
    text.key("tiles", "64", "how many tiles of the area, evenly spread", on=False)
    text.key("method", '"percentile"', 'or "minmax", "entropy": how the ranges are found', on=False)
    text.table("[backbones.tensorrt]", "Of TensorRT; all of it is in the build key.", on=False)
    _rtx(text)
    text.key("tactic_dram_mib", "0", "MiB for trying tactics, 0 for the limit of TensorRT", on=False)
    text.key("optimisation_level", "3", "0 to 5: how long the builder searches", on=False)
    text.key("compatibility", '"ampere_plus"', 'other GPUs: or "none", "same_compute_capability"', on=False)
    text.key("version_compatible", "true", "later versions of the same major load the engine too", on=False)
    text.key("plugins", '["ops.so"]', "libraries with operators that the network needs", on=False)
    text.table("[backbones.tensorrt_rtx]", "Of TensorRT for RTX; all of it is in the build key.", on=False)
    _rtx(text)
    if image is None:
        points.append("backbones[0].inputs: none of the inputs takes images; give another model")
    points += _descriptors(text, facts, image)
    return points


def _rtx(text: _Text) -> None:
    text.key("workspace_mib", "4096", "MiB of GPU memory that one layer may use", on=False)
    text.key("tactic_shared_memory_kib", "0", "KiB of shared memory a kernel, 0 for the library's limit", on=False)


def _image(inputs: Sequence[Tensor]) -> Tensor | None:
    """Return the input that takes images: of four dimensions, one of which is that of the channels."""
    fits = [one for one in inputs if one.rank == 4 and _layout(one.shape)]
    return fits[0] if fits else None


def _layout(shape: Sequence[int | str]) -> str:
    """Return NCHW or NHWC, "" for a shape that is neither; NCHW where the channels are open."""
    if shape[1] in (1, 3):
        return "NCHW"
    if shape[3] in (1, 3):
        return "NHWC"
    return "NCHW" if isinstance(shape[1], str) else ""


def _sizes(tensor: Tensor) -> tuple[int | str, ...]:
    """Return the shape with numbers for all open dimensions but that of the images."""
    layout = _layout(tensor.shape)
    usual: dict[str, int | str] = {"N": "N", "C": 3, "H": _SIDE, "W": _SIDE}
    return tuple(usual[what] if isinstance(dim, str) else dim for what, dim in zip(layout, tensor.shape, strict=True))


def _input(text: _Text, tensor: Tensor, *, is_image: bool) -> Sequence[str]:
    declared = f"{tensor.dtype} [{', '.join(str(dim) or '?' for dim in tensor.shape)}]"
    about = _comment(f"The model declares {declared}" + (", images." if is_image else "."))
    key = tensor.name if _BARE_KEY.fullmatch(tensor.name) else _quoted(tensor.name)
    text.table(f"[backbones.inputs.{key}]", about)
    if is_image:
        sizes = _sizes(tensor)
    else:
        sizes = tuple("N" if not place and isinstance(dim, str) else dim or 1 for place, dim in enumerate(tensor.shape))
        sizes = tuple(1 if place and isinstance(dim, str) else dim for place, dim in enumerate(sizes))
    listed = ", ".join(_quoted(dim) if isinstance(dim, str) else str(dim) for dim in sizes)
    ranged = is_image and "N" in sizes
    text.key("shape", f"[{listed}]", "sizes; one of them may be a name, that of the images")
    text.key("min", "1", "of the name in shape: the fewest images of a run", on=ranged)
    text.key("opt", "8", "of the name in shape: the usual number", on=ranged)
    text.key("max", "32", "of the name in shape: the most", on=ranged)
    text.key("value", "1", "in place of images: a constant, or an array in the order of C", on=False)
    if is_image:
        return ()
    return (f"backbones[0].inputs.{key}: it takes no images; write the value that it has for every image",)


def _descriptors(text: _Text, facts: Facts, image: Tensor | None) -> Sequence[str]:
    output = _output(facts.outputs)
    others = ", ".join(f"{one.name} [{', '.join(str(dim) or '?' for dim in one.shape)}]" for one in facts.outputs)
    sizes = _sizes(image) if image is not None else ("N", 3, _SIDE, _SIDE)
    layout = _layout(image.shape) if image is not None else "NCHW"
    side = dict(zip(layout, sizes, strict=True))
    grey = side["C"] == 1
    name = _quoted(facts.backbone)
    text.table("[[descriptors]]", "The descriptors of the map.", _comment(f"The model has the outputs {others}."))
    text.key("name", name, "names the set; searches ask for it")
    text.key("backbone", name, "the network that describes")
    text.key("output", _quoted(output.name if output is not None else ""), "the output with one descriptor an image")
    text.key("dtype", '"float16"', 'or "float32": the numbers of the rows')
    tokens = output is not None and output.rank == 3
    text.key("pool", '"cls"', 'of tokens [N, T, d]: or "mean", "gem": one row of them', on=tokens)
    text.key("device", '"cuda"', 'what describes: "cpu", or another provider of ONNX Runtime', on=False)
    text.key("numeric", '"any"', "the map counts as the same whatever device made it", on=False)
    text.key("normalise", '"l2"', 'divides each row by its length, or "none"', on=False)
    text.table("[descriptors.preprocess]", "From a tile to an input. It must be what the network was trained with.")
    text.key("resize", f"[{side['H']}, {side['W']}]", "height and width in pixels")
    text.key("colour", '"grey"' if grey else '"RGB"', 'or "BGR", "grey" for one channel')
    text.key("scale", '"0..1"', 'or "0..255", "-1..1": the range of a channel: CORRECT IT')
    numbers = "[0.45]" if grey else "[0.485, 0.456, 0.406]"
    text.key("mean", numbers, "subtracted from each channel after the scale", on=False)
    text.key("std", "[0.225]" if grey else "[0.229, 0.224, 0.225]", "each channel is then divided by it", on=False)
    text.key("layout", f'"{layout}"', "where the shape of the input does not tell", on=False)
    text.key("filter", '"bilinear"', 'or "nearest", "bicubic", "lanczos": how it is resized', on=False)
    text.table("[descriptors.view]", "What a row shows, by tiles or by metres; one tile without it.", on=False)
    text.key("tiles", "2", "a square of so many tiles a side", on=False)
    text.key("stride", "1", "one every so many tiles", on=False)
    text.key("metres", "300", "or a square of so many metres a side", on=False)
    text.key("overlap", "0.5", "which shares this part of its side with the next one", on=False)
    points = ["descriptors[0].preprocess: scale, mean and std must be those that the network was trained with"]
    if output is None:
        points.append("descriptors[0].output: the model has no output")
    return points


def _output(outputs: Sequence[Tensor]) -> Tensor | None:
    """Return the output that most likely holds one descriptor for each image, or else tokens."""

    def worth(tensor: Tensor) -> tuple[bool, bool, int]:
        row = tensor.rank == 2 or (tensor.rank > 3 and sum(dim != 1 for dim in tensor.shape[1:]) == 1)
        lower = tensor.name.lower()
        named = _DESCRIPTORS.index(lower) if lower in _DESCRIPTORS else len(_DESCRIPTORS)
        return not row, tensor.rank != 3, named

    return min(outputs, key=worth, default=None)


# -- what a mission may have beside


def _policy(text: _Text, facts: Facts) -> None:
    name = _quoted(facts.backbone)
    text.table("[[files]]", "Calibration and the like, stored as they are.", on=False)
    text.key("name", '"calibration/camera.yaml"', "the entry files/<name>", on=False)
    text.key("path", '"camera.yaml"', "the file", on=False)
    text.key("outside", "true", "allows a file outside of the folder of this one", on=False)
    text.table("[[indexes]]", "Approximate search, beside the exact one that every set has.", on=False)
    text.key("name", '"fast"', "names the index; searches ask for it", on=False)
    text.key("set", name, "the descriptor set that it searches", on=False)
    text.key("method", '"hnsw"', 'or "ivf"', on=False)
    text.table("[coverage]", "Which tiles a mission may lack.")
    text.key("at_least", "1", "the part of the tiles that must be described", on=False)
    text.key("tile_size", str(facts.tile_size), "the pixels a side of a tile", on=facts.tile_size != 256)
    text.key("min_resolution_m", "1.0", "the coarsest imagery in metres a pixel", on=False)
    text.key("repeated", '"allowed"', "tiles with the picture of another one count; else refused", on=False)
    text.table("[freshness]", "The age of the imagery, when the mission is signed and at takeoff.", on=False)
    text.key("max_age_days", "365", "the greatest age in days", on=False)
    text.table("[quality]", "How the map is asked before a mission is published.")
    text.key("sample", "32", "how many views of each zoom are asked for; 0 asks for none", on=False)
    text.key("recall_at_1", "0.8", "the least part that is found first, after each change of the view", on=False)
    text.key("recall_at_5", "0.9", "the least part that is among the first five", on=False)
    text.key("against", '"other.mbtiles"', "imagery of another date that the map is asked with", on=False)
    text.key("against_scheme", '"tms"', "the order of its rows", on=False)
    text.key("against_recall_at_1", "0.3", "the least part of it that is found first", on=False)
    text.key("against_recall_at_5", "0.5", "the least part of it that is among the first five", on=False)
    text.key("landmarks", '"landmarks.geojson"', "pictures of places that must be found", on=False)
    text.key("landmarks_within_m", "100", "and how near to the place, in metres", on=False)
    text.table("[limits]", "What the aircraft holds.", on=False)
    text.key("max_bytes", "2_000_000_000", "the most bytes of all that the mission needs", on=False)
    text.table("[compile]", "Limits of the processes of a build; they are in no build key.")
    text.key("memory_mib", "8192", "the most memory of each; else that of the machine", on=False)
    text.key("timeout_s", "14400", "seconds of a compilation, or of work without progress", on=False)
    for precision, error, cosine, found in (
        ("fp32", "0.001", "0.9999", "0.99"),
        ("fp16", "0.02", "0.999", "0.98"),
        ("int8", "0.5", "0.95", "0.95"),
    ):
        text.table(f"[tolerances.{precision}]", f"How far an engine of {precision} may be from its network.", on=False)
        text.key("relative_error", error, "the greatest error, a part of the greatest value", on=False)
        text.key("cosine", cosine, "the least cosine of a descriptor", on=False)
        text.key("self_retrieval", found, "the least part of the map's own views that it finds first", on=False)


def _quoted(text: str) -> str:
    """Return a TOML string: JSON has the same escapes, and leaves DEL as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Return text for one line of a comment, whatever stands in it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:300]
