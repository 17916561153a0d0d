"""Cards: only the card of exactly this engine is shown for it."""

from __future__ import annotations

import pytest

from builders.artifacts.cards import card_of_backbone, card_of_key, cards_of_mission
from builders.artifacts.store import ArtifactStore
from store.errors import Corrupt, NotFound
from store.format.entries import Entry
from store.format.ids import BuildKey
from store.ground.repository import Repository
from store.ground.writer import writing
from tests.support.field import Desk
from tests.support.missions import build_key


def entries(repository: Repository) -> dict[str, Entry]:
    return {entry.kind: entry for entry in repository.current("left").table.entries}


def key_of(entry: Entry) -> BuildKey:
    assert entry.key is not None
    return entry.key


def test_an_engine_has_one_card_by_mission_backbone_and_key(built: Desk) -> None:
    with Repository.open(built.store) as repository:
        engine = entries(repository)["engine"]
        card = cards_of_mission(repository, "left")[engine.name]
        assert card == card_of_backbone(repository, "left", "embedder") == card_of_key(repository, key_of(engine))
        for backbone in ("embed", "embedder2", "", "engines"):
            with pytest.raises(NotFound):
                card_of_backbone(repository, "left", backbone)


def test_a_key_of_something_else_has_no_card(built: Desk) -> None:
    """A shard and a probe have one object, an engine a card and one part or two."""
    with Repository.open(built.store) as repository:
        for kind in ("descriptors", "probe"):
            with pytest.raises(NotFound):
                card_of_key(repository, key_of(entries(repository)[kind]))
        with pytest.raises(NotFound):
            card_of_key(repository, build_key("nothing"))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_record_with_another_card_is_not_believed(built: Desk, count: int) -> None:
    """The record of another key names this card, with so many objects: it describes none of them."""
    with Repository.open(built.store) as repository:
        found = entries(repository)
        others = [found[kind].id for kind in ("engine", "probe", "file")]
        with writing(repository) as writer:
            ids = (found["card"].id, *others)[:count]
            ArtifactStore(writer, 0).remember({build_key("other"): (ids, 1.0)}, "tests")
        with pytest.raises(Corrupt if count in (2, 3) else NotFound):
            card_of_key(repository, build_key("other"))
