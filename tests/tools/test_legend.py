"""The legend: no two reasons look alike, with colours or without."""

from __future__ import annotations

from store.format.missing import REASONS
from tools.legend import DESCRIBED, SIGNS, rgb


def test_every_reason_has_a_letter_a_pattern_and_a_colour_of_its_own() -> None:
    assert set(SIGNS) == {DESCRIBED, *REASONS}
    assert len({sign.letter for sign in SIGNS.values()}) == len(SIGNS)
    assert "T" not in {sign.letter for sign in SIGNS.values()}, "the takeoff"
    assert len({sign.colour for sign in SIGNS.values()}) == len(SIGNS)
    patterns = {_canonical(sign.bits) for sign in SIGNS.values()}
    assert len(patterns) == len(SIGNS), "patterns that are one pattern, moved"
    for name, sign in SIGNS.items():
        assert len(sign.bits) == 8
        assert (name == DESCRIBED) == (not any(sign.bits)), "only described tiles are plain"
        assert sign.bits.count(255) < 8
        light, dark = sorted((_luminance(sign.paper), _luminance(sign.ink)), reverse=True)
        assert name == DESCRIBED or (light + 0.05) / (dark + 0.05) >= 2, f"{name}: the pattern is to be seen"


def _canonical(bits: tuple[int, ...]) -> tuple[int, ...]:
    """The least of all moves of a pattern by whole pixels."""
    return min(
        tuple((row << right | row >> (8 - right)) & 255 for row in (*bits[down:], *bits[:down]))
        for right in range(8)
        for down in range(8)
    )


def _luminance(colour: str) -> float:
    """WCAG 2.2: of the colour of a screen."""
    parts = [value / 255 for value in rgb(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
