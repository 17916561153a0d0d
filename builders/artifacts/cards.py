"""Engine cards of a store: those of a published mission, which the store has verified, or the card of a build key."""

from __future__ import annotations

from contextlib import suppress

from builders.artifacts.store import lookup_of
from builders.artifacts.task import StoredObjects
from builders.engines.card import CARD_LIMIT, Card
from store.disk.index import open_index_for_reading
from store.disk.layout import RESULTS
from store.errors import Corrupt, FlightbagError, NotFound, instead_of
from store.format.ids import BuildKey, begun_by, is_hex
from store.ground.orders import keys_in
from store.ground.repository import Repository
from store.takeoff.engines import engine_for, engines_of


def cards_of_mission(repository: Repository, mission: str) -> dict[str, Card]:
    """Return the cards of a mission's engines, by the names of the engines. Raise NotFound for a mission without cards,
    and what `Repository.current` raises."""
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
        raise NotFound(
            f"mission {mission} has no engine cards: an earlier version built it",
            remedy="build the mission again",
            mission=mission,
        )
    return cards


def card_of_backbone(repository: Repository, mission: str, backbone: str, host: str | None = None) -> Card:
    """Return the card of the engine of a backbone that a host of this class loads; with one engine the host may be
    None. Raise NotFound for a mission without such an engine."""
    every = engines_of(repository.current(mission).table.entries)
    engines = every.get(backbone, ())
    engine = engine_for(engines, host) if host is not None else engines[0] if len(engines) == 1 else None
    if not engines:
        raise NotFound(
            f"mission {mission} has no engine of a backbone {backbone}",
            remedy=instead_of(backbone, list(every)) or "build the mission with an engine",
            mission=mission,
            backbone=backbone,
        )
    if engine is None:
        needs = ", ".join(engine.need for engine in engines)
        raise NotFound(
            f"mission {mission} has {len(engines)} engines of the backbone {backbone}, of which none is for "
            f"{host or 'every host'}",
            remedy=f"name a host class with --host: they need {needs}",
            mission=mission,
            backbone=backbone,
        )
    return cards_of_mission(repository, mission)[engine.name]


def key_named(repository: Repository, text: str) -> BuildKey:
    """Return the build key that is or begins with `text`: of an engine that a mission has, else of anything that the
    store was told to have built. A whole key is not looked for. Raise as `begun_by`."""
    if is_hex(text):
        return BuildKey.parse(text)
    engines = set(keys_in(repository.media, RESULTS))
    for mission in repository.missions():
        with suppress(FlightbagError):  # `engines show MISSION` says what is wrong with it
            engines |= {
                entry.key for entry in repository.current(mission).table.entries if entry.kind == "card" and entry.key
            }
    try:
        return begun_by(text, engines, "engine")
    except NotFound:
        index = open_index_for_reading(repository.media)
        if index is None:
            raise
        with index:
            recorded = index.keys(int(text[:2], 16))
        if not any(key.hex().startswith(text.lower()) for key in recorded):
            raise
        return begun_by(text, recorded, "build key")


def card_of_key(repository: Repository, key: BuildKey) -> Card:
    """Return the card of the engine that was built for a key. Raise NotFound where the store has none."""
    with lookup_of(repository) as lookup:
        objects = lookup(key)
    if objects is None or len(objects) not in (2, 3):
        raise NotFound(
            f"the store has no engine of the key {key}",
            remedy="`flightbag explain-key` shows the keys of a mission file, `flightbag engines build` builds them",
            key=str(key),
        )
    return _card(repository, key, objects)


def _card(repository: Repository, key: BuildKey, objects: StoredObjects) -> Card:
    """Return the card among these objects. Raise Corrupt where it describes another engine."""
    card = Card.parse(repository.evidence.object(objects[0][0], CARD_LIMIT))
    if not card.describes(key, objects[1:]):
        raise Corrupt(f"the card {objects[0][0]} is not that of the engine with the key {key}", kind="bad-card")
    return card
