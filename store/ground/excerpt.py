"""The first few of many names or reasons, for a message that stays readable."""

from __future__ import annotations

from collections.abc import Sequence


def first_few(items: Sequence[str], *, limit: int = 8, separator: str = "; ") -> str:
    """Return at most `limit` of the items, and the number of the others."""
    more = f"{separator}and {len(items) - limit} more" if len(items) > limit else ""
    return separator.join(items[:limit]) + more
