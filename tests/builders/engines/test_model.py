"""The digest of a model, and the private copy of it: what was hashed is what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from builders.engines import model as source
from builders.engines.model import (
    external_locations,
    hash_model,
    onnx_bytes,
    session_source,
    snapshot_model,
)
from store.errors import Invalid, Unavailable
from tests.builders.engines.networks import name_external, save, save_external, small_network


def test_hash_and_snapshot_agree_and_the_copy_is_the_same_model(tmp_path: Path) -> None:
    path = save_external(tmp_path / "a", small_network())
    planned = hash_model(path)
    taken = snapshot_model(path, tmp_path / "copy")
    assert planned.digest == taken.digest == hash_model(taken.path).digest
    assert planned.external == taken.external == ("weights/w.bin",)
    assert planned.size == taken.size == sum(os.path.getsize(path.parent / n) for n in ("net.onnx", "weights/w.bin"))
    assert taken.path.is_relative_to(tmp_path / "copy")
    assert (taken.path.parent / "weights/w.bin").read_bytes() == (path.parent / "weights/w.bin").read_bytes()


def test_the_digest_says_nothing_of_the_place(tmp_path: Path) -> None:
    one, two = (save_external(tmp_path / folder, small_network()) for folder in ("one", "two/deep"))
    renamed = two.rename(two.with_name("other.onnx"))
    os.utime(renamed, (0, 0))
    assert hash_model(one).digest == hash_model(renamed).digest


def test_one_bit_of_the_network_or_of_its_weights_is_another_digest(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    digests = {hash_model(path).digest}
    for file in (path, path.parent / "weights/w.bin"):
        data = bytearray(file.read_bytes())
        # In the ONNX: within the producer's name, which every reader skips over.
        data[data.index(b"flightbag") if file == path else 5] ^= 1
        file.write_bytes(data)
        digests.add(hash_model(path).digest)
    assert len(digests) == 3


def test_weights_that_are_absent_have_a_remedy(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    (path.parent / "weights/w.bin").unlink()
    with pytest.raises(Invalid) as error:
        hash_model(path)
    assert "keeps its weights in a file of their own, weights/w.bin" in error.value.message
    assert "the two files belong together" in error.value.remedy


def test_a_change_after_the_snapshot_does_not_reach_the_copy(tmp_path: Path) -> None:
    path = save_external(tmp_path / "a", small_network())
    taken = snapshot_model(path, tmp_path / "copy")
    (path.parent / "weights/w.bin").write_bytes(b"\0" * 4096)
    assert hash_model(taken.path).digest == taken.digest != hash_model(path).digest


def test_weights_end_up_inside(tmp_path: Path) -> None:
    whole = onnx.load_model_from_string(onnx_bytes(hash_model(save(tmp_path / "a", small_network()))))
    drawn_in = onnx.load_model_from_string(onnx_bytes(hash_model(save_external(tmp_path / "b", small_network()))))
    assert external_locations(drawn_in, "net") == {}
    assert onnx.numpy_helper.to_array(drawn_in.graph.initializer[0]).tobytes() == (
        onnx.numpy_helper.to_array(whole.graph.initializer[0]).tobytes()
    )


def test_external_tensors_are_found_in_constants_and_in_subgraphs() -> None:
    inner = onnx.helper.make_graph([], "inner", [], [])
    outside = inner.initializer.add(name="deep", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="deep.bin")
    node = onnx.helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    constant = onnx.helper.make_node("Constant", [], ["k"], value=onnx.TensorProto(data_type=1))
    constant.attribute[0].t.data_location = onnx.TensorProto.EXTERNAL
    constant.attribute[0].t.external_data.add(key="location", value="constant.bin")
    model = onnx.helper.make_model(onnx.helper.make_graph([node, constant], "g", [], []))
    assert external_locations(model, "net") == {"deep.bin": 4, "constant.bin": 4}


@pytest.mark.parametrize("value", ["-1", "x", " 4", "1e3", "0x10", "9" * 30, "\u0663"])
@pytest.mark.parametrize("key", ["offset", "length"])
def test_a_place_in_external_data_that_is_no_number_is_invalid(tmp_path: Path, key: str, value: str) -> None:
    path = save_external(tmp_path, small_network())
    model = onnx.load(path, load_external_data=False)
    facts = model.graph.initializer[0].external_data
    del facts[1:]
    facts.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    for take in (hash_model, lambda p: snapshot_model(p, tmp_path / "copy")):
        with pytest.raises(Invalid, match="not at a byte") as caught:
            take(path)
        assert caught.value.kind == "invalid-model"


def test_of_external_data_only_what_tensors_name_is_read(tmp_path: Path) -> None:
    """A file with a hole of 4 TB, which no test could read, and one that another model shares."""
    path = save_external(tmp_path, small_network())
    weights = path.parent / "weights/w.bin"
    before, size = hash_model(path), weights.stat().st_size
    for length in (size + 1, 1 << 42):
        os.truncate(weights, length)
        assert hash_model(path) == before
    copy = snapshot_model(path, tmp_path / "copy")
    assert copy.digest == before.digest
    assert (copy.path.parent / "weights/w.bin").stat().st_size == size


def test_the_named_bytes_of_all_external_data_are_bounded(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    model = onnx.load(path, load_external_data=False)
    del model.graph.initializer[0].external_data[1:]
    model.graph.initializer[0].external_data.add(key="offset", value=str(1 << 42))
    path.write_bytes(model.SerializeToString())
    os.truncate(path.parent / "weights/w.bin", 1 << 43)
    with pytest.raises(Invalid, match="bytes of external data"):
        hash_model(path)


def test_progress_is_told_for_each_piece(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    calls: list[None] = []
    hash_model(path, lambda: calls.append(None))
    assert len(calls) == 2


def outside_by_link(folder: Path) -> str:
    (folder / "link.bin").symlink_to(folder.parent / "secret.bin")
    return "link.bin"


def outside_by_folder_link(folder: Path) -> str:
    (folder / "away").symlink_to(folder.parent)
    return "away/secret.bin"


@pytest.mark.parametrize(
    "location",
    [
        lambda folder: "../secret.bin",
        lambda folder: str(folder.parent / "secret.bin"),
        lambda folder: "a/../../secret.bin",
        lambda folder: "..\\secret.bin",
        lambda folder: "",
        lambda folder: ".",
        outside_by_link,
        outside_by_folder_link,
    ],
    ids=["parent", "absolute", "through", "backslash", "empty", "dot", "link", "folder link"],
)
def test_external_data_outside_the_folder_is_never_read(tmp_path: Path, location: Callable[[Path], str]) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    (tmp_path / "net").mkdir()
    path = save(tmp_path / "net", name_external(small_network(), location(tmp_path / "net")))
    for take in (hash_model, lambda p: snapshot_model(p, tmp_path / "copy")):
        with pytest.raises(Invalid, match="outside the model's folder"):
            take(path)


def test_a_link_within_the_folder_is_followed(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    weights = path.parent / "weights/w.bin"
    before = hash_model(path).digest
    weights.rename(path.parent / "real.bin")
    weights.symlink_to("../real.bin")
    assert hash_model(path).digest == before
    assert not snapshot_model(path, tmp_path / "copy").path.parent.joinpath("weights/w.bin").is_symlink()


def test_external_data_that_is_absent_or_a_pipe_is_named(tmp_path: Path) -> None:
    path = save(tmp_path, name_external(small_network(), "w.bin"))
    with pytest.raises(
        Invalid, match=r"net\.onnx keeps its weights in a file of their own, w\.bin, and that is not in the folder"
    ):
        hash_model(path)
    os.mkfifo(tmp_path / "w.bin")
    with pytest.raises(Invalid, match="expected a regular file, found a fifo"):
        hash_model(path)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"location" * 10], ids=["empty", "noise", "names a location"])
def test_what_is_no_onnx_is_not_taken(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(Invalid, match=r"net\.onnx is not an ONNX model"):
        snapshot_model(path, tmp_path / "copy")


def test_an_onnx_of_more_than_2_gib_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # a hole: it takes no room
    with pytest.raises(Invalid, match="larger than the 2 GiB"):
        hash_model(path)


def test_a_model_too_large_for_one_file_is_not_drawn_into_one(tmp_path: Path) -> None:
    model = hash_model(save_external(tmp_path, small_network()))
    with pytest.raises(Invalid, match=r"net\.onnx is larger than the 2 GiB"):
        onnx_bytes(replace(model, size=2**31))


def test_a_session_is_opened_from_bytes_or_from_the_path_of_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_external(tmp_path, small_network())
    model = hash_model(path)
    assert session_source(path) == onnx_bytes(model)
    monkeypatch.setattr(source, "MAX_ONNX_BYTES", model.size)
    assert session_source(path) == onnx_bytes(model)
    monkeypatch.setattr(source, "MAX_ONNX_BYTES", model.size - 1)
    assert session_source(path) == path


def test_a_model_that_names_itself_as_its_weights_is_not_taken(tmp_path: Path) -> None:
    path = save(tmp_path, name_external(small_network(), "./net.onnx"))
    with pytest.raises(Invalid, match="names itself"):
        hash_model(path)


def test_weights_that_are_shorter_than_the_network_says_are_named(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    weights = path.parent / "weights/w.bin"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(Invalid, match=r"external data of net\.onnx cannot be read into the model"):
        onnx_bytes(hash_model(path))


def test_a_snapshot_never_writes_over_a_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a", small_network())
    snapshot_model(path, tmp_path / "copy")
    with pytest.raises(Unavailable, match="cannot be written"):
        snapshot_model(path, tmp_path / "copy")
