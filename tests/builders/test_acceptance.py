"""Results on the ground: one that is as ordered is taken, whole, once; every attack on one is refused by its kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from builders.acceptance import Acceptance, accept
from builders.artifacts.elsewhere import measured_elsewhere
from builders.artifacts.store import ArtifactStore, lookup_of
from builders.recipe import Recipe
from store.disk.durable import Disk
from store.disk.layout import ORDERS, RESULTS
from store.format.ids import BuildKey, ObjectId
from store.ground.orders import holder_of, place
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support import orders
from tests.support.missions import NOW, ROOT, role, sign_payload
from tests.support.orders import ENGINE, FLEET, ORDER, WEIGHTS, Trip, card, check, figure, id_of, result, signed
from tests.support.stores import audit, file_of, listing, overwrite

STORED = (id_of(card().render()), id_of(ENGINE), id_of(WEIGHTS))


@pytest.fixture(scope="module")
def fulfilled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trip = Trip(tmp_path_factory.mktemp("trip")).begin()
    trip.fulfil()
    return trip.folder


@pytest.fixture
def trip(fulfilled: Path, tmp_path: Path) -> Trip:
    """The order is open on the ground, and fulfilled on the stick."""
    shutil.copytree(fulfilled, tmp_path / "trip")
    return Trip(tmp_path / "trip")


def accepted(trip: Trip) -> list[Acceptance]:
    with Repository.open(trip.ground) as repository:
        return accept(repository, trip.stick, now=NOW)


def measured(trip: Trip, **changes: object) -> tuple[int, int] | None:
    """What the ground store says of the figure that ORDER asks for."""
    probe = ORDER.probes[0]
    asked = {"engine": [id_of(ENGINE)[0], id_of(WEIGHTS)[0]], "probe": probe.probe, "recipe": probe.recipe, **changes}
    with Repository.open(trip.ground) as repository:
        return measured_elsewhere(repository, repository.trust_root().root, **asked)  # type: ignore[arg-type]


def found(trip: Trip) -> tuple[object, ...]:
    """The objects of the key, as a plan finds them, and as a build does."""
    with Repository.open(trip.ground) as repository:
        with lookup_of(repository) as lookup:
            planned = lookup(ORDER.key)
        with writing(repository) as writer:
            return planned, ArtifactStore(writer, NOW).lookup(ORDER.key)


class TestAResultAsOrdered:
    def test_is_taken_with_all_that_it_names(self, trip: Trip) -> None:
        assert found(trip) == (None, None)
        (one,) = accepted(trip)
        assert (one.outcome, one.backbone, one.result) == ("accepted", "embedder", result())
        assert found(trip) == (STORED, STORED)
        assert measured(trip) == (999_950, 8)
        assert (trip.has(ORDERS), trip.has(RESULTS)) == (False, True)
        assert audit(trip.ground).errors is False

    def test_is_taken_again_without_effect(self, trip: Trip) -> None:
        accepted(trip)
        before = listing(trip.ground, but=("index", "lock", "tmp"))
        assert [one.outcome for one in accepted(trip)] == ["accepted before"]
        assert listing(trip.ground, but=("index", "lock", "tmp")) == before

    def test_is_found_without_the_index(self, trip: Trip) -> None:
        accepted(trip)
        shutil.rmtree(trip.ground / "index")
        assert found(trip) == (STORED, STORED)

    def test_says_nothing_of_other_things(self, trip: Trip) -> None:
        accepted(trip)
        assert measured(trip, engine=[id_of(ENGINE)[0]]) is None
        assert measured(trip, probe=id_of(ENGINE)[0]) is None
        assert measured(trip, recipe=bytes(32)) is None

    def test_counts_no_more_when_its_key_is_revoked(self, trip: Trip) -> None:
        accepted(trip)
        trip.rotate(builder=role("thor"), revoked=role("orin").keys)
        assert measured(trip) is None
        assert found(trip) == (None, None)

    def test_that_a_copy_brought_counts_when_it_is_accepted(self, trip: Trip) -> None:
        shutil.copytree(trip.stick, trip.ground, dirs_exist_ok=True, ignore=lambda *_: ["index", "lock", "tmp"])
        assert (trip.has(ORDERS), trip.has(RESULTS)) == (True, True)
        assert (measured(trip), found(trip)) == (None, (None, None))
        assert accepted(trip)[0].outcome == "accepted"
        assert (measured(trip), found(trip)) == ((999_950, 8), (STORED, STORED))

    @pytest.mark.parametrize("before", ["nothing", "accepted"])
    def test_counts_only_of_an_order_that_was_made_here(self, trip: Trip, before: str) -> None:
        """A device fulfils an order from anywhere, and a planted one may name another network: its result is signed."""
        if before == "accepted":
            accepted(trip)
        planted = result(order=ObjectId.of(orders.order(network=(orders.file("model.onnx", b"evil"),)).render()))
        id_ = trip.fulfil(signed(planted.render(), "orin"))
        (trip.ground / holder_of(ORDERS, ORDER.key)).unlink(missing_ok=True)
        for folder in ("objects", RESULTS):
            shutil.copytree(trip.stick / folder, trip.ground / folder, dirs_exist_ok=True)
        with Repository.open(trip.ground) as repository:
            place(repository, RESULTS, ORDER.key, id_)
        assert (measured(trip), found(trip)) == (None, (None, None))

    def test_of_an_engine_that_exists_is_of_that_engine(self, trip: Trip, tmp_path: Path) -> None:
        present = (id_of(card(check=check(of="network")).render()), id_of(ENGINE), id_of(WEIGHTS))
        order = orders.order(engine=present)
        (tmp_path / "other").mkdir()
        other = Trip(tmp_path / "other", contents=(*orders.CONTENTS, card(check=check(of="network")).render())).begin(
            order
        )
        of_order = result(order=id_of(order.render())[0])
        other.fulfil(signed(of_order.render(), "orin"))
        assert accepted(other)[0].outcome == "accepted"


class Stop(Exception):
    pass


class StopsAt(Disk):
    """A disk of a machine that loses its power at the nth step that makes something durable."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Stop

    def rename(self, source: str, target: str) -> None:
        self._count()
        super().rename(source, target)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)


def test_a_crash_anywhere_leaves_a_store_in_which_it_is_taken_again(fulfilled: Path, tmp_path: Path) -> None:
    for step in range(40):
        trip = Trip(tmp_path / str(step))
        shutil.copytree(fulfilled, trip.folder)
        with Repository.open(trip.ground, StopsAt(step)) as repository, suppress(Stop):
            accept(repository, trip.stick, now=NOW)
            break
        assert audit(trip.ground).errors is False
        if trip.has(ORDERS):
            assert (measured(trip), found(trip)) == (None, (None, None)) or trip.has(RESULTS)
        assert accepted(trip)[0].error is None
        assert (measured(trip), found(trip)) == ((999_950, 8), (STORED, STORED))
        assert not trip.has(ORDERS)
    assert 5 < step < 39


# -- attacks

Attack = Callable[[Trip], None]
SIGNED = signed(result().render(), "orin")
OTHER_KEY = BuildKey(bytes([9]) * 32)


def says(**changes: object) -> Attack:
    """A result that the device has signed, and that says something else."""
    return lambda trip: void(trip.fulfil(signed(result(**changes).render(), "orin")))


def with_card(**changes: object) -> Attack:
    """A card that says something else, and a result that names it."""
    other = card(**changes).render()
    return lambda trip: void(trip.fulfil(signed(result(card=id_of(other)).render(), "orin"), card=other))


def needs_less(trip: Trip) -> None:
    """Aircraft of other classes would load it too."""
    other = card(need="cpu").render()
    trip.fulfil(signed(result(card=id_of(other), need="cpu").render(), "orin"), card=other)


def signed_by(*names: str) -> Attack:
    return lambda trip: void(trip.fulfil(signed(result().render(), *names)))


def void(_: object) -> None:
    return None


def bytes_of(change: Callable[[bytes], bytes]) -> Attack:
    return lambda trip: void(trip.fulfil(change(signed(result().render(), "orin"))))


def object_of_stick(data: bytes, change: Callable[[bytes], bytes] | None) -> Attack:
    def attack(trip: Trip) -> None:
        path = file_of(trip.stick, ObjectId.of(data))
        if change is None:
            path.unlink()
        else:
            overwrite(path, change)

    return attack


def in_another_domain(trip: Trip) -> None:
    trip.fulfil(signed(result().render(), "orin", root=replace(FLEET, salt=bytes(16))))


def rotated(**changes: object) -> Attack:
    """The ground store has a newer trust root."""
    return lambda trip: trip.rotate(**changes)


def another_order(trip: Trip) -> None:
    """The planner has ordered again since: with another probe."""
    probe = replace(ORDER.probes[0], recipe=bytes([8]) * 32)
    with Repository.open(trip.ground) as repository:
        trip.order(orders.order(probes=(probe,)), repository)


def an_order_from_elsewhere(trip: Trip) -> None:
    """A copy has brought an order that demands less, and a device has fulfilled it in good faith."""
    order = orders.order(probes=(replace(ORDER.probes[0], least=0),))
    data = order.render()
    with Repository.open(trip.ground) as repository:
        orders.insert(repository, data)
        place(repository, ORDERS, ORDER.key, ObjectId.of(data))
    trip.fulfil(signed(result(order=ObjectId.of(data), figures=(figure(value=1, least=0),)).render(), "orin"))


def no_order(trip: Trip) -> None:
    (trip.ground / holder_of(ORDERS, ORDER.key)).unlink()


def pointer_of_another_key(trip: Trip) -> None:
    trip.fulfil(key=OTHER_KEY)
    (trip.stick / holder_of(RESULTS, ORDER.key)).unlink()


def of_another_type(trip: Trip) -> None:
    type_ = "application/vnd.flightbag.release+cbor"
    trip.fulfil(sign_payload(result().render(), type_, FLEET.aad("flightbag/result/1"), ["orin"]))


def with_another_label(trip: Trip) -> None:
    data = sign_payload(result().render(), orders.CONTENT_TYPE, FLEET.aad("flightbag/release/1"), ["orin"])
    trip.fulfil(data)


def pointer_says(data: bytes) -> Attack:
    return lambda trip: void((trip.stick / holder_of(RESULTS, ORDER.key)).write_bytes(data))


def measuring(attack: Attack) -> Attack:
    """The order asks to measure an engine that exists."""

    def attacked(trip: Trip) -> None:
        order = orders.order(engine=(id_of(card().render()), id_of(b"another engine")))
        with Repository.open(trip.ground) as repository:
            id_ = trip.order(order, repository)
        trip.fulfil(signed(result(order=id_).render(), "orin"))
        attack(trip)

    return attacked


ATTACKS: dict[str, tuple[Attack, str]] = {
    "signed by nobody": (signed_by(), "threshold"),
    "signed by a stranger": (signed_by("nobody"), "unknown-signer"),
    "signed by a mission key": (signed_by("pilot"), "wrong-role"),
    "signed by a release key": (signed_by("lab"), "wrong-role"),
    "signed by a root key": (signed_by("root-a"), "wrong-role"),
    "signed by a builder and a mission key": (signed_by("orin", "pilot"), "wrong-role"),
    "signed in another domain": (in_another_domain, "bad-signature"),
    "signed as another type": (of_another_type, "bad-result"),
    "signed under another label": (with_another_label, "bad-signature"),
    "the builder is revoked": (rotated(builder=role("thor"), revoked=role("orin").keys), "revoked-key"),
    "the builder is enrolled no more": (rotated(builder=role("thor")), "unknown-signer"),
    "the role is gone": (rotated(builder=ROOT.builder), "unknown-signer"),
    "two builders have to sign": (rotated(builder=role("orin", "thor", threshold=2)), "threshold"),
    "a bit of the signature": (bytes_of(lambda data: data[:-1] + bytes([data[-1] ^ 1])), "bad-signature"),
    "a bit of the payload": (bytes_of(lambda data: data.replace(b"avx2", b"avx3")), "bad-signature"),
    "truncated": (bytes_of(lambda data: data[:-1]), "bad-result"),
    "something behind it": (bytes_of(lambda data: data + b"\0"), "bad-result"),
    "not canonical": (bytes_of(lambda data: data.replace(b"\xd8\x62\x84", b"\xd8\x62\x98\x04")), "bad-result"),
    "empty": (bytes_of(lambda _: b""), "bad-result"),
    "more than an envelope may have": (bytes_of(lambda data: data + bytes(70_000)), "oversized"),
    "the object under another id": (
        object_of_stick(signed(result().render(), "orin"), lambda data: data[:-1] + b"x"),
        "bit-flip",
    ),
    "the object is gone": (object_of_stick(signed(result().render(), "orin"), None), "missing"),
    "the pointer is no id": (pointer_says(b"x" * 65), "bad-ref"),
    "the pointer is longer": (pointer_says(b"0" * 64 + b"\n\n"), "too-large"),
    "the pointer leads to the engine": (pointer_says(f"{id_of(ENGINE)[0]}\n".encode()), "bad-result"),
    "the pointer leads to the order": (pointer_says(f"{id_of(ORDER.render())[0]}\n".encode()), "bad-result"),
    "under another key": (pointer_of_another_key, "other-key"),
    "of another key": (says(key=OTHER_KEY), "other-key"),
    "nobody ordered it": (no_order, "no-order"),
    "of an order that this store has not made": (an_order_from_elsewhere, "foreign-order"),
    "of an order that was changed since": (another_order, "other-order"),
    "of another order": (says(order=ObjectId(bytes(32))), "other-order"),
    "of another engine than the one to measure": (measuring(void), "other-engine"),
    "from a device of another class": (says(host="cpu-x86_64-avx512+ort-1.22.0"), "wrong-host"),
    "from a device that says little of itself": (says(host="cpu-x86_64"), "wrong-host"),
    "of an engine that needs what the device lacks": (says(need=f"{orders.NEED}+sm89"), "wrong-host"),
    "of an engine that needs less than its card says": (says(need="cpu"), "bad-card"),
    "of an engine that needs less than was ordered": (needs_less, "bad-card"),
    "a figure below the least": (says(figures=(figure(value=999_899),)), "too-low"),
    "a figure with a lower least": (says(figures=(figure(value=1, least=0),)), "other-figures"),
    "a figure with another recipe": (says(figures=(figure(recipe=bytes(32)),)), "other-figures"),
    "a figure on another probe": (says(figures=(figure(probe=id_of(ENGINE)[0]),)), "other-figures"),
    "a figure of another set": (says(figures=(figure(name="fidelity/other"),)), "other-figures"),
    "no figure": (says(figures=()), "other-figures"),
    "one figure more": (says(figures=(figure(), figure(name="recall@1/embedder"))), "other-figures"),
    "a card of another engine": (with_card(parts={"model": ["ab" * 32, 1]}), "bad-card"),
    "a card of another key": (with_card(recipe=Recipe({**orders.FIELDS, "salt": "x"})), "bad-card"),
    "a card of another need": (with_card(need="cpu"), "bad-card"),
    "a card of an engine that nothing ran": (with_card(check=check(of="network")), "unproven"),
    "a card of an engine that is far from its source": (
        with_card(check=check(cases=(replace(check().cases[0], max_abs_error=0.4),))),
        "wrong-output",
    ),
    "a card whose figures are not of this order's tolerance": (
        with_card(check=check(cases=(replace(check().cases[0], cosine=0.9),)), tolerance=card().tolerance),
        "wrong-output",
    ),
    "a card that compared nothing": (with_card(check=check(cases=())), "wrong-output"),
    "no card": (says(card=id_of(ENGINE)), "bad-card"),
    "a bit of the card": (object_of_stick(card().render(), lambda data: data[:-2] + b"x}"), "bit-flip"),
    "a bit of the engine": (object_of_stick(ENGINE, lambda data: b"b" + data[1:]), "bit-flip"),
    "the engine is shorter": (object_of_stick(ENGINE, lambda data: data[1:]), "bit-flip"),
    "the engine is longer": (object_of_stick(ENGINE, lambda data: data + b"x"), "bit-flip"),
    "the weights are gone": (object_of_stick(WEIGHTS, None), "missing"),
    "an engine of another size": (says(engine=(id_of(ENGINE), (id_of(WEIGHTS)[0], 3))), "bad-card"),
    "engine and weights exchanged": (says(engine=(id_of(WEIGHTS), id_of(ENGINE))), "bad-card"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_its_kind_and_changes_nothing(trip: Trip, name: str) -> None:
    attack, kind = ATTACKS[name]
    attack(trip)
    before = listing(trip.ground, but=("index", "lock", "tmp"))
    (one,) = accepted(trip)
    assert one.error is not None
    assert (one.outcome, one.error.kind) == ("refused", kind), one.error.message
    after = listing(trip.ground, but=("index", "lock", "tmp"))
    assert after == before
    assert (measured(trip), found(trip)) == (None, (None, None))


def test_what_is_refused_keeps_nothing_back(trip: Trip) -> None:
    trip.fulfil(b"no result", key=OTHER_KEY)
    outcomes = {one.key: one.outcome for one in accepted(trip)}
    assert outcomes == {OTHER_KEY: "refused", ORDER.key: "accepted"}
