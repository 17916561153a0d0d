"""The commands for engines as a planner types them: build them alone, show them, say why a key is another."""

from __future__ import annotations

import importlib.util
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest

from builders.engines.card import SCHEMA
from builders.engines.failures import failure
from builders.engines.isolation import Limits
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from builders.example.backbone import write_backbone
from builders.onboard.ann import host_component
from store.errors import Unavailable
from store.format.host import is_host_class
from tests.support.commands import Ran, flightbag, listing, program
from tests.support.field import Desk

TENSORRT = ('backend = "onnxruntime"', 'backend = "tensorrt"')
RTX = ('backend = "onnxruntime"', 'backend = "tensorrt-rtx"')
FP32 = 'precision = "fp32"'

without_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is installed here"
)


@pytest.fixture
def mission(desk: Desk) -> Path:
    return desk.write_mission("left", files=())


def edit(mission: Path, *changes: tuple[str, str]) -> None:
    text = mission.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    mission.write_text(text)


def add_backbone(mission: Path, name: str, *changes: tuple[str, str], lines: str = "") -> None:
    """Another backbone like the first, but for these."""
    backbone = mission.read_text().partition("[[backbones]]")[2].partition("[[descriptors]]")[0].rstrip()
    backbone = backbone.replace('name = "embedder"', f'name = "{name}"')
    for old, new in changes:
        assert old in backbone
        backbone = backbone.replace(old, new)
    edit(mission, ("[[descriptors]]", f"[[backbones]]{backbone}\n{lines}\n\n[[descriptors]]"))


def build(desk: Desk, mission: Path, *more: object) -> Ran:
    return flightbag("engines", "build", mission, "--store", desk.store, *more)


def message(ran: Ran) -> str:
    text: str = ran.json["error"]["message"]
    return text


class TestBuild:
    def test_says_what_became_of_each(self, desk: Desk, mission: Path) -> None:
        add_backbone(mission, "quick", lines='mode = "fast"')
        ran = build(desk, mission)
        assert (ran.status, ran.err) == (0, "")
        rows = [line.split() for line in ran.out.splitlines()]
        assert [row[:2] for row in rows] == [["built", "embedder"], ["built", "quick"]]
        keys = [row[-1] for row in rows]
        assert all(len(bytes.fromhex(key)) == 6 for key in keys)
        again = build(desk, mission)
        rows = [line.split() for line in again.out.splitlines()]
        assert [(row[0], row[1], row[-1]) for row in rows] == [
            ("reused", "embedder", keys[0]),
            ("reused", "quick", keys[1]),
        ]

    def test_says_so_to_machines(self, desk: Desk, mission: Path) -> None:
        ran = build(desk, mission, "--json")
        (one,) = ran.json["engines"]
        assert (ran.status, one["action"], one["backbone"], one["error"]) == (0, "built", "embedder", None)
        assert one["seconds"] > 0
        assert one["bytes"] == sum(size for _, size in one["card"]["parts"].values())
        assert one["entry"].startswith("engines/embedder/")
        assert one["card"]["key"] == one["key"]
        (again,) = build(desk, mission, "--json").json["engines"]
        assert again == {**one, "action": "reused", "seconds": None}

    def test_signs_and_publishes_nothing(self, desk: Desk, mission: Path) -> None:
        log = flightbag("log", desk.store, "--json").json
        assert build(desk, mission).status == 0
        assert flightbag("ls", desk.store, "--json").json["missions"] == []
        assert flightbag("log", desk.store, "--json").json == log

    def test_a_failure_is_told_with_its_kind_and_the_others_are_built(self, desk: Desk, mission: Path) -> None:
        write_backbone(desk.folder / "wide.onnx", size=96)
        add_backbone(mission, "wide", ('"embedder.onnx"', '"wide.onnx"'))
        ran = build(desk, mission, "--json")
        assert ran.status == 1
        good, bad = ran.json["engines"]
        assert (good["action"], bad["action"]) == ("built", "failed")
        assert (bad["error"]["kind"], bad["card"], bad["seconds"]) == ("wrong-inputs", None, None)
        assert "backbones[wide]" in bad["error"]["message"]
        assert bad["error"]["remedy"]
        people = build(desk, mission)
        assert people.status == 1
        assert [line.split()[0] for line in people.out.splitlines()[:2]] == ["reused", "failed"]
        assert "wide: wrong-inputs: " in people.out
        assert "    -> " in people.out

    def test_memory_that_ran_out_could_not_be_told(self, desk: Desk, mission: Path) -> None:
        edit(mission, ("[target]", "[compile]\nmemory_mib = 512\n\n[target]"))
        edit(mission, ("max = 32", "max = 100000"))  # inputs of 5 GB
        (one,) = (ran := build(desk, mission, "--json")).json["engines"]
        assert (ran.status, one["action"], one["error"]["kind"]) == (3, "failed", "out-of-memory")
        assert "memory_mib" in one["error"]["remedy"]
        edit(mission, ("memory_mib = 512", "memory_mib = 65536"), ("max = 100000", "max = 32"))
        assert build(desk, mission).status == 0

    def test_time_that_is_over_could_not_be_told(
        self, desk: Desk, mission: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A second is the least that may be asked for, and may do: here it is less than a process takes to begin.
        monkeypatch.setattr("builders.compose.Limits", lambda memory, seconds: Limits(memory, seconds / 1000))
        edit(mission, ("[target]", "[compile]\ntimeout_s = 1\n\n[target]"))
        (one,) = (ran := build(desk, mission, "--json")).json["engines"]
        assert (ran.status, one["action"], one["error"]["kind"]) == (3, "failed", "timed-out")
        assert "more than 0.001 s" in one["error"]["message"]
        monkeypatch.undo()
        edit(mission, ("timeout_s = 1", "timeout_s = 600"))
        assert build(desk, mission).status == 0

    def test_no_such_store_and_no_such_file(self, desk: Desk, mission: Path) -> None:
        ran = flightbag("engines", "build", mission, "--store", desk.folder / "nowhere", "--json")
        assert ran.status == 3
        assert "nowhere" in message(ran)
        ran = build(desk, desk.folder / "nothing.toml", "--json")
        assert ran.status == 2
        assert "does not exist" in message(ran)

    def test_the_environment_names_the_store(self, desk: Desk, mission: Path) -> None:
        assert flightbag("engines", "build", mission, env={"FLIGHTBAG_STORE": str(desk.store)}).status == 0
        (one,) = build(desk, mission, "--json").json["engines"]
        assert one["action"] == "reused"

    @without_tensorrt
    def test_a_backend_that_is_not_here_is_said_with_status_3(self, desk: Desk, mission: Path) -> None:
        edit(mission, ('backend = "onnxruntime"', 'backend = "tensorrt"'))
        before = listing(desk.store, without=("index", "lock", "tmp"))
        for command in (
            ("engines", "build", mission, "--store", desk.store, "--json"),
            ("explain-key", mission, "embedder", "--json"),
            ("plan", mission, "--store", desk.store, "--json"),
        ):
            ran = flightbag(*command)
            assert ran.status == 3
            assert "TensorRT is not installed" in message(ran)
            assert ran.json["error"]["remedy"]
        assert listing(desk.store, without=("index", "lock", "tmp")) == before


class TestShow:
    def test_the_cards_of_a_mission(self, built: Desk) -> None:
        ran = flightbag("engines", "show", built.store, "left", "--json")
        (card,) = ran.json["cards"]
        assert (ran.status, card["schema"]) == (0, SCHEMA)
        entries = flightbag("show", built.store, "left", "--json").json["entries"]
        parts = {card["entry"]: card["parts"]["model"]}
        assert parts == {e["name"]: [e["id"], e["size"]] for e in entries if e["kind"] == "engine"}
        assert card["inputs"] == [["image", "float32", ["N", 3, 64, 64]]]
        assert [case["shapes"]["image"][0] for case in card["check"]["cases"]] == [1, 8, 32]
        people = flightbag("engines", "show", built.store, "left").out
        for text in (
            card["entry"],
            card["key"][:12],
            card["parts"]["model"][0][:12],
            "made by",
            "allowed",
            "onnxruntime",
        ):
            assert text in people

    def test_the_card_of_a_key(self, built: Desk) -> None:
        (of_mission,) = flightbag("engines", "show", built.store, "left", "--json").json["cards"]
        before = listing(built.store)
        ran = flightbag("engines", "show", built.store, of_mission["key"], "--json")
        assert listing(built.store) == before
        assert ran.status == 0
        assert ran.json["cards"] == [{**of_mission, "entry": None}]
        people = flightbag("engines", "show", built.store, of_mission["key"])
        assert of_mission["key"][:12] in people.out
        assert flightbag("engines", "show", of_mission["key"], env={"FLIGHTBAG_STORE": str(built.store)}).status == 0

    def test_a_key_that_is_in_no_mission(self, desk: Desk, mission: Path) -> None:
        (one,) = build(desk, mission, "--json").json["engines"]
        (card,) = flightbag("engines", "show", desk.store, one["key"], "--json").json["cards"]
        assert card == {"entry": None, **one["card"]}

    @pytest.mark.parametrize(
        ("what", "told"),
        [
            ("nobody", "no mission nobody"),
            ("0" * 64, "the store has no engine of the key 0000"),
            ("0" * 63, "0" * 63),
            ("z" * 64, "z" * 64),
        ],
        ids=["mission", "key", "short", "no hex"],
    )
    def test_what_is_not_there_is_no(self, built: Desk, what: str, told: str) -> None:
        ran = flightbag("engines", "show", built.store, what, "--json")
        assert ran.status == 1, ran.out
        assert told in message(ran)
        assert ran.err.startswith("flightbag: ")

    def test_the_key_of_a_shard_is_no_engine(self, built: Desk) -> None:
        entries = flightbag("show", built.store, "left", "--json").json["entries"]
        shard = next(entry for entry in entries if entry["kind"] == "descriptors")
        ran = flightbag("engines", "show", built.store, shard["key"], "--json")
        assert ran.status == 1
        assert "the store has no engine" in message(ran)

    def test_a_card_that_is_damaged_is_not_shown(self, built: Desk) -> None:
        entries = flightbag("show", built.store, "left", "--json").json["entries"]
        card = next(entry for entry in entries if entry["kind"] == "card")
        path = built.store / "objects" / card["id"][:2] / card["id"][2:]
        path.chmod(0o644)
        path.write_bytes(path.read_bytes().replace(b'"seconds":', b'"Seconds":'))
        for what in ("left", card["key"]):
            ran = flightbag("engines", "show", built.store, what, "--json")
            assert ran.status == 1, ran.out
            assert "error" in ran.json

    def test_arguments_that_are_missing(self, built: Desk) -> None:
        assert flightbag("engines", "show", built.store).status == 2
        assert flightbag("engines", "show").status == 2
        assert flightbag("engines", "show", built.store, "left", "more").status == 2


class TestHost:
    def test_names_this_machine(self) -> None:
        ran = flightbag("engines", "host", "--json")
        assert ran.status == 0
        ort = ran.json["backends"]["onnxruntime"]
        assert ort == {"host": OnnxRuntimeBackend().describe_host(), "version": OnnxRuntimeBackend().version}
        assert set(ort["host"].split("+")) <= set(ran.json["host"].split("+"))
        assert set(ran.json["backends"]) == {"faiss", "onnxruntime", "tensorrt", "tensorrt-rtx"}
        assert ran.json["backends"]["faiss"]["host"] == host_component()
        assert is_host_class(ran.json["host"])
        people = flightbag("engines", "host")
        assert people.out.splitlines()[0] == f"host {ran.json['host']}"

    @without_tensorrt
    def test_says_which_backend_is_not_here(self) -> None:
        ran = flightbag("engines", "host", "--json")
        assert "TensorRT is not installed" in ran.json["backends"]["tensorrt"]["error"]
        assert ran.json["host"] == "+".join(
            sorted([*OnnxRuntimeBackend().describe_host().split("+"), host_component()])
        )
        assert "not usable: " in flightbag("engines", "host").out

    def test_what_is_installed_and_does_not_say_is_no_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Half of a class is not what this machine is, and would be enrolled as such."""

        def unreadable(_self: object) -> str:
            raise Unavailable("the driver cannot be read", kind="failed")

        monkeypatch.setattr(TensorRtBackend, "describe_host", unreadable)
        assert flightbag("engines", "host").status == 3
        monkeypatch.undo()
        monkeypatch.setattr(OnnxRuntimeBackend, "describe_host", unreadable)
        assert flightbag("engines", "host", "--json").status == 3

    def test_a_library_without_a_gpu_is_no_part_of_the_class(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a ground machine, which compiles for aircraft."""

        def alone(_self: object) -> str:
            raise failure("no-device", "this machine has no GPU")

        before = flightbag("engines", "host", "--json").json["host"]
        monkeypatch.setattr(TensorRtBackend, "describe_host", alone)
        ran = flightbag("engines", "host", "--json")
        assert (ran.status, ran.json["host"]) == (0, before)
        assert ran.json["backends"]["tensorrt"] == {"error": "this machine has no GPU"}

    def test_what_it_names_is_a_target_and_what_a_fast_engine_needs(self, desk: Desk, mission: Path) -> None:
        host = flightbag("engines", "host", "--json").json["host"]
        edit(
            mission, ('host = "auto"', f'host = "{host}"'), ('precision = "fp32"', 'precision = "fp32"\nmode = "fast"')
        )
        (one,) = build(desk, mission, "--json").json["engines"]
        assert one["action"] == "built"
        assert one["card"]["fields"]["host"] == OnnxRuntimeBackend().describe_host()
        edit(mission, (f'host = "{host}"', f'host = "cpu-{platform.machine()}"'))
        ran = build(desk, mission, "--json")
        assert ran.status == 2
        assert f"{mission}: target.host: " in message(ran)


def explain(mission: Path, *more: object) -> Ran:
    return flightbag("explain-key", mission, "embedder", *more)


class TestExplainKey:
    def test_needs_no_store(self, desk: Desk, mission: Path) -> None:
        (one,) = build(desk, mission, "--json").json["engines"]
        shutil.rmtree(desk.store)
        before = listing(desk.folder)
        ran = explain(mission, "--json")
        assert listing(desk.folder) == before
        assert ran.status == 0
        assert ran.own == {"key": one["key"], "fields": one["card"]["fields"], "steps": {}}
        people = explain(mission).out
        assert people.splitlines()[-1] == f"key {one['key'][:12]}"
        for field in ran.json["fields"]:
            assert any(line.startswith(f"{field} ") for line in people.splitlines())

    def test_of_int8_the_step_before_is_shown_too(self, mission: Path) -> None:
        edit(mission, ('precision = "fp32"', 'precision = "int8"\ncalibration = { tiles = 3 }'))
        ran = explain(mission, "--json")
        assert ran.json["steps"]["quantised"]["count"] == 3
        assert "quantised.count" in explain(mission).out

    def test_nothing_differs(self, built: Desk) -> None:
        mission = built.folder / "left.toml"
        ran = explain(mission, "--against", "left", "--store", built.store, "--json")
        assert (ran.status, ran.json["differs"]) == (0, [])
        assert ran.json["against"] == ran.json["key"]
        people = explain(mission, "--against", "left", "--store", built.store)
        assert people.status == 0
        assert people.out.splitlines()[-1].endswith("would be reused")

    @pytest.mark.parametrize("what", ["salt", "inputs", "mode", "model", "precision"])
    def test_exactly_what_differs_is_named(self, built: Desk, what: str) -> None:
        mission = built.folder / "left.toml"
        expected = {what}
        if what == "salt":
            edit(mission, ('precision = "fp32"', 'precision = "fp32"\nsalt = "again"'))
        elif what == "inputs":
            edit(mission, ("opt = 8", "opt = 9"))
        elif what == "mode":
            edit(mission, ('precision = "fp32"', 'precision = "fp32"\nmode = "fast"'))
            expected = {"host", "level", "options"}
        elif what == "model":
            write_backbone(built.folder / "embedder.onnx", seed=2)
        else:
            edit(mission, ('precision = "fp32"', 'precision = "int8"'))
            expected = {"precision", "quantised"}
        ran = explain(mission, "--against", "left", "--store", built.store, "--json")
        assert ran.status == 1
        differs: list[dict[str, Any]] = ran.json["differs"]
        assert {one["field"] for one in differs if not one["field"].startswith("quantised.")} == expected
        assert any(one["field"].startswith("quantised.") for one in differs) == (what == "precision")
        assert all(one["new"] != one["old"] for one in differs)
        assert ran.json["against"] != ran.json["key"]
        people = explain(mission, "--against", "left", "--store", built.store)
        assert people.status == 1
        told = [line.split()[1].rstrip(":") for line in people.out.splitlines() if line.startswith("differs: ")]
        assert told == [one["field"] for one in differs]
        assert people.out.splitlines()[-1].endswith("it would be built again")

    def test_salt_range_and_model_at_once(self, built: Desk) -> None:
        mission = built.folder / "left.toml"
        write_backbone(built.folder / "embedder.onnx", seed=2)
        edit(mission, ("max = 32", "max = 33"), ('precision = "fp32"', 'precision = "fp32"\nsalt = "again"'))
        ran = explain(mission, "--against", "left", "--store", built.store, "--json")
        assert [one["field"] for one in ran.json["differs"]] == ["inputs", "model", "salt"]
        salt = ran.json["differs"][2]
        assert (salt["new"], salt["old"]) == ("again", "")
        # What it says is what a build does.
        (one,) = build(built, mission, "--json").json["engines"]
        assert (one["action"], one["key"]) == ("built", ran.json["key"])

    def test_what_is_not_in_the_key_differs_in_nothing(self, built: Desk) -> None:
        mission = built.folder / "left.toml"
        (built.folder / "embedder.onnx").rename(built.folder / "other.onnx")
        edit(mission, ("embedder.onnx", "other.onnx"), ("alt_m = 480.0", "alt_m = 481.0"))
        assert explain(mission, "--against", "left", "--store", built.store).status == 0

    def test_unknown_names(self, built: Desk) -> None:
        mission = built.folder / "left.toml"
        ran = flightbag("explain-key", mission, "nobody", "--json")
        assert ran.status == 2
        assert "has no backbone 'nobody'" in message(ran)
        assert "embedder" in ran.json["error"]["remedy"]
        ran = explain(mission, "--against", "nobody", "--store", built.store, "--json")
        assert ran.status == 1
        assert "nobody" in message(ran)
        ran = explain(mission, "--against", "left", "--store", built.folder / "nowhere", "--json")
        assert ran.status == 3
        add_backbone(mission, "fresh")
        ran = flightbag("explain-key", mission, "fresh", "--against", "left", "--store", built.store, "--json")
        assert ran.status == 1
        assert "no engine of a backbone fresh" in message(ran)


def test_the_installed_program_says_the_same(desk: Desk, mission: Path) -> None:
    ran = program("flightbag", "engines", "build", mission, "--store", desk.store, "--json")
    assert (ran.status, ran.err) == (0, "")
    (one,) = ran.json["engines"]
    assert one["action"] == "built"
    ran = program("flightbag", "explain-key", mission, "embedder", "--json")
    assert ran.json["key"] == one["key"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([RTX, (FP32, f"{FP32}\ntensorrt = {{}}")], "backbones[0].tensorrt means nothing for tensorrt-rtx and fp32"),
        ([TENSORRT, (FP32, f"{FP32}\ntensorrt_rtx = {{}}")], "backbones[0].tensorrt_rtx means nothing for tensorrt"),
        (
            [RTX, (FP32, f"{FP32}\ntensorrt_rtx = {{ optimisation_level = 1 }}")],
            "backbones[0].tensorrt_rtx.optimisation_level is not a known key",
        ),
        ([TENSORRT, (FP32, f'{FP32}\nmode = "fast"')], "backbones[0].mode means nothing for tensorrt and fp32"),
        ([(FP32, f"{FP32}\ntensorrt = {{}}")], "backbones[0].tensorrt means nothing for onnxruntime and fp32"),
        ([(FP32, f"{FP32}\ncalibration = {{}}")], "backbones[0].calibration means nothing for onnxruntime and fp32"),
        ([(FP32, f'{FP32}\nmode = "quick"')], 'backbones[0].mode is "quick", must be "portable" or "fast"'),
        ([(FP32, 'precision = "fp16"')], 'backbones[0].precision is "fp16", must be "fp32" or "int8"'),
        ([(FP32, f'{FP32}\nsalt = "{"x" * 256}"')], "must be text of at most 255 characters"),
        (
            [(FP32, 'precision = "int8"\ncalibration = { tiles = 0 }')],
            "backbones[0].calibration.tiles is 0, must be a whole number of tiles from 1 to 4096",
        ),
        (
            [(FP32, 'precision = "int8"\ncalibration = { method = "best" }')],
            'backbones[0].calibration.method is "best", must be "minmax", "entropy" or "percentile"',
        ),
        (
            [TENSORRT, (FP32, f"{FP32}\ntensorrt = {{ optimisation_level = 6 }}")],
            "backbones[0].tensorrt.optimisation_level is 6, must be a whole number from 0 to 5",
        ),
        (
            [TENSORRT, (FP32, f"{FP32}\ntensorrt = {{ workspace = 1 }}")],
            "backbones[0].tensorrt.workspace is not a known key",
        ),
        ([("[target]", "[compile]\nmemory_mib = 511\n\n[target]")], "compile.memory_mib is 511, must be"),
        ([("[target]", "[compile]\ntimeout_s = 0\n\n[target]")], "compile.timeout_s is 0, must be"),
        ([("[target]", "[compile]\ntimeout_s = 604801\n\n[target]")], "compile.timeout_s is 604801, must be"),
        ([("[target]", "[compile]\nmemory = 600\n\n[target]")], "compile.memory is not a known key"),
        (
            [("[target]", "[tolerances.fp64]\nrelative_error = 0.1\ncosine = 0.9\n\n[target]")],
            "tolerances.fp64 is not a valid name, must be",
        ),
        (
            [("[target]", "[tolerances.fp32]\nrelative_error = 1.1\ncosine = 0.9\n\n[target]")],
            "tolerances.fp32.relative_error is 1.1, must be",
        ),
        (
            [("[target]", "[tolerances.fp32]\nrelative_error = 0.1\n\n[target]")],
            "tolerances.fp32.cosine is missing, must be a number from 0 to 1",
        ),
    ],
)
def test_a_mistake_in_the_mission_file_is_named(
    desk: Desk, mission: Path, changes: list[tuple[str, str]], told: str
) -> None:
    edit(mission, *changes)
    before = listing(desk.folder)
    for ran in (build(desk, mission, "--json"), explain(mission, "--json")):
        assert ran.status == 2
        assert told in message(ran)
        assert message(ran).startswith(f"{mission}: ")
    assert listing(desk.folder) == before


def test_the_precision_of_a_tolerance_is_named_by_those_that_there_are(desk: Desk, mission: Path) -> None:
    """A tolerance is no input: what is said of a wrong name says which names are right."""
    edit(mission, ("[target]", "[tolerances.fp64]\nrelative_error = 0.1\ncosine = 0.9\n\n[target]"))
    told = message(build(desk, mission, "--json"))
    assert "the name of an input" not in told
    assert "fp16" in told


def test_int8_without_a_descriptor_set_has_nothing_to_be_calibrated_with(desk: Desk, mission: Path) -> None:
    add_backbone(mission, "second", (FP32, 'precision = "int8"'))
    ran = build(desk, mission, "--json")
    assert ran.status == 2
    assert "backbones[1].precision" in message(ran)
    assert "no descriptor set has this backbone" in message(ran)
