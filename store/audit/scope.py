"""The scope of an audit: what it examines, and how much it reads."""

from __future__ import annotations

from typing import Literal

from store.errors import Invalid
from store.format.manifest import MISSION_ID, MISSION_ID_REMEDY
from store.values import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of an audit.

    `amount` is the fraction of the objects that a `sample` reads, above 0 and at most 1, or the seconds of a `budget`.
    With `mission`, the audit examines only the needs of that mission. With `exclusive`, everything outside of all
    closures is an error: so an aircraft's store is audited for objects that somebody smuggled in.
    """

    read: Literal["quick", "full", "sample", "budget"] = "quick"
    amount: float = 0
    mission: str = ""
    exclusive: bool = False

    def __post_init__(self) -> None:
        if self.read == "sample" and not 0 < self.amount <= 1:
            raise Invalid("a sample must be more than 0 % and at most 100 %", remedy="give a percentage like 10%")
        if self.read == "budget" and not self.amount > 0:
            raise Invalid("a budget must be more than 0 seconds", remedy="give a duration like 60s")
        if self.mission and not MISSION_ID.fullmatch(self.mission):
            raise Invalid(f"{self.mission[:80]!r} is not a valid mission id", remedy=MISSION_ID_REMEDY)
        if self.mission and self.exclusive:
            text = "--exclusive compares the store with all missions, so it excludes --mission"
            raise Invalid(text, remedy="leave one of them out")


QUICK, FULL = Scope(), Scope("full")
