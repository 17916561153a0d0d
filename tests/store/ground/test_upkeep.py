"""Upkeep of the index."""

from __future__ import annotations

from dataclasses import replace

from store.ground.upkeep import records_of
from tests.support.missions import (
    CONTENTS,
    build_key,
    entry,
    table_of,
)
from tests.support.stores import (
    ENGINE,
    NORTH,
)


def test_records_of_a_table() -> None:
    """Entries without a build key have no record; one key with two objects has both, each once."""
    two = entry("engines/net/two.onnx", b"two", key=build_key(ENGINE))
    again = entry("engines/net/three.onnx", b"two", key=build_key(ENGINE))
    table = replace(
        table_of(CONTENTS), entries=tuple(sorted([*table_of(CONTENTS).entries, two, again], key=lambda e: e.name))
    )
    records = records_of(table)
    assert set(records) == {build_key(name) for name in CONTENTS if not name.startswith("files/")}
    assert set(records[build_key(ENGINE)]) == {NORTH.entry(ENGINE).id, two.id}
    assert len(records[build_key(ENGINE)]) == 2
