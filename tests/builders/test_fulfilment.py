"""An engine that the planner's machine cannot make: ordered, made where it flies, accepted, flown.

The planner's machine is this one, which takes its CPU for another: so every engine that is tied to a CPU is one for the
device. The device is this machine as it is, without the libraries that a flight computer has not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders.engines import onnxruntime as backend_module
from builders.engines import tensorrt_host
from builders.engines.card import Card
from builders.engines.compiling import CompileSettings
from builders.engines.isolation import Limits, usable_memory
from builders.engines.onnxruntime import OnnxRuntimeBackend
from builders.example.backbone import write_backbone
from builders.fulfilment import Offer, fulfil, offers
from store.errors import Corrupt, FlightbagError, NotFound, Refused, Untrusted
from store.format.cbor import encode
from store.format.ids import BuildKey, ObjectId
from store.format.order import Order, OrderFile
from store.format.result import Result
from store.ground.orders import read_order, read_result
from store.ground.repository import Repository
from store.trust.keys import PrivateKey
from tests.builders.engines.fake_machine import FAKE, become, forget_modules
from tests.support.commands import code_of, flightbag
from tests.support.field import TAKEOFF, Desk
from tests.support.here import confine_here
from tests.support.missions import NOW
from tests.support.orders import insert
from tests.support.stores import audit, file_of, flip

SMALL = {"bbox": (-99.180, 47.008, -99.155, 47.030), "zooms": (14,), "takeoff": TAKEOFF}
FAST = ('precision = "fp32"', 'precision = "fp32"\nmode = "fast"')
RTX = "ampere-plus+cuda12.4+driver-550+linux-x86_64+sm89-geforce_rtx_4090-128sm-24gb+trt10-10.3.0.30"
# What only a machine that builds has.
ABSENT = ("onnx", "PIL", "pmtiles", "shapely")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], pytest.MonkeyPatch]]:
    """Make this process take its CPU for another, until the patch that it returns is undone."""
    file = tmp_path_factory.mktemp("cpu") / "cpuinfo"
    file.write_text("flags : fpu sse sse2 avx\nFeatures : fp\n")
    patches: list[pytest.MonkeyPatch] = []

    def patch() -> pytest.MonkeyPatch:
        one = pytest.MonkeyPatch()
        confine_here(one)
        one.setattr(backend_module, "CPU_FILE", file)
        patches.append(one)
        return one

    yield patch
    for one in patches:
        one.undo()


def ordered_desk(first: Desk, folder: Path) -> tuple[Desk, Path]:
    """A desk with a device among its builders, and a mission of a fast engine for this machine."""
    shutil.copytree(first.folder, folder)
    desk = Desk(folder)
    for args in (
        ("keys", "new", folder / "orin.key", "--no-passphrase"),
        ("trust", "add-key", desk.store, folder / "next", "builder", folder / "orin.key.pub"),
    ):
        assert flightbag(*args).status == 0
    code = code_of("trust", "show", folder / "next")
    assert flightbag("trust", "sign", folder / "next", "--key", folder / "owner.key", "--expect", code).status == 0
    assert flightbag("trust", "rotate", desk.store, folder / "next").status == 0
    mission = desk.write_mission("left", host=OnnxRuntimeBackend().describe_host(), files=(), **SMALL)
    mission.write_text(mission.read_text().replace(*FAST))
    return desk, mission


@pytest.fixture(scope="module")
def _ordered(
    _first_desk: Desk, tmp_path_factory: pytest.TempPathFactory, elsewhere: Callable[[], pytest.MonkeyPatch]
) -> Desk:
    desk, mission = ordered_desk(_first_desk, tmp_path_factory.mktemp("orders") / "desk")
    patch = elsewhere()
    planned = flightbag("plan", mission, "--store", desk.store)
    assert (planned.status, "missing  engines/embedder" in planned.out) == (0, True), planned.err
    assert "this machine does not make the engine" in planned.out
    assert "a build fails: `flightbag engines order`" in planned.out
    refused = flightbag("engines", "build", mission, "--store", desk.store, "--json")
    assert (refused.status, refused.json["engines"][0]["error"]["kind"]) == (1, "wrong-host")
    assert "engines order" in refused.json["engines"][0]["error"]["remedy"]
    ran = flightbag("engines", "order", mission, "--store", desk.store, "--json")
    assert (ran.status, ran.json["orders"][0]["outcome"]) == (0, "ordered"), ran.err
    again = flightbag("engines", "order", mission, "--store", desk.store, "--json")
    assert again.json["orders"][0]["outcome"] == "already ordered"
    patch.undo()
    return desk


@pytest.fixture
def desk(_ordered: Desk, tmp_path: Path) -> Desk:
    """A desk whose order is open."""
    shutil.copytree(_ordered.folder, tmp_path / "desk")
    return Desk(tmp_path / "desk")


def settings(folder: Path) -> CompileSettings:
    return CompileSettings(Limits(usable_memory(), 120.0), folder / "cache")


def the_offer(repository: Repository) -> Offer:
    (offer,) = offers(repository)
    return offer


def fulfilled(desk: Desk, key: str = "orin.key") -> Result:
    signer = _signer(desk, key)
    with Repository.open(desk.store) as repository:
        return fulfil(
            repository,
            the_offer(repository),
            lambda: [signer],
            settings(desk.folder),
            now=NOW,
            progress=lambda *_: None,
        )


def _signer(desk: Desk, key: str) -> PrivateKey:
    from tools.keyfiles import key_of

    private = key_of(desk.folder / key, lambda _: b"")
    assert isinstance(private, PrivateKey)
    return private


def with_order(desk: Desk, change: Callable[[Order], Order], *contents: bytes) -> Order:
    """Put another order in the place of the one on the desk, as somebody with the medium in hand can."""
    with Repository.open(desk.store) as repository:
        order = change(the_order(repository))
        (id_, *_) = insert(repository, order.render(), *contents)
        for pointer in (desk.store / "orders").iterdir():
            pointer.unlink()
        (desk.store / "orders" / str(order.key)).write_text(f"{id_}\n")
    return order


def the_order(repository: Repository) -> Order:
    (name,) = os.listdir(Path(repository.media.path) / "orders")
    return read_order(repository.evidence, BuildKey.parse(name))[1]


def refused(desk: Desk, error: type[FlightbagError], key: str = "orin.key") -> str:
    """The kind of the error; nothing is signed."""
    with pytest.raises(error) as caught:
        fulfilled(desk, key)
    assert not list((desk.store / "results").glob("*")) if (desk.store / "results").is_dir() else True
    return caught.value.kind


# -- the whole trip


def on_a_device(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run the program in a Python that lacks the libraries that only building needs, workers and all."""
    folder.mkdir(exist_ok=True)
    for name in ABSENT:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('not here', name={name!r})\n")
    code = "import sys; from tools.start import main; sys.argv[0] = 'flightbag'; main()"
    path = os.pathsep.join([str(folder), os.getcwd()])
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_engine_is_ordered_made_where_it_flies_accepted_and_flown(
    desk: Desk, tmp_path: Path, elsewhere: Callable[[], pytest.MonkeyPatch]
) -> None:
    stick, mission = tmp_path / "stick", desk.folder / "left.toml"
    assert flightbag("sync", desk.store, stick).status == 0
    listed = on_a_device(tmp_path / "without", "engines", "fulfil", stick)
    assert (listed.returncode, listed.stdout.startswith("open  embedder")) == (0, True), listed.stderr
    made = on_a_device(tmp_path / "without", "engines", "fulfil", stick, "--key", desk.folder / "orin.key", "--json")
    assert made.returncode == 0, made.stdout + made.stderr
    (row,) = json.loads(made.stdout)["orders"]
    assert (row["state"], row["figures"]["fidelity/embedder"] > 999_900) == ("fulfilled", True)
    assert audit(stick).errors is False
    again = on_a_device(tmp_path / "without", "engines", "fulfil", stick, "--key", desk.folder / "orin.key", "--json")
    assert json.loads(again.stdout)["orders"][0]["state"] == "fulfilled before"

    patch = elsewhere()
    assert desk.build(mission).status == 1, "nothing is accepted yet"
    taken = flightbag("engines", "accept", desk.store, "--from", stick, "--json")
    assert (taken.status, taken.json["results"][0]["outcome"]) == (0, "accepted"), taken.out
    ran = flightbag("engines", "order", mission, "--store", desk.store, "--json")
    ordered = ran.json["orders"][0]
    assert ordered["outcome"] == "not needed", ordered["why"]
    assert "engine equals map" not in flightbag("plan", mission, "--store", desk.store).out, "a device has measured it"
    report = desk.built(mission)
    assert {one["name"]: one["value"] for one in report["figures"]}["fidelity/embedder"] > 999_900
    patch.undo()
    assert audit(desk.store).errors is False
    assert desk.verify(desk.store, "left").status == 0
    assert flightbag("probe", desk.store, "left", "--trust", desk.root).status == 0


def test_missions_that_share_an_engine_share_its_order_and_its_result(
    desk: Desk, tmp_path: Path, elsewhere: Callable[[], pytest.MonkeyPatch]
) -> None:
    """A key has one order and one result: what one mission asks for takes nothing away from another."""
    host = OnnxRuntimeBackend().describe_host()
    missions = [desk.folder / "left.toml"]
    for name, west in (("fine", -99.180), ("east", -99.168)):
        other = {"zooms": (15,), "bbox": (west, 47.008, west + 0.025, 47.030)}
        path = desk.write_mission(name, host=host, files=(), **{**SMALL, **other})
        path.write_text(path.read_text().replace(*FAST))
        missions.append(path)

    def order(mission: Path) -> str:
        ran = flightbag("engines", "order", mission, "--store", desk.store, "--json")
        assert ran.status == 0, ran.err
        return str(ran.json["orders"][0]["outcome"])

    def trip(count: int) -> None:
        patches.pop().undo()
        assert len(fulfilled(desk).figures) == count
        patches.append(elsewhere())
        ran = flightbag("engines", "accept", desk.store, "--from", desk.store, "--json")
        assert ran.json["results"][0]["outcome"] == "accepted", ran.out

    patches = [elsewhere()]
    # The second is ordered before the first is made, the third after both are.
    assert order(missions[1]) == "ordered"
    assert [order(one) for one in missions[:2]] == ["already ordered"] * 2
    trip(2)
    assert [order(one) for one in missions[:2]] == ["not needed"] * 2
    assert order(missions[2]) == "ordered"
    trip(3)
    assert [order(one) for one in missions] == ["not needed"] * 3
    for mission in missions:
        desk.built(mission)
    patches.pop().undo()


# -- orders from outside


def test_the_order_has_all_that_a_device_needs(desk: Desk) -> None:
    with Repository.open(desk.store) as repository:
        offer = the_offer(repository)
        assert offer.open
        order = offer.order
        assert order is not None
        assert order.need == OnnxRuntimeBackend().describe_host()
        assert order.probes[0].figure == "fidelity/embedder"
        for id_, size in order.objects.items():
            repository.media.digest(id_, size)


def test_a_result_names_what_was_made_and_measured(desk: Desk) -> None:
    result = fulfilled(desk)
    with Repository.open(desk.store) as repository:
        offer = the_offer(repository)
        assert (offer.result, offer.open) == (result, False)
        assert read_result(repository.evidence, result.key, repository.trust_root().root) == result
        card = Card.parse(repository.evidence.object(result.card[0], 2**20))
        assert card.describes(result.key, result.engine)
        assert card.proven
        assert result.host == OnnxRuntimeBackend().describe_host()
        # Damage on the medium: the result holds no more, and the order is open again.
        flip(file_of(desk.store, result.engine[0][0]))
        assert the_offer(repository).open


def test_an_engine_that_exists_is_measured_and_not_made_again(desk: Desk) -> None:
    first = fulfilled(desk)
    of_ground = first.objects
    with_order(desk, lambda order: replace(order, engine=of_ground))
    again = fulfilled(desk)
    assert again.engine == first.engine
    assert (again.order != first.order, again.figures == first.figures) == (True, True)
    # The card of another engine measures nothing.
    with_order(desk, lambda order: replace(order, engine=(of_ground[0], of_ground[2])))
    with pytest.raises(Corrupt) as caught:
        fulfilled(desk)
    assert caught.value.kind == "bad-card"


def test_an_engine_of_tensorrt_is_made_where_the_library_is(
    desk: Desk, elsewhere: Callable[[], pytest.MonkeyPatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library is a fake; the order, the worker, the check, the probe and the result are not."""
    path = desk.write_mission("right", host=RTX, files=(), **SMALL)
    path.write_text(path.read_text().replace('backend = "onnxruntime"', 'backend = "tensorrt"'))
    patch = elsewhere()
    ran = flightbag("engines", "order", path, "--store", desk.store, "--json")
    assert (ran.status, ran.json["orders"][0]["outcome"]) == (0, "ordered"), ran.err
    patch.undo()
    monkeypatch.syspath_prepend(str(FAKE))
    for name in ("DRIVER_FILE", "L4T_FILE"):
        monkeypatch.setattr(tensorrt_host, name, getattr(tensorrt_host, name))
    with Repository.open(desk.store) as repository:
        key = BuildKey.parse(ran.json["orders"][0]["key"])
        become(monkeypatch)
        try:
            (offer,) = (one for one in offers(repository) if one.key == key)
            assert offer.open, offer.why
            result = fulfil(
                repository,
                offer,
                lambda: [_signer(desk, "orin.key")],
                settings(desk.folder),
                now=NOW,
                progress=lambda *_: None,
            )
        finally:
            forget_modules()
    assert (result.host, result.need, len(result.engine)) == (RTX, RTX.removeprefix("ampere-plus+"), 1)
    assert result.figures[0].value > 999_000


def test_a_key_of_another_role_signs_nothing(desk: Desk) -> None:
    assert refused(desk, Untrusted, "planner.key") == "unknown-signer"


@pytest.mark.parametrize("part", ["network", "source", "probe"])
def test_an_object_that_is_not_as_the_order_names_it_is_not_used(desk: Desk, part: str) -> None:
    with Repository.open(desk.store) as repository:
        order = the_order(repository)
    id_ = {"network": order.network[0].id, "source": order.source[0].id, "probe": order.probes[0].probe}[part]
    flip(file_of(desk.store, id_), 100)
    assert refused(desk, Corrupt) == "bit-flip"
    file_of(desk.store, id_).unlink()
    assert refused(desk, NotFound) == "missing"


def test_a_network_that_is_not_its_source_is_not_signed(desk: Desk, tmp_path: Path) -> None:
    write_backbone(tmp_path / "planted.onnx", seed=2)
    planted = (tmp_path / "planted.onnx").read_bytes()
    file = OrderFile("model.onnx", ObjectId.of(planted), len(planted))
    with_order(desk, lambda order: replace(order, network=(file,)), planted)
    assert refused(desk, Refused) == "wrong-output"


def test_an_engine_that_does_not_agree_with_the_map_is_not_signed(desk: Desk, tmp_path: Path) -> None:
    write_backbone(tmp_path / "planted.onnx", seed=2)
    planted = (tmp_path / "planted.onnx").read_bytes()
    file = OrderFile("model.onnx", ObjectId.of(planted), len(planted))
    with_order(desk, lambda order: replace(order, network=(file,), source=(file,)), planted)
    assert refused(desk, Refused) == "too-low"


def changed_fields(**changes: Any) -> Callable[[Order], Order]:
    return lambda order: replace(order, recipe=encode({**order.fields, **changes}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (changed_fields(host="cpu-x86_64-sse2+ort-1.22.0"), "it needs cpu-x86_64-sse2+ort-1.22.0, this machine is"),
        (changed_fields(host="cpu-aarch64-neon+ort-1.22.0"), "it needs cpu-aarch64-neon+ort-1.22.0, this machine is"),
        (changed_fields(backend="nothing"), "has no backend 'nothing'"),
        (changed_fields(version="0.0.1"), "another engine than the order"),
        (changed_fields(level="basic"), "another engine than the order"),
        (changed_fields(more=1), "another engine than the order"),
        (changed_fields(schema="flightbag/engine/9"), "another engine than the order"),
        (changed_fields(options=[]), "another engine than the order"),
        (changed_fields(options=[["mode"]]), "not those of an engine"),
        (changed_fields(inputs=1), "not those of an engine"),
        (changed_fields(inputs=[["image", [1, 2], [3, 2, 1]]]), "min, opt, max"),
        (changed_fields(precision="fp8"), "not those of an engine"),
        (changed_fields(plugins=[bytes(32)]), "has plug-ins"),
        (changed_fields(fixed=[["x", [1], ["nan"]]]), "not those of an engine"),
    ],
)
def test_an_order_that_this_machine_does_not_meet_says_why(
    desk: Desk, change: Callable[[Order], Order], why: str
) -> None:
    with_order(desk, change)
    with Repository.open(desk.store) as repository:
        offer = the_offer(repository)
    assert why in offer.why
    assert not offer.open
    assert refused(desk, Refused) == "wrong-host"


def test_an_order_that_does_not_hold_is_listed_and_keeps_no_other_back(desk: Desk) -> None:
    (desk.store / "orders" / ("0" * 64)).write_text("x" * 65)
    with Repository.open(desk.store) as repository:
        bad, good = offers(repository)
    assert (bad.order, bad.open, good.open) == (None, False, True)
    assert "not an object id" in bad.why


def test_an_order_that_changes_meanwhile_is_not_fulfilled(desk: Desk) -> None:
    with Repository.open(desk.store) as repository:
        offer = the_offer(repository)
    with_order(desk, lambda order: replace(order, compare=("descriptor",)))
    with Repository.open(desk.store) as repository, pytest.raises(Corrupt) as caught:
        fulfil(repository, offer, list, settings(desk.folder), now=NOW, progress=lambda *_: None)
    assert caught.value.kind == "bad-order"
