"""Networks as exporters write them describe as the original does, on the ground and in an engine."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from builders.descriptors import network
from builders.descriptors.network import Network
from builders.descriptors.preprocess import Preprocess
from builders.engines.graph import FixedInput
from builders.engines.model import make_compilable, session_source
from builders.engines.providers import CPU, Device, device_of, providers
from builders.engines.session import open_session
from builders.example.backbone import write_backbone
from builders.example.terrain import render
from builders.extras import import_onnxruntime
from builders.grid.tiles import Tile
from builders.onboard.flying import FlyingEngine
from builders.recipe import RowRecipe
from store.errors import Invalid, Refused
from tests.support.exports import write_export

PICTURES = [render(Tile(15, 7357 + n, 11522)) for n in range(3)]
PLAIN = Preprocess((64, 64))
FIXED = (
    FixedInput("mask", ("N", 3), (Decimal(1),)),
    FixedInput("size", (1, 2), (Decimal(64), Decimal(64))),
    FixedInput("gain", (), (Decimal("2.0"),)),
)


def model_of(folder: Path, *ways: str, fixed: Sequence[FixedInput] = ()) -> bytes | Path:
    path = folder / "net.onnx"
    write_export(path, *ways)
    make_compilable(path, fixed)
    return session_source(path)


def described(model: bytes | Path, preprocess: Preprocess, pool: str = "none", batch: int = 4) -> NDArray[np.float32]:
    network = Network(model, "descriptor", preprocess, batch, pool)
    images = np.stack([preprocess.tensor(picture) for picture in PICTURES])
    return network.run(images, len(images), import_onnxruntime().RunOptions())


def flown(model: bytes | Path, preprocess: Preprocess, pool: str = "none") -> NDArray[np.float32]:
    recipe = RowRecipe("", bytes(32), "descriptor", preprocess.fields(), 256, (1, 1), "float32", "none", pool)
    return FlyingEngine(open_session(model, "all"), recipe, (1, 2)).describe(PICTURES)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    return described(model_of(tmp_path_factory.mktemp("plain")), PLAIN)


BYTES = {"scale": "0..255"}
EXPORTS: list[tuple[tuple[str, ...], dict[str, Any], float]] = [
    (("uint8",), BYTES, 1e-5),
    (("nhwc",), {"layout": "NHWC"}, 1e-5),
    (("uint8", "nhwc"), {**BYTES, "layout": "NHWC"}, 1e-5),
    (("half",), {}, 5e-3),
    (("bfloat16",), {}, 5e-2),
    (("half", "nhwc"), {"layout": "NHWC"}, 5e-3),
    (("inputs",), {}, 1e-5),
    (("open",), {}, 1e-5),
    (("inputs", "bfloat16", "nhwc"), {"layout": "NHWC"}, 5e-2),
]


@pytest.mark.parametrize(("ways", "changes", "error"), EXPORTS, ids=["+".join(row[0]) for row in EXPORTS])
def test_an_export_describes_as_the_original(
    tmp_path: Path, original: NDArray[np.float32], ways: tuple[str, ...], changes: dict[str, Any], error: float
) -> None:
    model = model_of(tmp_path, *ways, fixed=FIXED if "inputs" in ways else ())
    preprocess = Preprocess((64, 64), **changes)
    rows = described(model, preprocess)
    assert rows.dtype == np.float32
    assert np.abs(rows - original).max() < error
    assert np.allclose(flown(model, preprocess), rows, atol=1e-5)


def test_one_channel_is_the_luma_of_the_map_on_the_ground_and_aboard(tmp_path: Path) -> None:
    preprocess = Preprocess((64, 64), colour="grey")
    model = model_of(tmp_path, "grey")
    rows = described(model, preprocess)
    assert np.allclose(flown(model, preprocess), rows, atol=1e-5)
    assert np.abs(rows - rows[:1])[1:].max() > 0.1


@pytest.mark.parametrize(("pool", "factor"), [("cls", 1.0), ("mean", 2.0)])
def test_tokens_are_pooled_on_the_ground_and_aboard(
    tmp_path: Path, original: NDArray[np.float32], pool: str, factor: float
) -> None:
    model = model_of(tmp_path, "tokens")
    rows = described(model, PLAIN, pool)
    assert np.allclose(rows, original * factor, atol=1e-5)
    assert np.allclose(flown(model, PLAIN, pool), rows, atol=1e-5)


def test_a_shape_in_another_order_than_the_models_has_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="64 channels as NCHW") as caught:
        described(model_of(tmp_path, "nhwc"), PLAIN)
    assert "the shape of the input in backbones.inputs as the model declares it" in caught.value.remedy


def test_tokens_without_a_pool_name_the_key_that_helps(tmp_path: Path) -> None:
    model = model_of(tmp_path, "tokens")
    with pytest.raises(Invalid) as caught:
        described(model, PLAIN)
    assert "set pool" in caught.value.remedy
    assert described(model, PLAIN, "gem").shape == (3, 32)


def test_a_batch_that_is_baked_in_has_a_remedy_that_works(tmp_path: Path) -> None:
    model = model_of(tmp_path, "reshape rows")
    with pytest.raises(Invalid) as caught:
        described(model, PLAIN)
    assert "set min = 1, opt = 1, max = 1 for image" in caught.value.remedy
    assert len(described(model, PLAIN, batch=1)) == 3


@pytest.mark.parametrize("changes", [{}, {"scale": "0..255", "std": (2.0, 2.0, 2.0)}, {"scale": "-1..1"}])
def test_bytes_that_do_not_hold_the_numbers_have_a_remedy_that_works(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = model_of(tmp_path, "uint8")
    for act in (described, flown):
        with pytest.raises(Invalid) as caught:
            act(model, Preprocess((64, 64), **changes))
        assert 'set scale = "0..255" and leave out mean and std' in caught.value.remedy
    assert len(described(model, Preprocess((64, 64), scale="0..255"))) == 3


def test_channels_of_another_number_name_the_colour(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        described(model_of(tmp_path, "grey"), PLAIN)
    assert 'set preprocess.colour to "grey"' in caught.value.remedy


def test_another_input_that_is_not_fixed_is_named(tmp_path: Path) -> None:
    with pytest.raises(Invalid) as caught:
        described(model_of(tmp_path, "inputs"), PLAIN)
    assert "mask" in caught.value.message
    assert "a constant value in backbones.inputs" in caught.value.remedy


def test_a_network_opens_from_a_path(tmp_path: Path, original: NDArray[np.float32]) -> None:
    """As one of more than 2 GiB does."""
    write_export(tmp_path / "net.onnx")
    assert np.array_equal(described(tmp_path / "net.onnx", PLAIN), original)


def test_a_device_that_does_not_compute_what_the_cpu_does_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that is wrong: here a session over another network stands for it."""
    model, wrong = model_of(tmp_path), tmp_path / "wrong.onnx"
    write_backbone(wrong, seed=2)
    opened = network.open_session

    def open_wrong(device: Device, source: bytes | str, options: Any) -> Any:
        return opened(CPU, source if device.is_cpu else wrong.read_bytes(), options)

    monkeypatch.setattr(network, "open_session", open_wrong)
    monkeypatch.setattr(network, "require_provider", lambda device, session: None)
    for numeric in ("any", "onnxruntime-cuda-1.32.0-sm90-fp32"):
        with pytest.raises(Refused, match="'cuda' does not compute what the CPU does") as caught:
            Network(model, "descriptor", PLAIN, 4, device=Device("cuda", numeric))
        assert caught.value.remedy == 'set device = "cpu"'
    wrong.write_bytes(model if isinstance(model, bytes) else model.read_bytes())
    assert Network(model, "descriptor", PLAIN, 4, device=Device("cuda", "any")).dimension == 32  # one that is right


@pytest.mark.gpu
@pytest.mark.parametrize("numeric", ["exact", "any"])
def test_a_gpu_describes_as_the_cpu_does(tmp_path: Path, original: NDArray[np.float32], numeric: str) -> None:
    if "cuda" not in providers():
        pytest.skip("this ONNX Runtime has no CUDA")
    device = device_of("cuda", numeric)
    images = np.stack([PLAIN.tensor(picture) for picture in PICTURES])
    for batch in (1, 4, 64):
        on_gpu = Network(model_of(tmp_path), "descriptor", PLAIN, batch, device=device)
        rows = on_gpu.run(images, len(images), import_onnxruntime().RunOptions())
        assert np.allclose(rows, original, atol=1e-4 if numeric == "exact" else 1e-2)
