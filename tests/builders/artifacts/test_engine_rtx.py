"""An engine of TensorRT for RTX from a mission file, over the vendor's real library, on a laptop without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from builders.compose import open_context
from builders.orchestrator import prepare
from store.disk.media import object_path
from store.errors import Refused, Unavailable
from store.format.ids import ObjectId
from tests.builders.artifacts.test_engine import NOW, Shop
from tests.support import bindings
from tests.support.field import Desk

HOST = "sm89+trtrtx-1.7.1.116"


@pytest.fixture
def shop(desk: Desk, tmp_path: Path) -> Iterator[Shop]:
    """A mission with an int8 engine, for an aircraft with an RTX GPU."""
    with bindings.reachable(bindings.RTX):
        made = Shop(desk, desk.write_mission("left", files=()), tmp_path / "cache")
        made.become("int8")
        made.edit(('backend = "onnxruntime"', 'backend = "tensorrt-rtx"'))
        yield made


def test_an_engine_is_built_for_an_aircraft_that_this_machine_is_not(shop: Shop) -> None:
    with pytest.raises(Unavailable):  # host = "auto": this machine, of which nothing is known
        shop.engines()
    shop.edit(('host = "auto"', f'host = "{HOST}"'))
    built = shop.engine("built")
    assert built.entry == "engines/embedder/tensorrt-rtx1.7.1.116__sm89_trtrtx-1.7.1.116__int8.engine"
    card = built.card
    assert card is not None
    assert (card.need, card.proven, card.check.inputs) == (HOST, False, "tiles")
    assert 0 < card.check.worst.relative_error < 0.5
    assert card.recipe.fields["version"] == "1.7.1.116"
    id_, size = card.parts["model"]
    data = (shop.store / object_path(ObjectId(bytes.fromhex(id_)))).read_bytes()
    assert (len(data), data[:4]) == (size, b"vtrt")
    again = shop.engine("reused")
    assert (again.key, again.card) == (built.key, card)
    # A mission with it is refused, unless each aircraft proves it.
    with open_context(shop.file, shop.store, shop.cache) as context, pytest.raises(Refused) as caught:
        prepare(context, keys=1, now=NOW)
    assert caught.value.kind == "unproven"
    assert "this machine does not run the engine" in caught.value.message
