"""Findings: what the takeoff check and fsck report, one finding for each damaged thing, for people and for machines.

The kinds are append-only and listed in FORMAT.md 7 and 8. A program may rely on a kind, never on the words of a
message. A finding is a value: this module reads no file and decides nothing about a mission.
"""

from __future__ import annotations

from typing import Any

from store.errors import FlightbagError, Unavailable
from store.values import dataclass

COPY_AGAIN = "copy the store again, or run `flightbag sync --checksum` from a whole copy"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that could not be read (`unreadable`).

    `step` is the step of the takeoff check (A to G), "" in fsck. `missions` are the ids of the missions that the
    finding grounds. `information` marks a finding that grounds no mission.
    """

    kind: str
    message: str
    step: str = ""
    object: str = ""
    entry: str = ""
    path: str = ""
    expected: str = ""
    actual: str = ""
    remedy: str = ""
    missions: tuple[str, ...] = ()
    unreadable: bool = False
    information: bool = False

    @classmethod
    def of(
        cls, error: FlightbagError, *, step: str = "", entry: str = "", remedy: str = "", missions: tuple[str, ...] = ()
    ) -> Finding:
        """Return the finding that an error amounts to. An error without a kind is `malformed`, an Unavailable one
        `unreadable`.

        `entry` goes before the entry that the error names; `remedy` counts only where the error has none.
        """
        fields, unreadable = error.fields, isinstance(error, Unavailable)
        return cls(
            kind=error.kind or ("unreadable" if unreadable else "malformed"),
            message=error.message,
            step=step,
            object=error.object_id,
            entry=entry or str(fields.get("entry", "")),
            path=str(fields.get("path", "")),
            expected=str(fields.get("expected", "")),
            actual=str(fields.get("actual", "")),
            remedy=error.remedy or remedy,
            missions=missions,
            unreadable=unreadable,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the fields whose values are neither empty nor false."""
        values = ((name, getattr(self, name)) for name in self.__match_args__)
        return {name: value for name, value in values if value not in ("", (), False)}
