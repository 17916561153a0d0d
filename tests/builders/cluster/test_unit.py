"""What a node does with a unit, in this process: what comes back is what this machine would make, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders.artifacts.engine import COMPILE, CompileRequest, engine_tasks, target_hosts
from builders.artifacts.executor import Packed, Travel, Work
from builders.artifacts.shard import DESCRIBE, forget_networks
from builders.artifacts.task import Progress, silent
from builders.cluster import parcel, unit
from builders.compose import open_context
from builders.descriptors import network
from builders.descriptors.embed import Description
from builders.descriptors.preprocess import Preprocess
from builders.descriptors.shard import read_shard, write_shard
from builders.example.backbone import write_backbone
from store.errors import Corrupt, FlightbagError, Invalid, Unavailable
from tests.builders.artifacts.test_executor import FIRST, shard_request
from tests.support.field import Desk


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's process is a new one."""
    monkeypatch.setattr(network, "_share", None)
    monkeypatch.setattr(unit, "_kept", {})


def travelled(work: Work[Any, Any], request: Any) -> Any:
    """The result of a request that went to a node and came back, without Ray."""
    travel = work.travel
    assert travel is not None
    read = travel.reader(request)
    reply = sent(work, request)
    return read(reply.value, reply.parts)


def sent(work: Work[Any, Any], request: Any, same: Mapping[str, Any] | None = None) -> parcel.Reply:
    travel = work.travel
    assert travel is not None
    common, files = travel.common(request), travel.files(request)
    order = unit.Order(work, request, unit.same_here(work, request) if same is None else same)
    data = unit.packed(order, common, list(files))
    shipped = [
        (path.name, [(name, reading(path.parent / name)) for name in (path.name, *beside)])
        for path, beside in files.items()
    ]
    packed_common = unit.packed_common(common)
    name = "" if common is None else str(len(packed_common))
    return parcel.opened(unit.run(data, name, lambda: packed_common, shipped), "orin")


def reading(path: Path) -> Callable[[], bytes]:
    data = unit.read_file(path)
    return lambda: data


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Description:
    path = tmp_path_factory.mktemp("backbone") / "backbone.onnx"
    write_backbone(path)
    return Description(path.read_bytes(), "descriptor", Preprocess((64, 64)), 4)


# -- a cell


def test_a_cell_comes_back_as_it_is_made_here(description: Description) -> None:
    request = shard_request(description, FIRST)
    here, there = DESCRIBE.one(request, silent), travelled(DESCRIBE, request)
    assert (there.data, there.id, there.dim, there.embedded) == (here.data, here.id, here.dim, here.embedded)
    assert there.origins.tolist() == here.origins.tolist()
    assert there.faults == here.faults


def test_a_cell_with_a_bad_tile_and_earlier_rows_comes_back_whole(description: Description) -> None:
    shard = read_shard(DESCRIBE.one(shard_request(description, FIRST), silent).data)
    request = shard_request(description, FIRST, 3)
    (first, _), *rest = request.cell.tiles
    request = replace(
        request,
        cell=replace(request.cell, tiles=((first, b"no picture"), *rest)),
        earlier=(shard.tiles[3:], shard.descriptors[3:]),
    )
    here, there = DESCRIBE.one(request, silent), travelled(DESCRIBE, request)
    assert (there.data, there.faults, there.embedded) == (here.data, here.faults, 2)
    assert [reason for _, reason, _ in there.faults] == ["undecodable"]


def test_the_network_of_several_cells_travels_once(description: Description) -> None:
    order = unit.Order(DESCRIBE, shard_request(description, FIRST), {})
    assert isinstance(description.model, bytes)
    assert description.model not in unit.packed(order, description, [])
    reads: list[int] = []

    def read() -> bytes:
        reads.append(1)
        return unit.packed_common(description)

    for _ in range(2):
        data = unit.packed(replace(order, same=unit.same_here(DESCRIBE, order.request)), order.request.description, [])
        parcel.opened(unit.run(data, "one", read, []), "orin")
    assert reads == [1]


def test_a_node_keeps_few_networks(description: Description) -> None:
    for number in range(6):
        unit._common(str(number), lambda: unit.packed_common(description))
    assert len(unit._kept) <= 4
    forget_networks()


def test_a_unit_has_one_core(description: Description) -> None:
    sent(DESCRIBE, shard_request(description, FIRST, 1))
    assert network.Network(description.model, "descriptor", description.preprocess, 1).workers == 1


def test_a_network_in_files_does_not_travel(description: Description, tmp_path: Path) -> None:
    request = shard_request(replace(description, model=tmp_path / "large.onnx"), FIRST, 1)
    with pytest.raises(Unavailable, match="does not travel") as caught:
        travelled(DESCRIBE, request)
    assert caught.value.remedy == "build with --executor local"


def lies(request: Any) -> dict[str, Packed]:
    """What a node may send that nobody asked it for."""
    true = DESCRIBE.one(request, silent)
    shard = read_shard(true.data)
    tiles, rows, metadata = shard.tiles, shard.descriptors, dict(shard.metadata)
    other = np.sort(np.append(tiles[1:], np.uint64(tiles[-1] + 9)))
    return {
        "no shard": ([], [b"no shard"]),
        "no part": ([], []),
        "two parts": ([], [true.data, true.data]),
        "a view left out without a reason": ([], [write_shard(tiles[1:], rows[1:], metadata)]),
        "a view left out for another's tile": (
            [[int(tiles[-1]), "blank", ""]],
            [write_shard(tiles[1:], rows[1:], metadata)],
        ),
        "a row that nobody asked for": ([], [write_shard(other, rows, metadata)]),
        "another recipe": ([], [write_shard(tiles, rows, {**metadata, "zoom": "17"})]),
        "another dtype": ([], [write_shard(tiles, rows.astype(np.float32), metadata)]),
        "a fault of a tile that was not sent": ([[int(tiles[-1]) + 9, "blank", ""]], [true.data]),
        "a fault of an unknown kind": ([[int(tiles[0]), "stale", ""]], [true.data]),
        "a fault that is none": ([7], [true.data]),
        "no faults": (7, [true.data]),
    }


def test_a_shard_that_nobody_asked_for_is_refused(description: Description) -> None:
    request = shard_request(description, FIRST)
    assert DESCRIBE.travel is not None
    read = DESCRIBE.travel.reader(request)
    for name, (value, parts) in lies(request).items():
        with pytest.raises((KeyError, TypeError, ValueError, Corrupt)):
            pytest.fail(f"{name}: {read(value, parts)}")


def test_the_words_of_a_fault_are_cut_and_printable(description: Description) -> None:
    request = shard_request(description, FIRST)
    shard = read_shard(DESCRIBE.one(request, silent).data)
    assert DESCRIBE.travel is not None
    data = write_shard(shard.tiles[1:], shard.descriptors[1:], dict(shard.metadata))
    result = DESCRIBE.travel.reader(request)([[FIRST, "blank", "\x1b[31m" + "x" * 999]], [data])
    assert len(result.faults[0][2]) == 300
    assert result.faults[0][2].startswith("[31mx")


# -- an engine


def compile_request(desk: Desk, folder: Path) -> CompileRequest:
    with open_context(desk.write_mission("left"), desk.store, folder / "cache") as context:
        (task,) = engine_tasks(context, target_hosts(context), None, lambda _key: None)
        return CompileRequest(
            task.backend, task.spec, task.host, context.tolerance("fp32"), context.compile_settings, folder
        )


def test_an_engine_comes_back_as_it_is_made_here(desk: Desk, tmp_path: Path) -> None:
    request = compile_request(desk, tmp_path)
    here, there = COMPILE.one(request, silent), travelled(COMPILE, request)
    assert [(part.name, part.id) for part in there.parts] == [(part.name, part.id) for part in here.parts]
    assert (there.need, there.inputs, there.outputs, there.check) == (here.need, here.inputs, here.outputs, here.check)
    assert all(part.path.parent.parent == tmp_path for part in there.parts)
    # On the node nothing lay where it lies here.
    assert COMPILE.travel is not None
    data = unit.packed(unit.Order(COMPILE, request, {}), None, list(COMPILE.travel.files(request)))
    assert str(tmp_path).encode() not in data


def test_an_engine_that_is_none_is_refused(desk: Desk, tmp_path: Path) -> None:
    request = compile_request(desk, tmp_path)
    assert COMPILE.travel is not None
    read = COMPILE.travel.reader(request)
    reply = sent(COMPILE, request)
    for value, parts in (
        ("{}", reply.parts),
        ("[{}, 1]", reply.parts),
        (reply.value, ()),
        (reply.value, (b"", b"", b"")),
        (7, reply.parts),
        ("[" * 2_000_000, reply.parts),
    ):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            read(value, parts)


# -- any unit


def fail(request: str, _progress: Progress) -> str:
    raise {"known": Invalid("bad", kind="wrong-inputs"), "memory": MemoryError(), "ours": KeyError("ours")}[request]


def pack(result: str) -> Packed:
    return result, []


def reader(_request: str) -> Callable[[Any, Sequence[bytes]], str]:
    return lambda value, _parts: str(value)


def same(_request: str) -> Mapping[str, Any]:
    return {"library": "2.0"}


FAIL = Work(fail, travel=Travel(pack, reader, same))


@pytest.mark.parametrize(
    ("what", "kind", "words"),
    [
        ("known", "wrong-inputs", "bad"),
        ("memory", "out-of-memory", "memory ran out"),
        ("ours", "bad-reply", "KeyError"),
    ],
)
def test_whatever_fails_is_an_error_that_names_the_node(what: str, kind: str, words: str) -> None:
    with pytest.raises(FlightbagError, match=words) as caught:
        sent(FAIL, what)
    assert caught.value.kind == kind
    assert "orin" in caught.value.message


@pytest.mark.parametrize("change", [{"library": "1.9"}, {"flightbag": "0.0.9"}, {"more": "1"}])
def test_a_node_with_another_version_makes_nothing(change: Mapping[str, Any]) -> None:
    with pytest.raises(Unavailable, match=f"its {next(iter(change))} is") as caught:
        sent(FAIL, "known", {**unit.same_here(FAIL, "known"), **change})
    assert caught.value.kind == "version"
    assert "same versions" in caught.value.remedy


def test_a_file_does_not_leave_its_folder(tmp_path: Path) -> None:
    for name in ("../out", "/tmp/out", "a/../../out"):
        with pytest.raises(Invalid, match="below"):
            unit._placed(tmp_path / "in", "net.onnx", [(name, lambda: b"x")])
    assert unit._placed(tmp_path / "in", "net.onnx", [("net.onnx", lambda: b"x"), ("w/1.bin", lambda: b"y")]).is_file()
    assert (tmp_path / "in/w/1.bin").read_bytes() == b"y"


def test_a_file_that_is_too_large_to_travel_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(unit.MAX_FILE + 1)
    with pytest.raises(Invalid, match="more than") as caught:
        unit.read_file(tmp_path / "large.onnx")
    assert caught.value.remedy == "build with --executor local"
