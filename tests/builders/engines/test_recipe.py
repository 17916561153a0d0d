"""The build keys of engines: what changes them, and what does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from builders.engines.base import EngineBackend, EngineSpec, InputRange
from builders.engines.graph import FixedInput
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.recipe import engine_recipe, spec_of_fields
from store.errors import Invalid
from store.format.cbor import decode, encode
from store.format.ids import BuildKey
from tests.builders.engines.networks import DYNAMIC, save, small_network, spec_of

BACKEND: EngineBackend = OnnxRuntimeBackend()


def key(spec: EngineSpec, host: str = "cpu", caster: str = "") -> BuildKey:
    return engine_recipe(spec, host, BACKEND.key_fields(spec, host), caster).key


def test_the_key_fields_are_values_that_canonical_cbor_holds(tmp_path: Path) -> None:
    spec = spec_of(save(tmp_path, small_network()))
    fields = dict(BACKEND.key_fields(spec, "cpu"))
    assert decode(encode(fields), limit=10_000, what="fields") == fields
    assert fields["version"] == BACKEND.version
    recipe = dict(engine_recipe(spec, "cpu", fields, "").fields)
    assert decode(encode(recipe), limit=10_000, what="fields") == recipe


def test_the_key_says_nothing_of_names_and_places(tmp_path: Path) -> None:
    one, two = (save(tmp_path / folder, small_network()) for folder in ("one", "two"))
    other = dataclasses.replace(spec_of(two.rename(two.with_name("x.onnx"))), backbone="another")
    assert key(spec_of(one)) == key(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: spec_of(path, InputRange("image", ("N", 3, 16, 16), 1, 2, 6)),
        lambda path: spec_of(path, InputRange("image", ("M", 3, 16, 16), 1, 2, 5)),
        lambda path: spec_of(path, InputRange("image", (2, 3, 16, 16))),
        lambda path: spec_of(save(path.parent / "b", small_network(side=17))),
        lambda path: spec_of(path, precision="fp16"),
        lambda path: spec_of(path, mode="fast"),
        lambda path: spec_of(path, salt="again"),
        lambda path: spec_of(path, quantised=b"\1" * 32),
    ],
    ids=["range", "symbol", "fixed", "model", "precision", "mode", "salt", "quantised"],
)
def test_what_changes_the_engine_changes_the_key(tmp_path: Path, change: Callable[[Path], EngineSpec]) -> None:
    path = save(tmp_path, small_network())
    assert key(change(path)) != key(spec_of(path))


def test_the_host_the_version_and_the_caster_are_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(save(tmp_path, small_network()), mode="fast")
    hosts = ("cpu-x86_64-avx2+ort-1.22.0", "cpu-x86_64-avx512+ort-1.22.0", "cpu-x86_64-avx2+ort-1.23.0")
    keys = {*(key(spec, host) for host in hosts), key(spec, hosts[0], "caster 1")}
    portable = dataclasses.replace(spec, options={"mode": "portable"})
    keys |= {key(portable)}
    monkeypatch.setattr(OnnxRuntimeBackend, "version", "0.0.1")
    assert len(keys | {key(portable)}) == 6
    assert key(spec, hosts[0]) in keys, "the version of a fast engine is that of its host class"


def test_the_order_of_inputs_is_not_in_the_key(tmp_path: Path) -> None:
    path, mask = save(tmp_path, small_network()), InputRange("mask", (1, 4))
    assert key(spec_of(path, DYNAMIC, mask)) == key(spec_of(path, mask, DYNAMIC))


@pytest.mark.parametrize(
    "spec",
    [
        lambda path: spec_of(path),
        lambda path: spec_of(path, mode="fast", salt="again"),
        lambda path: spec_of(path, InputRange("image", (2, 3, 16, 16)), precision="fp16"),
        lambda path: spec_of(path, DYNAMIC, InputRange("mask", (1, 4)), precision="int8", quantised=b"\1" * 32),
        lambda path: spec_of(path, fixed=(FixedInput("scale", ("N", 2), (Decimal("0.5"), Decimal(-1))),)),
    ],
)
def test_the_fields_of_a_key_are_a_spec_again(tmp_path: Path, spec: Callable[[Path], EngineSpec]) -> None:
    """Law: a device gives the engine of an order the key that the planner gave it."""
    one = spec(save(tmp_path, small_network()))
    need = "cpu-x86_64-avx2+ort-1.22.0"
    recipe = engine_recipe(one, need, BACKEND.key_fields(one, need), "caster 1")
    fields = decode(encode(dict(recipe.fields)), limit=10_000, what="fields")
    again = spec_of_fields(fields, "another name", tmp_path / "model.onnx", (), None)
    assert again.inputs == tuple(sorted(one.inputs, key=lambda item: item.name))
    assert engine_recipe(again, need, BACKEND.key_fields(again, need), "caster 1").key == recipe.key


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"plugins": [bytes(32)]}, "has-plugins"),
        ({"inputs": [["x", [1]]]}, "bad-order"),
        ({"inputs": [[1, [1], []]]}, "bad-order"),
        ({"inputs": [["x", [b"N"], []]]}, "bad-order"),
        ({"precision": "fp64"}, "bad-order"),
        ({"salt": 1}, "bad-order"),
        ({"model": "x"}, "bad-order"),
        ({"options": [["mode", []]]}, "bad-order"),
        ({"options": [["mode", "x" * 2000]]}, "bad-order"),
        ({"fixed": [["x", [1], ["1.50"]]]}, "bad-order"),
        ({"fixed": [["x", [1], ["x"]]]}, "bad-order"),
        ({"fixed": [["x", [1]]]}, "bad-order"),
    ],
)
def test_other_fields_are_no_spec(tmp_path: Path, changes: dict[str, object], kind: str) -> None:
    one = spec_of(save(tmp_path, small_network()))
    fields = {**engine_recipe(one, "cpu", BACKEND.key_fields(one, "cpu"), "").fields, **changes}
    with pytest.raises(Invalid) as caught:
        spec_of_fields(fields, "net", tmp_path / "model.onnx", (), None)
    assert caught.value.kind == kind
