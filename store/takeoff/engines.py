"""The engines of a mission, and the one of each backbone that a host loads (FORMAT.md 4.5). Pure.

A mission may have an engine for each of several host classes. The takeoff check, the figures and whoever opens an
engine all ask here which one flies: what was proven is what is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from store.format.entries import Entry
from store.format.host import fit
from store.format.ids import BuildKey
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine: the entries with its backbone and its build key, in the order of their names."""

    backbone: str
    key: BuildKey
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """The name that stands for it: that of its model, which is the first one."""
        return self.entries[0].name

    @property
    def need(self) -> str:
        """What it needs of a host; a writer gives all parts one need."""
        need: str = self.entries[0].meta["host"]
        return need

    def lacking(self, host: str) -> tuple[str, ...]:
        """Return the components of its need that a host of this class refuses."""
        return tuple({part: None for entry in self.entries for part in fit(host, entry.meta["host"]).lacking})

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """The order of the engines that a host takes; it loads the first."""
        return -len(self.need.split("+")), -len(self.need), bytes(self.key)


def engines_of(entries: Iterable[Entry]) -> Mapping[str, tuple[Engine, ...]]:
    """Return the engines of each backbone, both in the order of their first entries, which ascend by name."""
    parts: dict[str, dict[BuildKey, list[Entry]]] = {}
    for entry in entries:
        if entry.kind == "engine":
            assert entry.key is not None  # the kind is keyed
            parts.setdefault(entry.meta["backbone"], {}).setdefault(entry.key, []).append(entry)
    return {
        backbone: tuple(Engine(backbone, key, tuple(group)) for key, group in by_key.items())
        for backbone, by_key in parts.items()
    }


def engine_for(engines: Iterable[Engine], host: str) -> Engine | None:
    """Return the engine, of those of one backbone, that a host of this class loads; None where it takes none."""
    return min((engine for engine in engines if not engine.lacking(host)), key=lambda engine: engine.rank, default=None)
