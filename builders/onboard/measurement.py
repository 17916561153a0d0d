"""A figure of quality that is measured again, beside what the manifest signs for it (FORMAT.md 6.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from store.format.manifest import Figure
from store.takeoff.mission import VerifiedMission

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure measured again. Values are parts per million, rounded down.

    `value` is None where the figure was not measured. `signed` and `least` are its value and its lower bound in the
    manifest, None where the manifest has no such figure; a figure that nobody measured before (FORMAT.md 10.5) has a
    bound alone. `recipe` is how it was measured, b"" where it was not, and `same_recipe` holds where that is the way of
    the manifest. `zooms` maps each zoom to its value, `queries` is the number of queries that it rests on now.
    `missed` says of single queries, for people, what became of them.
    `chance` is what answers in a random order would reach, None where that says nothing.
    """

    name: str
    value: int | None
    signed: int | None
    least: int | None
    same_recipe: bool
    zooms: dict[int, int]
    queries: int = 0
    missed: tuple[str, ...] = ()
    chance: int | None = None
    recipe: bytes = b""

    @classmethod
    def of(
        cls,
        mission: VerifiedMission,
        name: str,
        value: int,
        recipe: bytes,
        zooms: dict[int, int],
        queries: int,
        *,
        chance: int | None = None,
    ) -> Self:
        """Return the measurement of the figure `name`, compared with the manifest's; `recipe` is its digest."""
        manifest = mission.manifest
        stated: list[tuple[int | None, int, bytes]] = []
        stated += [(one.value, one.least, one.recipe) for one in manifest.quality if one.name == name]
        stated += [(None, one.least, one.recipe) for one in manifest.unproven if one.name == name]
        # Another engine of the same descriptor set has another recipe.
        stated.sort(key=lambda one: one[2] != recipe)
        if not stated:
            return cls(name, value, None, None, False, zooms, queries, chance=chance, recipe=recipe)
        signed, least, own = stated[0]
        return cls(name, value, signed, least, own == recipe, zooms, queries, chance=chance, recipe=recipe)

    @classmethod
    def unmeasured(cls, figure: Figure) -> Self:
        """Return the measurement of a signed figure that nothing was measured for."""
        return cls(figure.name, None, figure.value, figure.least, False, {})

    @property
    def low(self) -> bool:
        """Whether the value is below the bound that the mission was signed with."""
        return self.value is not None and self.least is not None and self.value < self.least

    @property
    def unsure(self) -> bool:
        """Whether the signed figure is neither confirmed nor refuted: nothing was measured, or in another way."""
        return self.value is None or (self.least is not None and not self.same_recipe)

    @property
    def unproven(self) -> bool:
        """Whether the manifest has a bound on it and no value: nobody had measured it."""
        return self.least is not None and self.signed is None

    @property
    def holds(self) -> bool:
        """Whether the value was measured in the signed way and is not below its bound."""
        return not self.low and not self.unsure

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "signed": self.signed,
            "least": self.least,
            "same_recipe": self.same_recipe,
            "holds": self.holds,
            "queries": self.queries,
            "missed": list(self.missed),
            "chance": self.chance,
            "zooms": {str(zoom): value for zoom, value in self.zooms.items()},
        }
