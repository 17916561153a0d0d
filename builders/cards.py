"""Reading engine cards out of a store: those of a published mission, verified as the store verifies it, or of a key."""

from __future__ import annotations

from builders.engines.card import Card
from builders.plan import looking
from store.errors import NotFound
from store.format.ids import BuildKey
from store.repository import Repository


def cards_of_mission(repository: Repository, mission: str) -> dict[str, Card]:
    """The cards of a mission's engines by the names of those. Raises NotFound where it has none, and what
    `Repository.current` raises."""
    opened = repository.current(mission)
    cards = {
        entry.meta["engine"]: Card.parse(repository.evidence.bytes_of(entry.id, entry.size))
        for entry in opened.table.entries
        if entry.kind == "card"
    }
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
    with looking(repository) as lookup:
        found = lookup(key)
    if found is None or len(found) not in (2, 3):
        raise NotFound(f"no engine was built for the key {key}, or it is there no more", key=str(key))
    return Card.parse(repository.evidence.bytes_of(*found[0]))
