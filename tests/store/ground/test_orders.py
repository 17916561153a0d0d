"""Orders and results in a store: a collection keeps them, an audit knows them, a sync carries them each its way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from store.disk.layout import ORDERS, RESULTS
from store.disk.media import object_path
from store.errors import Corrupt, NotFound, Refused, Untrusted
from store.format.ids import BuildKey, ObjectId
from store.ground.gc import collect
from store.ground.needs import UNKNOWN
from store.ground.orders import (
    accepted_result,
    close,
    holder_of,
    keys_in,
    order_need,
    place,
    read_order,
    read_result,
    result_need,
    signed_result,
)
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from tests.support import orders
from tests.support.commands import flightbag
from tests.support.missions import NOW, key
from tests.support.orders import CONTENTS, ENGINE, FLEET, ORDER, WEIGHTS, Trip, card, id_of, result, signed
from tests.support.stores import audit, file_of, flip

LONG_AFTER = NOW + 10**9
RESULT = signed(result().render(), "orin")


@pytest.fixture
def trip(tmp_path: Path) -> Trip:
    """The order is open on the ground, and fulfilled on the stick."""
    trip = Trip(tmp_path).begin()
    trip.fulfil()
    return trip


def collected(store: Path) -> int:
    with Repository.open(store) as repository:
        return len(collect(repository, now=LONG_AFTER, grace=0).trash)


def kinds(store: Path, **options: bool) -> set[str]:
    return {one.kind for one in audit(store, **options).findings if not one.information}


def synced(source: Path, target: Path, *missions: str) -> tuple[str, ...]:
    """Sync, and return the pointers that were brought."""
    with Repository.open(source) as of:
        if target.exists():
            with Repository.open(target) as to:
                plan = plan_sync(of, to, missions)
        else:
            plan = plan_sync(of, None, missions)
        apply_sync(plan, of, target)
    return tuple(file.name for file in plan.files)


class TestReading:
    def test_an_order_is_of_its_key(self, trip: Trip) -> None:
        with Repository.open(trip.ground) as repository:
            assert read_order(repository.evidence, ORDER.key) == (id_of(ORDER.render())[0], ORDER)
            assert keys_in(repository.media, ORDERS) == [ORDER.key]
            other = BuildKey(bytes(32))
            with pytest.raises(NotFound) as absent:
                read_order(repository.evidence, other)
            assert absent.value.kind == "no-order"
            place(repository, ORDERS, other, id_of(ORDER.render())[0])
            with pytest.raises(Corrupt) as wrong:
                read_order(repository.evidence, other)
            assert wrong.value.kind == "bad-order"

    def test_a_result_is_of_its_key_and_signed(self, trip: Trip) -> None:
        with Repository.open(trip.stick) as repository:
            assert read_result(repository.evidence, ORDER.key, FLEET) == result()
            with pytest.raises(NotFound, match="not accepted yet"):
                accepted_result(repository.evidence, ORDER.key, FLEET)
            close(repository, ORDER.key)
            assert accepted_result(repository.evidence, ORDER.key, FLEET) == result()
            close(repository, ORDER.key)
            place(repository, RESULTS, BuildKey(bytes(32)), ObjectId.of(RESULT))
            with pytest.raises(Corrupt) as wrong:
                read_result(repository.evidence, BuildKey(bytes(32)), FLEET)
            assert wrong.value.kind == "other-key"
        with Repository.open(trip.ground) as repository, pytest.raises(NotFound) as absent:
            read_result(repository.evidence, ORDER.key, FLEET)
        assert absent.value.kind == "no-result"

    def test_only_builders_sign_results(self) -> None:
        assert signed_result(result(), [key("orin")], FLEET) == RESULT
        for name in ("pilot", "lab", "root-a", "nobody"):
            with pytest.raises(Untrusted) as caught:
                signed_result(result(), [key(name)], FLEET)
            assert caught.value.kind == "unknown-signer"
        with pytest.raises(Untrusted) as nobody:
            signed_result(result(), [], FLEET)
        assert nobody.value.kind == "threshold"


@pytest.mark.parametrize("folder", [ORDERS, RESULTS])
def test_a_sync_brings_no_more_than_a_folder_may_have(trip: Trip, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can make orders, and nobody reads a folder with too many: neither syncs nor collections go on then."""
    monkeypatch.setattr("store.ground.orders.FOLDER_LIMIT", 1)
    target = trip.folder / "target"
    assert synced(trip.ground, target) == (f"{ORDERS}/{ORDER.key}",)
    if folder == ORDERS:
        (target / ORDERS / str(ORDER.key)).rename(target / ORDERS / ("0" * 64))
    else:
        (target / RESULTS).mkdir()
        (target / RESULTS / ("0" * 64)).touch()
    assert synced(trip.stick, target) == ()
    (target / folder / ("0" * 64)).unlink()
    assert f"{folder}/{ORDER.key}" in synced(trip.stick, target)


class TestACollectionKeeps:
    def test_all_that_an_open_order_names(self, trip: Trip) -> None:
        assert collected(trip.ground) == 0
        with Repository.open(trip.ground) as repository:
            assert dict(order_need(repository.evidence, ORDER.key)) == {
                **ORDER.objects,
                id_of(ORDER.render())[0]: len(ORDER.render()),
            }
            close(repository, ORDER.key)
        assert collected(trip.ground) == len(ORDER.objects) + 1

    def test_result_card_and_engine(self, trip: Trip) -> None:
        with Repository.open(trip.stick) as repository:
            close(repository, ORDER.key)
            of_result = dict(map(id_of, (RESULT, card().render(), ENGINE, WEIGHTS)))
            need = dict(result_need(repository.evidence, ORDER.key))
            assert need == {**of_result, ORDER.probes[0].probe: UNKNOWN}
        assert collected(trip.stick) == len(ORDER.objects)
        assert kinds(trip.stick) == set()

    @pytest.mark.parametrize("folder", [ORDERS, RESULTS])
    def test_everything_where_one_cannot_be_read(self, trip: Trip, folder: str) -> None:
        (trip.stick / holder_of(folder, ORDER.key)).write_text("x" * 65)
        with pytest.raises(Refused, match=folder) as caught:
            collected(trip.stick)
        assert caught.value.kind == "needs-unknown"
        (trip.stick / holder_of(folder, ORDER.key)).unlink()  # as the remedy has it
        collected(trip.stick)


class TestAnAudit:
    def test_finds_nothing_wrong(self, trip: Trip) -> None:
        assert kinds(trip.ground) == kinds(trip.stick) == set()
        assert not [one for one in audit(trip.stick).findings if one.kind in ("unreferenced", "stray")]

    @pytest.mark.parametrize("data", [*CONTENTS, ORDER.render(), RESULT, card().render()])
    def test_misses_what_they_name(self, trip: Trip, data: bytes) -> None:
        file_of(trip.stick, ObjectId.of(data)).unlink()
        assert kinds(trip.stick) & {"missing", "incomplete-closure"}

    def test_finds_a_bit_that_flipped(self, trip: Trip) -> None:
        flip(file_of(trip.stick, id_of(ENGINE)[0]))
        assert kinds(trip.stick) == {"bit-flip"}

    @pytest.mark.parametrize("folder", [ORDERS, RESULTS])
    def test_finds_a_pointer_that_leads_elsewhere(self, trip: Trip, folder: str) -> None:
        (trip.stick / holder_of(folder, ORDER.key)).write_text(f"{id_of(ENGINE)[0]}\n")
        assert kinds(trip.stick) == {"bad-ref"}

    @pytest.mark.parametrize("folder", [ORDERS, RESULTS])
    @pytest.mark.parametrize("name", ["north-ridge", "0" * 63, "A" * 64])
    def test_knows_no_other_name_there(self, trip: Trip, folder: str, name: str) -> None:
        shutil.copyfile(trip.stick / holder_of(folder, ORDER.key), trip.stick / folder / name)
        assert kinds(trip.stick) == {"stray"}

    def test_of_an_aircraft_wants_neither(self, trip: Trip) -> None:
        from store.audit.fsck import fsck
        from store.audit.scope import Scope
        from store.disk.media import Media

        with Media(trip.stick) as media:
            findings = fsck(media, Scope("quick", exclusive=True)).findings
        holders = {one.path.removeprefix(f"{trip.stick}/") for one in findings if one.kind == "unreferenced"}
        assert {holder_of(ORDERS, ORDER.key), holder_of(RESULTS, ORDER.key)} <= holders


class TestASync:
    def test_carries_orders_to_the_device_and_results_back(self, trip: Trip, tmp_path: Path) -> None:
        order, of = holder_of(ORDERS, ORDER.key), holder_of(RESULTS, ORDER.key)
        device, carried = tmp_path / "device", tmp_path / "carried"
        assert synced(trip.ground, device) == (order,)
        assert synced(trip.ground, device) == ()
        shutil.copytree(trip.stick / "objects", device / "objects", dirs_exist_ok=True)
        with Repository.open(device) as repository:
            place(repository, RESULTS, ORDER.key, ObjectId.of(RESULT))
        assert synced(trip.ground, carried) == (order,)
        assert synced(device, carried) == (of,)
        assert kinds(carried) == set()
        assert synced(carried, trip.ground) == (of,)
        with Repository.open(trip.ground) as repository, pytest.raises(NotFound, match="not accepted"):
            accepted_result(repository.evidence, ORDER.key, FLEET)

    def test_opens_no_order_again_that_was_taken(self, trip: Trip) -> None:
        shutil.copytree(trip.stick, trip.ground, dirs_exist_ok=True)
        with Repository.open(trip.ground) as repository:
            close(repository, ORDER.key)
        assert synced(trip.stick, trip.ground) == ()
        assert not trip.has(ORDERS)

    def test_brings_no_result_of_another_order(self, trip: Trip) -> None:
        with Repository.open(trip.ground) as repository:
            trip.order(orders.order(compare=("y",)), repository)
        assert synced(trip.stick, trip.ground) == ()

    def test_replaces_the_order_of_a_stick_and_none_of_a_planner(self, trip: Trip, tmp_path: Path) -> None:
        order, stick = holder_of(ORDERS, ORDER.key), tmp_path / "carried"
        assert synced(trip.ground, stick) == (order,)
        with Repository.open(trip.ground) as repository:
            newer = trip.order(orders.order(compare=("y",)), repository)
        assert synced(stick, trip.ground) == ()
        assert synced(trip.ground, stick) == (order,)
        assert (stick / order).read_text() == f"{newer}\n"

    def test_brings_no_result_that_nobody_ordered(self, trip: Trip, tmp_path: Path) -> None:
        (trip.stick / holder_of(ORDERS, ORDER.key)).unlink()
        assert synced(trip.stick, tmp_path / "other") == ()

    def test_brings_no_result_in_the_place_of_one_that_counts(self, trip: Trip) -> None:
        """A stick with an order that somebody else made, and what a device made of that."""
        shutil.copytree(trip.stick, trip.ground, dirs_exist_ok=True)
        with Repository.open(trip.ground) as repository:
            close(repository, ORDER.key)
        with Repository.open(trip.stick) as repository:
            planted = trip.order(orders.order(compare=("y",)), repository)
        trip.fulfil(signed(result(order=planted).render(), "orin"))
        assert holder_of(RESULTS, ORDER.key) not in synced(trip.stick, trip.ground)
        with Repository.open(trip.ground) as repository:
            assert accepted_result(repository.evidence, ORDER.key, FLEET) == result()

    def test_leaves_out_what_is_not_whole(self, trip: Trip, tmp_path: Path) -> None:
        flip(trip.ground / object_path(id_of(ORDER.render())[0]))
        assert synced(trip.ground, tmp_path / "other") == ()


@pytest.mark.parametrize("data", [CONTENTS[2], ORDER.render()])
def test_a_repair_fetches_what_an_order_needs(trip: Trip, data: bytes) -> None:
    file_of(trip.ground, ObjectId.of(data)).unlink()
    assert flightbag("fsck", trip.ground, "--full", "--repair", "--from", trip.stick).status == 1
    assert kinds(trip.ground) == set()
    with Repository.open(trip.ground) as repository:
        assert read_order(repository.evidence, ORDER.key)[1] == ORDER
