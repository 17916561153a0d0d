"""Reading engine cards out of a store: those of a published mission, verified as the store verifies it, or of a key."""

from __future__ import annotations

from builders.artifacts.store import lookup_of
from builders.artifacts.task import StoredObjects
from builders.engines.card import CARD_LIMIT, Card
from store.errors import Corrupt, NotFound
from store.format.ids import BuildKey
from store.ground.repository import Repository


def cards_of_mission(repository: Repository, mission: str) -> dict[str, Card]:
    """The cards of a mission's engines by the names of those. Raises NotFound where it has none, and what
    `Repository.current` raises."""
    opened = repository.current(mission)
    cards = {}
    for entry in opened.table.entries:
        if entry.kind != "card" or entry.key is None:
            continue
        name = entry.meta["engine"]
        weights = f"{name.rpartition('.')[0]}.weights"
        parts = [
            (e.id, e.size) for e in map(opened.table.find, (name, weights)) if e is not None and e.key == entry.key
        ]
        cards[name] = _card(repository, entry.key, ((entry.id, entry.size), *parts))
    if not cards:
        raise NotFound(f"mission {mission} has no engine cards: it was built by an earlier version", mission=mission)
    return cards


def cards_of_backbone(repository: Repository, mission: str, backbone: str) -> Card:
    """The card of the engine of a backbone. Raises NotFound where the mission has none of that name."""
    for name, card in cards_of_mission(repository, mission).items():
        if name.startswith(f"engines/{backbone}/"):
            return card
    raise NotFound(f"mission {mission} has no engine of a backbone {backbone}", mission=mission, backbone=backbone)


def card_of_key(repository: Repository, key: BuildKey) -> Card:
    """The card of what was built for a key. Raises NotFound where nothing was, or no engine."""
    with lookup_of(repository) as lookup:
        objects = lookup(key)
    if objects is None or len(objects) not in (2, 3):
        raise NotFound(f"no engine was built for the key {key}, or it is there no more", key=str(key))
    return _card(repository, key, objects)


def _card(repository: Repository, key: BuildKey, objects: StoredObjects) -> Card:
    """The card of these objects. Raises Corrupt where it is that of another engine."""
    card = Card.parse(repository.evidence.object(objects[0][0], CARD_LIMIT))
    if not card.describes(key, objects[1:]):
        raise Corrupt(f"the card {objects[0][0]} is not that of the engine with the key {key}", kind="bad-card")
    return card
