"""Networks as exporters write them compile, and are checked by what their user needs: the outputs that count, tiles
where noise shows nothing, and what the author's framework gave."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from blake3 import blake3

from builders.engines.base import EngineSpec, InputRange, Reference
from builders.engines.check import TOLERANCES, require_author
from builders.engines.compiling import CompiledEngine
from builders.engines.graph import FixedInput
from builders.engines.model import hash_model
from builders.engines.precision import CalibrationSet
from builders.engines.session import open_session
from store.errors import FlightbagError, Invalid, Refused
from tests.builders.engines.networks import batches, compiled
from tests.support.exports import write_export

IMAGE = InputRange("image", ("N", 3, 64, 64), 1, 2, 3)
ONE = replace(IMAGE, min=1, opt=1, max=1)
FIXED = (
    FixedInput("mask", ("N", 3), (Decimal(1),)),
    FixedInput("size", (1, 2), (Decimal(64), Decimal(64))),
    FixedInput("gain", (), (Decimal(2),)),
)


def engine_of(folder: Path, *ways: str, image: InputRange = IMAGE, rows: Any = None, **more: Any) -> CompiledEngine:
    folder.mkdir(exist_ok=True)
    path = folder / "net.onnx"
    write_export(path, *ways)
    model = hash_model(path, fixed=more.get("fixed", ()))
    spec = EngineSpec("net", model, "fp32", (image,), options={"mode": "portable"}, **more)
    return compiled(spec, folder, rows=CalibrationSet(rows) if rows is not None else None)


def test_bytes_in_another_layout_keep_their_ends(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "uint8", "nhwc", image=InputRange("image", ("N", 64, 64, 3), 1, 2, 3))
    assert engine.inputs == [["image", "uint8", ["N", 64, 64, 3]]]
    assert batches(engine) == (1, 2, 3)
    assert (engine.check.outputs, engine.check.inputs) == (("descriptor",), "noise")


def test_half_precision_and_fixed_inputs_are_gone_from_the_engine(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, "inputs", "bfloat16", fixed=FIXED)
    assert [one[:2] for one in engine.inputs] == [["image", "float32"]]
    assert [one[:2] for one in engine.outputs] == [["descriptor", "float32"]]
    assert engine.check.worst.relative_error < TOLERANCES["fp32"].relative_error


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (FixedInput("masks", ("N", 3), (Decimal(1),)), "has no such input"),
        (FixedInput("mask", ("N", 4), (Decimal(1),)), r"takes \['N', 3\], not \['N', 4\]"),
        (FixedInput("mask", ("N", 3), (Decimal(2),)), "takes it as bool, which does not hold the value"),
        (FixedInput("size", (1, 2), (Decimal("0.5"),)), "takes it as int64, which does not hold the value"),
    ],
)
def test_a_fixed_value_that_the_model_does_not_take_is_named(tmp_path: Path, wrong: FixedInput, says: str) -> None:
    others = tuple(one for one in FIXED if one.name != wrong.name)
    with pytest.raises(Invalid, match=says) as caught:
        engine_of(tmp_path, "inputs", fixed=(*others, wrong))
    assert caught.value.kind == "wrong-inputs"


def test_a_batch_that_is_baked_in_has_a_remedy_that_works(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        engine_of(tmp_path, "reshape")
    assert "set min = 1, opt = 1, max = 1 for image in backbones.inputs" in caught.value.remedy
    assert batches(engine_of(tmp_path / "again", "reshape", image=ONE)) == (1,)


def test_what_is_found_in_tiles_only_is_checked_on_tiles(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        engine_of(tmp_path, "keypoints", image=ONE, compare=("points", "scores"))
    assert caught.value.kind == "empty-output"
    rows = np.random.default_rng(1).random((3, 3, 64, 64), np.float32)
    rows[1:] *= 3  # nothing is found in the first one
    engine = engine_of(tmp_path / "again", "keypoints", image=ONE, compare=("points", "scores"), rows=rows)
    assert (engine.check.outputs, engine.check.inputs) == (("points", "scores"), "tiles")
    with pytest.raises(Refused, match=r"every output of points, scores of net\.onnx is empty or zero on 3 tiles"):
        engine_of(tmp_path / "dark", "keypoints", image=ONE, compare=("points", "scores"), rows=rows / 9)


def test_an_output_to_compare_that_the_model_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"backbones\[net\]\.compare names score, and net.onnx has no such") as caught:
        engine_of(tmp_path, "keypoints", image=ONE, compare=("score",))
    assert "descriptor, points, scores" in caught.value.remedy


# -- what the author's framework gave


def reference_of(folder: Path, *ways: str, **changes: Any) -> Reference:
    """An .npz file of an input and what the network makes of it, with these changes; None leaves an array out."""
    write_export(folder / "original.onnx", *ways)
    image = np.random.default_rng(3).random((2, 3, 64, 64), np.float32)
    outputs = open_session(folder / "original.onnx", "off").run({"image": image})
    arrays = {"image": image, **outputs, **changes}
    return saved(folder, {name: array for name, array in arrays.items() if array is not None})


def saved(folder: Path, arrays: dict[str, Any]) -> Reference:
    np.savez(folder / "io.npz", **arrays)
    return Reference(folder / "io.npz", blake3((folder / "io.npz").read_bytes()).digest())


def test_a_model_that_computes_its_reference_has_the_figures_on_its_card(tmp_path: Path) -> None:
    reference = reference_of(tmp_path)
    author = engine_of(tmp_path, reference=reference).check.author
    assert author is not None
    assert (author.digest, author.half) == (reference.digest.hex(), False)
    require_author(author, TOLERANCES.__getitem__)
    with pytest.raises(Refused) as caught:
        require_author(replace(author, cosine=0.99), TOLERANCES.__getitem__)
    assert caught.value.kind == "wrong-export"


def run_of_all(folder: Path, **changes: Any) -> Reference:
    """An author's run of the network with several inputs, saved with all of them."""
    write_export(folder / "inputs.onnx", "inputs")
    feeds: dict[str, Any] = {
        "image": np.random.default_rng(3).random((2, 3, 64, 64), np.float32),
        "mask": np.ones((2, 3), np.bool_),
        "size": np.array([[64, 64]]),
        "gain": np.float32(2),
    }
    outputs = open_session(folder / "inputs.onnx", "off").run({name: np.asarray(one) for name, one in feeds.items()})
    return saved(folder, {**feeds, **outputs, **changes})


def test_a_reference_may_hold_the_inputs_that_have_a_value(tmp_path: Path) -> None:
    author = engine_of(tmp_path, "inputs", fixed=FIXED, reference=run_of_all(tmp_path)).check.author
    assert author is not None
    require_author(author, TOLERANCES.__getitem__)


OTHERS = ({"gain": np.float32(1)}, {"mask": np.zeros((2, 3), np.bool_)}, {"size": np.array([64, 64, 64])})


@pytest.mark.parametrize("changes", OTHERS, ids=lambda one: next(iter(one)))
def test_a_run_with_another_value_of_an_input_is_named(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match=f"another value for the input {next(iter(changes))}") as caught:
        engine_of(tmp_path, "inputs", fixed=FIXED, reference=run_of_all(tmp_path, **changes))
    assert caught.value.kind == "bad-reference"


def test_bfloat16_saved_as_float32_has_a_remedy_that_works(tmp_path: Path) -> None:
    reference = reference_of(tmp_path)
    arrays = dict(np.load(reference.path).items())
    rounded = (arrays["descriptor"].view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    author = engine_of(tmp_path, reference=saved(tmp_path, {**arrays, "descriptor": rounded})).check.author
    with pytest.raises(Refused) as caught:
        require_author(author, TOLERANCES.__getitem__)
    assert "computes in float32 or float16 (of bfloat16, model.float())" in caught.value.remedy
    again = saved(tmp_path, arrays)  # computed in float32
    require_author(engine_of(tmp_path / "again", reference=again).check.author, TOLERANCES.__getitem__)


def test_a_model_in_half_precision_is_held_against_float16(tmp_path: Path) -> None:
    reference = reference_of(tmp_path)
    arrays = {name: array.astype(np.float16) for name, array in np.load(reference.path).items()}
    author = engine_of(tmp_path, "half", reference=saved(tmp_path, arrays)).check.author
    assert author is not None
    assert author.half
    require_author(author, TOLERANCES.__getitem__)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"image": None}, "no array for the input image", "numpy.savez"),
    ({"descriptor": None}, "none of the outputs descriptor", "numpy.savez"),
    ({"other": np.ones(3)}, "the array other, no input or output", "numpy.savez"),
    (
        {"image": np.ones((2, 3, 64, 64), np.uint8)},
        "the input image is uint8, the model takes float32",
        "save image as",
    ),
    ({"image": np.ones((2, 3, 32, 64), np.float32)}, "does not run on image", "numpy.savez"),
]


@pytest.mark.parametrize(("changes", "says", "remedy"), BAD, ids=[row[1][:24] for row in BAD])
def test_a_reference_of_something_else_is_named(tmp_path: Path, changes: Any, says: str, remedy: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        engine_of(tmp_path, reference=reference_of(tmp_path, **changes))
    assert caught.value.kind == "bad-reference"
    assert remedy in caught.value.remedy


def test_an_export_of_other_weights_is_refused(tmp_path: Path) -> None:
    """What an exporter errs in shows: here the network was exported before its last training."""
    reference = reference_of(tmp_path)
    path = tmp_path / "net.onnx"
    write_export(path)
    model = onnx.load(path)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "w2")
    weights.raw_data = (np.frombuffer(weights.raw_data, np.float32) * np.float32(1.5) + np.float32(0.1)).tobytes()
    path.write_bytes(model.SerializeToString())
    spec = EngineSpec("net", hash_model(path), "fp32", (IMAGE,), options={"mode": "portable"}, reference=reference)
    author = compiled(spec, tmp_path).check.author
    with pytest.raises(Refused, match="does not compute what its reference holds") as caught:
        require_author(author, TOLERANCES.__getitem__)
    assert caught.value.kind == "wrong-export"


def test_a_reference_that_changed_since_the_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FlightbagError, match="changed during the build"):
        engine_of(tmp_path, reference=replace(reference_of(tmp_path), digest=bytes(32)))
