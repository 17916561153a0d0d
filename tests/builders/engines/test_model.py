"""The digest of a model, and the private copy of it: what was hashed is what is there."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import onnx
import pytest
from blake3 import blake3
from onnx import helper, numpy_helper

from builders.descriptors.network import Network
from builders.descriptors.preprocess import Preprocess
from builders.engines import model as source
from builders.engines.graph import FixedInput, fields_of
from builders.engines.model import (
    external_locations,
    hash_model,
    make_compilable,
    onnx_bytes,
    session_source,
    snapshot_model,
)
from builders.engines.session import open_session
from builders.extras import import_onnxruntime
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


# -- models behind links, models without their data, and models too large for one file


def hugging_face(folder: Path) -> Path:
    """A model as the cache of Hugging Face has it: links in a snapshot, the files in `blobs`. Returns the link."""
    blobs, snapshot = folder / "models--org--net/blobs", folder / "models--org--net/snapshots/0a1b/onnx"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    model = name_external(small_network(), "model.onnx_data")
    data = numpy_helper.from_array(np.random.default_rng(7).standard_normal((4, 3, 3, 3)).astype(np.float32)).raw_data
    for name, content in (("model.onnx", model.SerializeToString()), ("model.onnx_data", data)):
        blob = blobs / blake3(content).hexdigest()
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../../blobs") / blob.name)
    return snapshot / "model.onnx"


def test_a_model_in_the_cache_of_hugging_face_is_read(tmp_path: Path) -> None:
    path = hugging_face(tmp_path)
    taken = snapshot_model(path, tmp_path / "copy")
    assert taken.digest == hash_model(path).digest
    assert taken.external == ("model.onnx_data",)
    assert not any(file.is_symlink() for file in taken.path.parent.iterdir())
    open_session(session_source(taken.path), "off")


def test_links_out_of_the_folder_of_the_real_model_stay_forbidden(tmp_path: Path) -> None:
    path = hugging_face(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    (path.parent / "model.onnx_data").unlink()
    (path.parent / "model.onnx_data").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(Invalid, match="outside the model's folder"):
        hash_model(path)


def test_a_model_whose_data_was_not_loaded_into_the_cache_says_what_belongs_together(tmp_path: Path) -> None:
    path = hugging_face(tmp_path)
    Path(os.path.realpath(path.parent / "model.onnx_data")).unlink()
    for _ in ("its link leads to nothing", "there is no link"):
        with pytest.raises(Invalid, match=r"keeps its weights in a file of their own, model\.onnx_data") as caught:
            hash_model(path)
        assert "the two files belong together" in caught.value.remedy
        (path.parent / "model.onnx_data").unlink(missing_ok=True)


def test_the_data_of_a_model_in_its_place_is_told(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    with pytest.raises(Invalid) as caught:
        snapshot_model(path.parent / "weights/w.bin", tmp_path / "copy")
    assert "give the .onnx file" in caught.value.remedy


def test_a_model_too_large_for_one_file_describes_from_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Network(small_network().SerializeToString(), "descriptor", Preprocess((16, 16)), 1)
    path = save_external(tmp_path, small_network())
    monkeypatch.setattr(source, "MAX_ONNX_BYTES", path.stat().st_size)
    opened = session_source(snapshot_model(path, tmp_path / "copy").path)
    assert opened == tmp_path / "copy/net.onnx"
    images = np.random.default_rng(1).random((1, 3, 16, 16), np.float32)
    by_path = Network(opened, "descriptor", Preprocess((16, 16)), 1)
    options = import_onnxruntime().RunOptions()
    assert np.array_equal(by_path.run(images, 1, options), whole.run(images, 1, options))


def with_ballast(kind: int, size: int) -> tuple[onnx.ModelProto, int]:
    """A network with a tensor of more than 2 GiB in ballast.bin, which nothing reads yet; how many numbers it has."""
    model = small_network()
    numbers = (1 << 29) + 1024
    ballast = model.graph.initializer.add(name="ballast", data_type=kind, dims=[numbers])
    ballast.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", "ballast.bin"), ("offset", "0"), ("length", str(size * numbers))):
        ballast.external_data.add(key=key, value=value)
    return model, numbers


@pytest.mark.skipif("FLIGHTBAG_DRILL" not in os.environ, reason="FLIGHTBAG_DRILL is not set: it takes 5 GB of room")
def test_a_model_of_more_than_two_gigabytes_describes(tmp_path: Path) -> None:
    model, numbers = with_ballast(onnx.TensorProto.FLOAT, 4)
    model.graph.initializer.append(numpy_helper.from_array(np.array([numbers - 1]), "last"))
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.append(helper.make_node("Gather", ["ballast", "last"], ["nothing"]))
    model.graph.node.append(helper.make_node("Add", ["plain", "nothing"], ["descriptor"]))
    path = save(tmp_path, model)
    (tmp_path / "ballast.bin").touch()
    os.truncate(tmp_path / "ballast.bin", 4 * numbers)
    taken = snapshot_model(path, tmp_path / "copy")
    make_compilable(taken.path)
    network = Network(session_source(taken.path), "descriptor", Preprocess((16, 16)), 1)
    assert network.dimension == 4


def test_a_link_to_a_model_whose_data_lies_beside_the_real_file_names_that_file(tmp_path: Path) -> None:
    path = save_external(tmp_path, small_network())
    link = tmp_path / "elsewhere/link.onnx"
    link.parent.mkdir()
    link.symlink_to(path)
    with pytest.raises(Invalid, match="keeps its weights in a file of their own") as caught:
        hash_model(link)
    assert str(path.resolve()) in caught.value.remedy
    assert hash_model(path.resolve()).digest == hash_model(path).digest


@pytest.mark.skipif("FLIGHTBAG_DRILL" not in os.environ, reason="FLIGHTBAG_DRILL is not set: it takes 7 GB of memory")
def test_half_precision_too_large_for_protobuf_as_float32_has_the_remedy(tmp_path: Path) -> None:
    model, numbers = with_ballast(onnx.TensorProto.FLOAT16, 2)
    path = save(tmp_path, model)
    (tmp_path / "ballast.bin").touch()
    os.truncate(tmp_path / "ballast.bin", 2 * numbers)
    with pytest.raises(Invalid, match="in float32 it is larger than the 2 GiB"):
        make_compilable(snapshot_model(path, tmp_path / "copy").path)


@pytest.mark.parametrize(
    ("data", "what", "remedy"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n", "Git LFS", "git lfs pull"),
        (b"PK\x03\x04" + bytes(99), "PyTorch", "torch.onnx.export"),
        (b"\x18\x00\x00\x00ORTM" + bytes(99), "ORT", "the .onnx file that it was converted from"),
    ],
)
def test_what_is_taken_for_a_model_is_named(tmp_path: Path, data: bytes, what: str, remedy: str) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    with pytest.raises(Invalid, match=what) as caught:
        snapshot_model(path, tmp_path / "copy")
    assert remedy in caught.value.remedy


# -- values of fixed inputs


def test_one_number_for_all_is_the_number_written_out() -> None:
    one, all_ = (FixedInput("x", ("N", 2), (Decimal(64),) * count) for count in (1, 2))
    assert fields_of([one]) == fields_of([all_]) == [["x", ["N", 2], ["64"]]]


@pytest.mark.parametrize(
    ("text", "same"), [("0.50", "0.5"), ("2", "2.0"), ("-0", "0"), ("1E+2", "100"), ("640", "640.000")]
)
def test_equal_values_give_equal_digests_and_others_others(tmp_path: Path, text: str, same: str) -> None:
    path = save(tmp_path, small_network())
    digests = [
        hash_model(path, fixed=[FixedInput("x", ("N", 2), (Decimal(value),))]).digest for value in (text, same, "0.25")
    ]
    assert digests[0] == digests[1] != digests[2]
    assert hash_model(path).digest not in digests
    other = FixedInput("x", (1, 2), (Decimal(text),))
    assert hash_model(path, fixed=[other]).digest != digests[0]
