"""Durations as people write them: 90s, 15m, 72h, 14d. In bytes a duration is whole seconds.

Law: `seconds_of(duration_text(s)) == s`.
"""

from __future__ import annotations

import re

from store.errors import Invalid

DURATION_RIGHT = "a duration like 60s, 15m, 12h or 14d"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([smhd])")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration. Raise Invalid for any other text."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:80]!r} is not a duration", remedy=f"give {DURATION_RIGHT}")
    return float(match[1]) * _UNITS[match[2]]


def duration_text(seconds: int) -> str:
    """Return whole seconds in the greatest unit that divides them: 259200 is 3d."""
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
