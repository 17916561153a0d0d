"""A ground store with an open order, and the stick that a device has fulfilled it on: small, with an engine that is
bytes, as nothing runs it here. `Trip` makes both; each part of a result can be another."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from builders.engines.card import Card
from builders.engines.check import CaseFigures, CheckFigures, Tolerance
from builders.recipe import Recipe
from store.disk.layout import RESULTS
from store.disk.objects import inserting
from store.format.cbor import encode
from store.format.ids import BuildKey, ObjectId
from store.format.order import MODEL, Order, OrderFile, OrderProbe
from store.format.result import AAD_LABEL, CONTENT_TYPE, Result, ResultFigure
from store.ground.orders import holder_of, open_order, place
from store.ground.repository import Repository
from store.ground.trust_chain import rotate
from store.trust.root import TrustRoot
from tests.support.missions import NOW, ROOT, next_root, role, root_draft, sign_payload, sign_root

# The domain of the tests, with a device that makes engines.
FLEET = replace(ROOT, builder=role("orin"))
NEED = "cpu-x86_64-avx2+ort-1.22.0"
DEVICE = f"{NEED}+sm87"
FIELDS: dict[str, Any] = {
    "schema": "flightbag/engine/4",
    "backend": "onnxruntime",
    "host": NEED,
    "version": "1.22.0",
    "model": bytes(32),
}
ENGINE, WEIGHTS, NETWORK, SOURCE, PROBE = b"an engine", b"its weights", b"a network", b"a source", b"a probe"
_CHECK = CheckFigures((CaseFigures({"x": (1, 4)}, 1e-7, 0.5, 0.99999),), outputs=("y",))


def id_of(data: bytes) -> tuple[ObjectId, int]:
    return ObjectId.of(data), len(data)


def file(name: str, data: bytes) -> OrderFile:
    return OrderFile(name, *id_of(data))


def order(**changes: Any) -> Order:
    """An order of a fast engine, with one probe."""
    usual = Order(
        recipe=encode(FIELDS),
        steps=(),
        backbone="embedder",
        network=(file(MODEL, NETWORK),),
        source=(file(MODEL, SOURCE),),
        compare=(),
        tolerance=(1_000_000, 999_900_000),
        probes=(OrderProbe("embedder", *id_of(PROBE), bytes([7]) * 32, 999_900),),
    )
    return replace(usual, **changes)


ORDER = order()
CONTENTS = (ENGINE, WEIGHTS, NETWORK, SOURCE, PROBE)


def card(**changes: Any) -> Card:
    """The card that a device makes of ORDER."""
    usual = Card(
        recipe=Recipe(FIELDS),
        steps={},
        parts={"model": [str(id_of(ENGINE)[0]), len(ENGINE)], "weights": [str(id_of(WEIGHTS)[0]), len(WEIGHTS)]},
        need=NEED,
        inputs=[["x", "float32", ["N", 4]]],
        outputs=[["y", "float32", ["N", 4]]],
        check=_CHECK,
        tolerance=Tolerance(1e-3, 0.9999),
        tools={"onnxruntime": "1.22.0"},
        inspector=None,
        seconds=1.5,
    )
    return replace(usual, **changes)


def check(**changes: Any) -> CheckFigures:
    return replace(_CHECK, **changes)


def figure(**changes: Any) -> ResultFigure:
    asked = ORDER.probes[0]
    return replace(ResultFigure(asked.figure, 999_950, asked.least, 8, asked.recipe, asked.probe), **changes)


def result(**changes: Any) -> Result:
    """What a device says of ORDER."""
    usual = Result(
        order=id_of(ORDER.render())[0],
        key=ORDER.key,
        host=DEVICE,
        need=NEED,
        card=id_of(card().render()),
        engine=(id_of(ENGINE), id_of(WEIGHTS)),
        figures=(figure(),),
        issued_at=NOW,
    )
    return replace(usual, **changes)


def signed(payload: bytes, *names: str, root: TrustRoot = FLEET) -> bytes:
    """The envelope of a result, signed by the keys of these names."""
    return sign_payload(payload, CONTENT_TYPE, root.aad(AAD_LABEL), names)


def insert(repository: Repository, *contents: bytes) -> list[ObjectId]:
    with inserting(repository.media, repository.disk, None) as batch:
        added = [batch.add_bytes(data).id for data in contents]
        batch.commit()
    return added


@dataclass(frozen=True)
class Trip:
    """The ground store `ground` with the order open, and `stick`, a copy of it on which a device is at work."""

    folder: Path
    root: TrustRoot = FLEET
    contents: Sequence[bytes] = field(default=CONTENTS)

    @property
    def ground(self) -> Path:
        return self.folder / "ground"

    @property
    def stick(self) -> Path:
        return self.folder / "stick"

    def begin(self, order: Order = ORDER) -> Trip:
        """Make both stores, with the order."""
        with Repository.init(self.ground) as repository:
            rotate(repository, root_draft(sign_root(self.root, "root-a")), now=NOW)
            self.order(order, repository)
        shutil.copytree(self.ground, self.stick)
        return self

    def fulfil(
        self, data: bytes | None = None, *, card: bytes = card().render(), key: BuildKey = ORDER.key
    ) -> ObjectId:
        """Put engine, card and a result on the stick, as a device does; `data` is another result."""
        if data is None:
            data = signed(result().render(), "orin")
        with Repository.open(self.stick) as repository:
            insert(repository, *self.contents[:2], card, data)
            place(repository, RESULTS, key, ObjectId.of(data))
        return ObjectId.of(data)

    def order(self, order: Order, repository: Repository) -> ObjectId:
        """Open an order in a store, as `engines order` does."""
        insert(repository, *self.contents[2:], data := order.render())
        open_order(repository, order, ObjectId.of(data), now=NOW)
        return ObjectId.of(data)

    def rotate(self, **changes: Any) -> None:
        """Give the ground store a newer trust root."""
        with Repository.open(self.ground) as repository:
            before = repository.trust_root()
            draft = root_draft(sign_root(next_root(before.root, **changes), "root-a"))
            rotate(repository, replace(draft, before=before), now=NOW)

    def has(self, folder: str, key: BuildKey = ORDER.key, store: Path | None = None) -> bool:
        return ((store or self.ground) / holder_of(folder, key)).is_file()
