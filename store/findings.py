"""What verify and fsck have to say: one finding a thing, for people and for machines.

Kinds are append-only and documented in FORMAT.md; a program may rely on them, never on the words.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from store.errors import FlightbagError, Unavailable

COPY_AGAIN = "copy the store again, or sync it with --checksum from one that is whole"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or that could not be looked at (`unreadable`).

    `step` is the step of the takeoff check, empty in fsck. `missions` are those that the finding grounds;
    `information` marks what grounds nothing.
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
        """The finding that an error amounts to. An error without a kind of its own is a malformed thing."""
        fields = error.fields
        return cls(
            kind=error.kind or "malformed",
            message=error.message,
            step=step,
            object=error.object_id,
            entry=entry or str(fields.get("entry", "")),
            path=str(fields.get("path", "")),
            expected=str(fields.get("expected", "")),
            actual=str(fields.get("actual", "")),
            remedy=error.remedy or remedy,
            missions=missions,
            unreadable=isinstance(error, Unavailable),
        )

    def as_json(self) -> dict[str, Any]:
        """The fields that say something."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), False)}
