"""A mission for a mixed fleet: shards once, an engine for each host class, figures for each engine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from builders import onboard
from builders.artifacts.cards import card_of_backbone
from builders.artifacts.engine import explained
from builders.artifacts.plan import plan
from builders.compose import BuildContext, open_context
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.engines.tensorrt import TensorRtBackend
from builders.onboard.loading import engine_aboard
from builders.orchestrator import prepare
from store import takeoff_check
from store.errors import Invalid, NotFound, Refused
from store.takeoff.mission import VerifiedMission
from tests.builders.engines.fake_machine import FAKE, become, forget_modules
from tests.support.commands import flightbag
from tests.support.field import Desk, make_desk
from tools import render

CPU = "-".join(OnnxRuntimeBackend().describe_host().partition("+")[0].split("-")[:2])


def targets(*tables: str) -> tuple[str, str]:
    """The change of a mission file to these targets."""
    return '[target]\nhost = "auto"\n', "".join(f"[[target]]\n{table}\n" for table in tables)


def mission_file(desk: Desk, name: str, *tables: str, **more: Any) -> Path:
    path = desk.write_mission(name, **more)
    old, new = targets(*tables)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.fixture(scope="module")
def gpu() -> Iterator[str]:
    """The class of a machine with TensorRT and a GPU, which this one seems to be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FAKE)
        patch.setenv("PYTHONPATH", str(FAKE))
        become(patch)
        yield TensorRtBackend().describe_host()
    forget_modules()


@pytest.fixture(scope="module")
def fleet(gpu: str, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk that has published `left` for a CPU and for the GPU."""
    desk = make_desk(tmp_path_factory.mktemp("fleet"))
    index = '[[indexes]]\nname = "near"\nset = "embedder"\nmethod = "hnsw"\n'
    file = mission_file(desk, "left", f'host = "{CPU}"', f'host = "{gpu}"\nbackend = "tensorrt"', more=index)
    assert desk.built(file)["outcome"] == "built"
    return desk


def need(gpu: str) -> str:
    """What an engine for this machine needs: not that it is also one of many."""
    return gpu.removeprefix("ampere-plus+")


def flown(desk: Desk, host: str | None) -> VerifiedMission:
    """The mission, as an aircraft of this class verifies it."""
    verdict = takeoff_check(desk.store, "left", trust=desk.root.read_bytes(), now=None, host=host)
    assert verdict.mission is not None, verdict.findings
    return verdict.mission


def test_shards_once_and_an_engine_for_each_class(fleet: Desk, gpu: str) -> None:
    shown = flightbag("show", fleet.store, "left", "--json").json
    assert shown["hosts"] == sorted([CPU, gpu])
    kinds = Counter(entry["kind"] for entry in shown["entries"])
    assert (kinds["engine"], kinds["card"], kinds["probe"]) == (2, 2, 1)
    engines = {
        entry["meta"]["backend"]: entry["meta"]["host"] for entry in shown["entries"] if entry["kind"] == "engine"
    }
    assert engines["tensorrt"] == need(gpu)
    assert engines["onnxruntime"].startswith("cpu+ort>=")
    # The classes are alike in nothing, so an index needs nothing but its library.
    assert all(entry["meta"]["host"].startswith("faiss>=") for entry in shown["entries"] if entry["kind"] == "index")


def test_people_see_which_engine_is_whose(fleet: Desk, gpu: str) -> None:
    shown = flightbag("show", fleet.store, "left").out
    assert f"__fp32.onnx is for {CPU}\n" in shown
    assert f"__fp32.engine is for {gpu}\n" in shown
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("host ")] == sorted([CPU, gpu])
    verified = flightbag("verify", fleet.store, "left", "--trust", fleet.root, "--host", gpu).out
    assert "".join(f"  host       {host}\n" for host in sorted([CPU, gpu])) in verified
    (loads,) = (line for line in verified.splitlines() if line.startswith("  loads "))
    assert loads.endswith(".engine")


def test_each_engine_has_its_figures_and_the_untrained_network_its_own_once(fleet: Desk) -> None:
    quality = flightbag("show", fleet.store, "left", "--json").json["quality"]
    assert [(one[0], one[4]) for one in quality] == sorted((one[0], one[4]) for one in quality)
    names = Counter(one[0] for one in quality)
    once = {name for name, count in names.items() if count == 1}
    assert once == {name for name in names if name.startswith("untrained@1/")}
    assert {count for name, count in names.items() if name not in once} == {2}
    assert names["fidelity/embedder"] == names["self@1/embedder"] == 2


def test_an_aircraft_loads_its_own_engine(fleet: Desk, gpu: str) -> None:
    ort = OnnxRuntimeBackend().describe_host()
    both = "+".join(sorted({*gpu.split("+"), *ort.split("+")}))
    for host, backend in {gpu: "tensorrt", ort: "onnxruntime", both: "tensorrt", None: "tensorrt"}.items():
        mission = flown(fleet, host)
        assert {entry.meta["backend"] for entry in engine_aboard(mission, "embedder").entries} == {backend}
        measured = onboard.probe(mission, "embedder")
        assert measured.holds
        with onboard.Retriever(mission, "embedder") as retriever:
            rows = next(iter(retriever.layers[0].rows()))[1][:1].astype("float32")
            assert retriever.search(rows, top=1)[0][0].score > 0.99


def test_an_aircraft_of_no_class_of_the_fleet_is_refused(fleet: Desk, gpu: str) -> None:
    other = gpu.replace("sm89", "sm90")
    for host in (other, "cpu-aarch64-neon" if CPU != "cpu-aarch64" else "cpu-x86_64-avx2"):
        verdict = takeoff_check(fleet.store, "left", trust=fleet.root.read_bytes(), now=None, host=host)
        assert [finding.kind for finding in verdict.findings] == ["wrong-host"]


def test_a_machine_that_is_of_no_class_loads_no_engine(fleet: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    mission = flown(fleet, None)
    monkeypatch.setattr(TensorRtBackend, "describe_host", lambda _: "linux-x86_64+sm90")
    monkeypatch.setattr(OnnxRuntimeBackend, "describe_host", lambda _: "cpu-x86_64+ort-1.0")
    with pytest.raises(Refused, match="the engines of embedder need") as caught:
        onboard.open_engine(mission, "embedder")
    assert caught.value.kind == "wrong-host"


@contextmanager
def opened(desk: Desk, file: Path) -> Iterator[BuildContext]:
    with open_context(file, desk.store, desk.folder / "cache") as context:
        yield context


def test_the_same_again_is_unchanged_and_the_plan_says_which_engine_is_whose(fleet: Desk, gpu: str) -> None:
    with opened(fleet, fleet.folder / "left.toml") as context:
        report, payload = prepare(context, keys=1, now=int(time.time()))
        planned = plan(context, now=int(time.time())).report(context.repository)
    assert (report.outcome, payload) == ("unchanged", None)
    assert planned.hosts == tuple(sorted([CPU, gpu]))
    assert sorted(row.hosts for row in planned.artifacts if row.hosts) == sorted([(CPU,), (gpu,)])
    assert f"is for {gpu}" in "\n".join(render.plan(planned, 0))


def test_classes_that_one_engine_serves_have_one(fleet: Desk, gpu: str) -> None:
    """Portable engines: the second class is an entry of the manifest, and no engine more."""
    other = "cpu-aarch64-neon" if CPU != "cpu-aarch64" else "cpu-x86_64"
    tables = f'host = "{CPU}"', f'host = "{other}"', f'host = "{gpu}"\nbackend = "tensorrt"'
    with opened(fleet, mission_file(fleet, "right", *tables)) as context:
        rows = [row for row in plan(context, now=int(time.time())).report(context.repository).artifacts if row.hosts]
    assert sorted(row.hosts for row in rows) == sorted([tuple(sorted([CPU, other])), (gpu,)])
    assert all(row.present for row in rows)


def test_two_targets_that_are_one_class_here_are_refused(fleet: Desk) -> None:
    text = f"target\\[1\\].host is {CPU} on this machine, which target\\[0\\] names too"
    with (
        opened(fleet, mission_file(fleet, "twice", 'host = "auto"', f'host = "{CPU}"')) as context,
        pytest.raises(Invalid, match=text),
    ):
        plan(context, now=int(time.time()))


def test_a_key_is_explained_for_one_of_the_targets(fleet: Desk, gpu: str) -> None:
    with opened(fleet, fleet.folder / "left.toml") as context:
        for host in (CPU, gpu):
            published = card_of_backbone(context.repository, "left", "embedder", host)
            assert explained(context, "embedder", host).recipe.key == published.recipe.key
        for host in (None, "cpu-aarch64+sm87"):
            with pytest.raises(Invalid) as caught:
                explained(context, "embedder", host)
            assert f"--host: {', '.join(sorted([CPU, gpu]))}" in caught.value.remedy
            with pytest.raises(NotFound, match="2 engines of the backbone"):
                card_of_backbone(context.repository, "left", "embedder", host and "sm87")


def test_a_release_is_for_one_class_of_the_fleet(fleet: Desk, gpu: str, tmp_path: Path) -> None:
    new = ("release", "new", fleet.store, tmp_path / "a.release", "--name", "winter", "--mission", "left")
    ran = flightbag(*new)
    assert f"name one with --host: {', '.join(sorted([CPU, gpu]))}" in ran.err
    release = flightbag(*new, "--host", gpu, "--json").json
    assert [one["host"] for one in release["entries"] if one["kind"] == "engine"] == [need(gpu)]
