"""Durations as people write them: 90s, 15m, 72h, 14d. In bytes a duration is whole seconds.

Law: `seconds_of(duration_text(s)) == s`.
"""

from __future__ import annotations

import re

from store.errors import Invalid
from store.format.manifest import TIME_MAX

_RIGHT = "a duration like 60s, 15m, 12h or 14d"
_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)([smhd])")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration. Raise Invalid for any other text."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Invalid(f"{text[:80]!r} is not a duration", remedy=f"give {_RIGHT}")
    return float(match[1]) * _UNITS[match[2]]


def lifetime_of(text: str) -> int:
    """Return the seconds of how long a mission is valid: whole ones, 1 to TIME_MAX. Raise Invalid for any other
    text."""
    seconds = seconds_of(text)
    if not seconds.is_integer() or not 1 <= seconds <= TIME_MAX:
        raise Invalid(f"{text!r} is not a length of whole seconds before the year 9999", remedy=f"give {_RIGHT}")
    return int(seconds)


def duration_text(seconds: int) -> str:
    """Return whole seconds in the greatest unit that divides them: 259200 is 3d."""
    unit = next(unit for unit, size in _UNITS.items() if seconds % size == 0)
    return f"{seconds // _UNITS[unit]}{unit}"
