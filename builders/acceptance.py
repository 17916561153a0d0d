"""On the ground: takes the results of orders from a store that came back from a device (FORMAT.md 5.3).

The medium is input from outside. A result is read within bounds and counts only under this store's own newest trust
root; it must be of exactly the order that this store has; and nothing that it names is parsed before its hash holds.
What is refused stays where it is, and keeps nothing else back.

Order: the objects; the build record; the pointer of the result; then the order goes. A crash anywhere leaves the order
open, or the result taken and the order open: then the next run takes the same result again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from builders.artifacts.store import ArtifactStore
from builders.engines.card import CARD_LIMIT, Card
from builders.engines.check import Tolerance, require_tolerance
from builders.engines.failures import failure
from store.disk.index import Record
from store.disk.layout import RESULTS
from store.disk.media import object_path
from store.errors import Corrupt, FlightbagError, NotFound, Refused
from store.format.ids import BuildKey, ObjectId
from store.format.manifest import ENVELOPE_LIMIT
from store.format.order import NANO, Order
from store.format.result import Result
from store.ground.needs import pinned_id
from store.ground.orders import close, holder_of, judge, keys_in, ordered_here, parsed_result, place, read_order
from store.ground.repository import Repository
from store.ground.writer import Writer, writing
from store.trust.root import TrustRoot


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What became of the result of a key: `accepted`, `accepted before`, or `refused` with the error."""

    key: BuildKey
    outcome: str
    backbone: str = ""
    result: Result | None = None
    error: FlightbagError | None = None


def accept(repository: Repository, stick: str | os.PathLike[str], *, now: int) -> list[Acceptance]:
    """Take every result in the store `stick` that this store has an order for. Return what became of each, ascending by
    key. `now` is unix seconds. Raise as `writing` does, and NoStore for a folder that is no store."""
    with Repository.open(stick) as source, writing(repository) as writer:
        root = repository.trust_root().root
        return [_accepted(writer, source, key, root, now) for key in keys_in(source.media, RESULTS)]


def _accepted(writer: Writer, source: Repository, key: BuildKey, root: TrustRoot, now: int) -> Acceptance:
    try:
        with ArtifactStore(writer, now).key_lock(key):
            return _accept(writer, source, key, root, now)
    except FlightbagError as error:
        return Acceptance(key, "refused", error=error)


def _accept(writer: Writer, source: Repository, key: BuildKey, root: TrustRoot, now: int) -> Acceptance:
    repository = writer.repository
    id_ = pinned_id(source.media, holder_of(RESULTS, key))
    data = source.evidence.object(id_, ENVELOPE_LIMIT)
    result = parsed_result(data, root)
    if result.key != key:
        text = f"{holder_of(RESULTS, key)} leads to the result of the key {result.key}"
        raise Corrupt(text, remedy="fulfil the order again", kind="other-key")
    try:
        order_id, order = read_order(repository.evidence, key)
    except NotFound:
        if _taken(repository, key) == id_:
            return Acceptance(key, "accepted before", result=result)
        raise NotFound(
            f"this store has no order of the key {key}",
            remedy="accept the result at the store that ordered it",
            kind="no-order",
        ) from None
    if ordered_here(repository.media, key) != order_id:
        text = f"the order of the key {key} came into this store from elsewhere"
        remedy = "order here with `flightbag engines order`, or accept the result at the store that ordered it"
        raise Refused(text, remedy=remedy, kind="foreign-order")
    judge(result, order, order_id)
    card = Card.parse(source.evidence.object(result.card[0], CARD_LIMIT))
    check_card(card, result, order)
    with writer.inserting() as batch:
        for one, size in (*result.objects, (id_, len(data))):
            batch.add(source.media.chunks(object_path(one), size), expect=one)
        batch.commit()
    record = Record(tuple(one for one, _ in result.objects), {"from": "result", "at": now})
    # What was recorded before is an engine that nothing had run, or that is lost: else nobody would have ordered.
    writer.record({key: record}, replace=True)
    place(repository, RESULTS, key, id_)
    close(repository, key)
    return Acceptance(key, "accepted", order.backbone, result)


def check_card(card: Card, result: Result, order: Order) -> None:
    """Raise Refused unless a card is of the engine of a result and of nothing else, and says that the engine ran and
    computes what its source does, as closely as the order demands."""
    if not card.describes(result.key, result.engine) or card.need != result.need:
        text = "the card of the result is that of another engine"
        raise Refused(text, remedy="fulfil the order again", kind="bad-card")
    if not card.proven:
        raise failure("unproven", "by the card of the result, nothing has run the engine", remedy="fulfil it again")
    error, cosine = order.tolerance
    require_tolerance(card.check, Tolerance(error / NANO, cosine / NANO))


def _taken(repository: Repository, key: BuildKey) -> ObjectId | None:
    try:
        return pinned_id(repository.media, holder_of(RESULTS, key))
    except (NotFound, Corrupt):
        return None
