"""Engines that the machine of the build does not run: who has to prove them, and the whole way until they fly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from builders.artifacts import figures
from builders.artifacts.engine import EngineTask, explained
from builders.artifacts.plan import plan
from builders.artifacts.store import ArtifactStore
from builders.compose import open_context
from builders.engines.card import Card
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.onboard.probes import Probe
from builders.orchestrator import Payload, prepare
from builders.report import BuildReport
from store.errors import Refused
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import FIDELITY, Figure, Manifest
from store.ground.repository import Repository
from store.ground.writer import writing
from store.takeoff.aircraft import read_state
from store.takeoff.fidelity import fidelity_recipe
from tests.support import runtimes
from tests.support.commands import flightbag
from tests.support.field import Desk
from tests.support.here import confine_here

NOW = 1_800_000_000
ABOARD = 'proof = "aboard"'
# Another library than that of the tests: the flight computer's.
VERSION = "1.22.0"
HERE = OnnxRuntimeBackend().describe_host()
ABOARD_HOST = f"{HERE.partition('+')[0]}+ort-{VERSION}"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine runs an engine."""
    monkeypatch.setattr(EngineTask, "elsewhere", "it needs an accelerator")


def edit(mission: Path, *changes: tuple[str, str]) -> Path:
    text = mission.read_text()
    for old, new in changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    mission.write_text(text)
    return mission


def aboard(desk: Desk) -> Path:
    """The mission file of `left`, which lets aircraft prove its engine."""
    return edit(desk.write_mission("left"), ("[target]", f"[target]\n{ABOARD}"))


def prepared(desk: Desk, mission: Path) -> tuple[BuildReport, Payload | None]:
    with open_context(mission, desk.store, desk.folder / "cache") as context:
        return prepare(context, keys=1, now=NOW)


def manifest_of(desk: Desk, mission: Path) -> Manifest:
    payload = prepared(desk, mission)[1]
    assert payload is not None
    return payload.manifest


def named(manifest: Manifest, kind: str) -> Figure:
    (one,) = (figure for figure in manifest.quality if figure.name.startswith(kind))
    return one


@pytest.mark.usefixtures("absent")
def test_without_leave_no_mission_has_an_engine_that_nobody_ran(built: Desk) -> None:
    with pytest.raises(Refused, match="nobody has measured fidelity/embedder") as caught:
        prepared(built, edit(built.write_mission("left"), ("lat = 47.0201", "lat = 47.0202")))
    assert caught.value.kind == "unproven"
    assert "flightbag engines order" in caught.value.remedy
    assert ABOARD in caught.value.remedy
    # The remedy helps.
    assert manifest_of(built, aboard(built)).unproven


def test_an_engine_that_runs_here_is_measured_here(built: Desk) -> None:
    report, payload = prepared(built, aboard(built))
    assert (report.outcome, payload) == ("unchanged", None), "what becomes of an unproven engine is in no identity"


def test_the_figure_is_signed_as_unproven_and_the_map_is_asked_through_its_network(
    built: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Repository.open(built.store) as repository:
        here, table = repository.current("left").manifest, repository.current("left").table
    monkeypatch.setattr(EngineTask, "elsewhere", "it needs an accelerator")
    manifest = manifest_of(built, aboard(built))
    (one,) = manifest.unproven
    signed = named(here, FIDELITY)
    assert (one.name, one.least, one.recipe) == (signed.name, signed.least, signed.recipe)
    keys = [entry.key for kind in ("probe", "engine") for entry in table.entries if entry.kind == kind]
    assert one.recipe == fidelity_recipe(*keys)  # type: ignore[arg-type]
    assert not [figure for figure in manifest.quality if figure.name.startswith(FIDELITY)]
    through_engine, through_network = named(here, "self@1/"), named(manifest, "self@1/")
    assert through_network.value == 1_000_000
    assert through_engine.recipe != through_network.recipe
    assert manifest.identity != here.identity
    with open_context(built.folder / "left.toml", built.store, built.folder / "cache") as context:
        digest = context.specs["embedder"].model.digest
        asked = figures.asked_of([explained(context, "embedder", None)], "embedder")
    assert [*asked] == [BuildKey(digest)]


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize(("value", "outcome"), [(999_999, "built"), (5, "failed")])
def test_what_a_device_measured_counts(built: Desk, monkeypatch: pytest.MonkeyPatch, value: int, outcome: str) -> None:
    asked: list[object] = []

    def measured(_repository: object, root: object, engine: list[ObjectId], probe: ObjectId, recipe: bytes) -> object:
        asked.append((root, engine, probe, recipe))
        return value, 8

    with Repository.open(built.store) as repository:
        opened = repository.current("left")
        root = repository.trust_root().root
    objects = {entry.kind: entry.id for entry in opened.table.entries}
    monkeypatch.setattr(figures, "measured_elsewhere", measured)
    # Without leave: it is measured.
    report, payload = prepared(built, built.write_mission("left"))
    recipe = named(opened.manifest, FIDELITY).recipe
    assert asked[-1] == (root, [objects["engine"]], objects["probe"], recipe)
    assert report.outcome == outcome
    assert report.unproven == ()
    if payload is not None:
        assert (named(payload.manifest, FIDELITY).value, named(payload.manifest, FIDELITY).queries) == (value, 8)


def test_a_proof_is_of_the_machine_that_runs_the_engine(built: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A portable engine runs on the laptop too, which is not the aircraft."""
    with monkeypatch.context() as patch:
        confine_here(patch)
        patch.setattr(EngineTask, "elsewhere", "it needs an accelerator")
        built.built(aboard(built))
    state = built.folder / "aircraft"
    enrolled = ("aircraft", "enrol", "--state", state, "--id", "uav-07", "--trust", built.root, "--host")
    assert flightbag(*enrolled, ABOARD_HOST).status == 0
    ran = flightbag("probe", built.store, "left", "--state", state)
    assert ran.status == 1
    assert f"the aircraft has ort-{VERSION}, and this machine is {HERE}" in ran.err
    assert "enrol the aircraft again" in ran.err
    assert read_state(state).state.proofs == ()
    text = flightbag("probe", built.store, "left", "--trust", built.root)
    assert (text.status, "nothing was recorded" in text.out) == (0, True)
    # The remedy helps.
    assert flightbag(*enrolled, HERE, "--again").status == 0
    text = flightbag("probe", built.store, "left", "--state", state)
    assert (text.status, "proven aboard, and recorded: engine equals map/embedder" in text.out) == (0, True)
    assert kinds(built, built.store, "--state", state) == []
    # Something has changed aboard: what does not hold is proven no more.
    monkeypatch.setattr(Probe, "fidelity", lambda *_: 0.5)
    text = flightbag("probe", built.store, "left", "--state", state)
    assert (text.status, "NOT PROVEN, nor recorded: engine equals map/embedder" in text.out) == (1, True)
    assert kinds(built, built.store, "--state", state) == ["unproven"]


COMPILE = """
import sys
from pathlib import Path
from builders.engines.session import open_session
open_session(Path(sys.argv[1]).read_bytes(), "all", save_as=Path(sys.argv[2]))
"""


def plant(desk: Desk, mission: Path, engine: bytes) -> None:
    """Put an engine of the flight computer into the store, as an accepted result leaves it: with the card of the same
    network's engine here, under its own name."""
    with Repository.open(desk.store) as repository:
        (card,) = (entry for entry in repository.current("here").table.entries if entry.kind == "card")
        like = Card.parse(repository.evidence.object(card.id, card.size))
    with open_context(mission, desk.store, desk.folder / "cache") as context:
        task = explained(context, "embedder", ABOARD_HOST)
    parts = {"model": [str(ObjectId.of(engine)), len(engine)]}
    made = replace(like, recipe=task.recipe, need=task.need, parts=parts)
    with Repository.open(desk.store) as repository, writing(repository) as writer:
        with writer.inserting() as batch:
            ids = [batch.add_bytes(data).id for data in (made.render(), engine)]
            batch.commit()
        ArtifactStore(writer, NOW).remember({task.recipe.key: (tuple(ids), 1.0)}, "onnxruntime")


FAST = ("backend =", 'mode = "fast"\nbackend =')


def test_of_a_fleet_only_what_does_not_run_here_is_unproven(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        confine_here(patch)
        desk.built(edit(desk.write_mission("here", flight="here"), FAST))
    one, other = (f'[[target]]\nhost = "{host}"\n' for host in (HERE, ABOARD_HOST))
    target = f'[target]\nhost = "{HERE}"\n'
    mission = edit(desk.write_mission("left", host=HERE), FAST, (target, f"{one}{ABOARD}\n{other}"))
    plant(desk, mission, b"an engine that nothing here opens")
    with pytest.raises(Refused, match="nobody has measured fidelity/embedder"):
        prepared(desk, mission)  # leave for one target is none for the other
    mission = edit(desk.write_mission("left", host=HERE), FAST, (target, f"{one}{other}{ABOARD}\n"))
    manifest = manifest_of(desk, mission)
    with open_context(mission, desk.store, desk.folder / "cache") as context:
        keys = {host: explained(context, "embedder", host).recipe.key for host in (HERE, ABOARD_HOST)}
    with Repository.open(desk.store) as repository:
        (probe,) = (entry for entry in repository.current("here").table.entries if entry.kind == "probe")
    assert probe.key is not None
    recipes = {host: fidelity_recipe(probe.key, key) for host, key in keys.items()}
    assert named(manifest, FIDELITY).recipe == recipes[HERE]
    assert [figure.recipe for figure in manifest.unproven] == [recipes[ABOARD_HOST]]
    # The map is asked through the engine of the one, and for the other through the network that made it.
    assert len({figure.recipe for figure in manifest.quality if figure.name == "self@1/embedder"}) == 2
    assert manifest.hosts == tuple(sorted((HERE, ABOARD_HOST)))


def kinds(desk: Desk, store: Path, *more: object) -> list[str]:
    ran = flightbag("verify", store, "left", *more, "--json")
    (verdict,) = ran.json["missions"]
    assert ran.status == (0 if verdict["go"] else 1)
    return [finding["kind"] for finding in ran.json["findings"]]


def test_the_whole_way(desk: Desk) -> None:
    """A planner without the aircraft's computer: refused, then published; NO-GO until the probe has held aboard."""
    if why := runtimes.environment(VERSION)[1]:
        pytest.skip(why)
    desk.built(edit(desk.write_mission("here", flight="here"), FAST))
    mission = edit(desk.write_mission("left", host=ABOARD_HOST), FAST)

    runtimes.python(VERSION, "-c", COMPILE, str(desk.folder / "embedder.onnx"), str(desk.folder / "aboard.onnx"))
    plant(desk, mission, (desk.folder / "aboard.onnx").read_bytes())

    # The engine is there, and nobody has measured it.
    ran = desk.build(mission)
    assert ran.status == 1
    assert "nobody has measured fidelity/embedder" in ran.err
    assert ABOARD in ran.err
    edit(mission, ("[target]", f"[target]\n{ABOARD}"))
    text = flightbag("build", mission, "--store", desk.store, "--key", desk.key)
    assert text.status == 0, text.out + text.err
    said = desk.built(mission)
    assert ("unproven", True) in [(one["kind"], one["information"]) for one in said["findings"]]
    assert "UNPROVEN: engine equals map/embedder" in text.out
    report, payload = prepared(desk, mission)
    assert (report.outcome, payload) == ("unchanged", None)
    assert [one.name for one in report.unproven] == ["fidelity/embedder"]
    assert [one.name for one in report.figures] == ["self@1/embedder"]
    with open_context(mission, desk.store, desk.folder / "cache") as context:
        (text, *_) = plan(context, now=NOW).report(context.repository).not_measured
    assert "this machine does not run the engine" in text
    assert "UNPROVEN" in flightbag("show", desk.store, "left").out
    assert len(flightbag("show", desk.store, "left", "--json").json["unproven"]) == 1
    with pytest.raises(Refused, match="nobody has measured"):  # published as aboard, and now asked to be proven
        prepared(desk, edit(desk.write_mission("left", host=ABOARD_HOST), FAST))

    # It is carried, and does not fly: not by a root, nor by the state of an aircraft.
    stick = desk.folder / "stick"
    assert flightbag("sync", desk.store, stick).status == 0
    assert "1 unproven" in flightbag("fsck", stick, "--full", "--mission", "left").out
    state = desk.folder / "aircraft"
    enrolled = ("aircraft", "enrol", "--state", state, "--id", "uav-07", "--trust", desk.root, "--host")
    assert flightbag(*enrolled, ABOARD_HOST).status == 0
    assert kinds(desk, stick, "--trust", desk.root) == ["unproven"]
    assert kinds(desk, stick, "--state", state) == ["unproven"]
    ran = flightbag("probe", stick, "left", "--state", state)
    assert ran.status == 1
    assert f"the aircraft has ort-{VERSION}" in ran.err, "this machine is not the flight computer"
    assert read_state(state).state.proofs == ()

    # Aboard, by the library that the engine is for.
    main = "from tools.start import main; main()"
    probed = runtimes.python(VERSION, "-c", main, "probe", str(stick), "left", "--state", str(state), "--json")
    (figure,) = json.loads(probed)["figures"]
    assert (figure["recorded"], figure["signed"], figure["holds"]) == (True, None, True)
    assert figure["value"] >= figure["least"]
    assert read_state(state).state.missions == {}, "a probe accepts nothing"
    assert kinds(desk, stick, "--state", state) == []
    assert kinds(desk, stick, "--trust", desk.root) == ["unproven"]
    (proof,) = flightbag("aircraft", "show", "--state", state, "--json").json["proofs"]
    assert f"proven      {proof[:12]}" in flightbag("aircraft", "show", "--state", state).out

    # Another class is another machine.
    other = f"{HERE.partition('+')[0]}+ort-1.23.0"
    assert flightbag(*enrolled, ABOARD_HOST, "--again", "--json").json["kept"]["proofs"] == 1
    assert flightbag(*enrolled, other, "--again", "--json").json["kept"]["proofs"] == 0
