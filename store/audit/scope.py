"""How much an audit looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from store.errors import Invalid
from store.format.manifest import MISSION_ID


@dataclass(frozen=True, slots=True)
class Scope:
    """What an audit looks at.

    `amount` is the fraction of the objects that a `sample` reads, above 0 and at most 1, and the seconds of a `budget`.
    With `mission`, only what that mission needs is looked at. `exclusive` makes errors of what no closure needs: how an
    aircraft's store is audited for objects that somebody smuggled in.
    """

    read: Literal["quick", "full", "sample", "budget"] = "quick"
    amount: float = 0
    mission: str = ""
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.read == "sample" and not 0 < self.amount <= 1:
            raise Invalid("a sample is more than 0 % and at most 100 %")
        if self.read == "budget" and not self.amount > 0:
            raise Invalid("a budget is more than 0 seconds")
        if self.mission and not MISSION_ID.fullmatch(self.mission):
            raise Invalid(f"{self.mission[:80]!r} is no mission id")
        if self.mission and self.exclusive:
            raise Invalid("what one mission needs says nothing of what else is there: --exclusive needs all missions")


QUICK, FULL = Scope(), Scope("full")
