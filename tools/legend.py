"""How a map shows the tiles of an area: a colour, a pattern and a letter for described tiles and for each reason.

No two reasons have one pattern or one letter: also a reader who sees no colours, or paper without them, tells them
apart. The colours are those of Okabe and Ito (jfly.uni-koeln.de/color), which remain different for every kind of colour
blindness.
"""

from __future__ import annotations

from typing import NamedTuple

from store.format.missing import REASONS

DESCRIBED = "described"


class Sign(NamedTuple):
    """The look of one state: its letter, the colours of ink and paper as six hex digits, the pattern as eight rows of
    eight bits, the number of the colour in a terminal of 256 colours, and what it means."""

    letter: str
    ink: str
    paper: str
    bits: tuple[int, ...]
    colour: int
    meaning: str


_ORANGE, _BLUE, _YELLOW, _DARK, _RED, _PURPLE = "e69f00", "56b4e9", "f0e442", "0072b2", "d55e00", "cc79a7"
_BLACK, WHITE = "000000", "ffffff"
SIGNS: dict[str, Sign] = {
    DESCRIBED: Sign("#", "009e73", "8fd0b9", (0,) * 8, 36, "the map has a row that shows the tile"),
    "outside-zooms": Sign(
        "z", _BLACK, "bbbbbb", (255, 0, 0, 0, 255, 0, 0, 0), 250, "no source has the zoom of the tile"
    ),
    "absent": Sign("a", _BLACK, WHITE, (1, 2, 4, 8, 16, 32, 64, 128), 255, "no source has the tile"),
    "outside-raster": Sign("o", _BLACK, _BLUE, (128, 64, 32, 16, 8, 4, 2, 1), 74, "the raster ends before the tile"),
    "partly-outside": Sign(
        "p", _DARK, _BLUE, (129, 66, 36, 24, 24, 36, 66, 129), 117, "the raster ends within the tile"
    ),
    "masked": Sign("m", _BLACK, _PURPLE, (0, 0, 24, 24, 0, 0, 0, 0), 175, "pixels are masked or without data"),
    "repeated": Sign("r", _BLACK, _YELLOW, (136, 0, 34, 0, 136, 0, 34, 0), 227, "another tile shows the same"),
    "undecodable": Sign("u", WHITE, _RED, (255, 129, 129, 129, 129, 129, 129, 255), 166, "the bytes are no image"),
    "wrong-size": Sign("s", _BLACK, _RED, (136, 136, 136, 136, 136, 136, 136, 136), 202, "the image has another size"),
    "transparent": Sign("t", _BLACK, WHITE, (170, 85, 170, 85, 170, 85, 170, 85), 253, "pixels are not opaque"),
    "blank": Sign("b", _BLACK, _YELLOW, (255, 128, 128, 128, 255, 8, 8, 8), 220, "every pixel has one colour"),
    "too-old": Sign("d", _BLACK, _ORANGE, (24, 36, 66, 129, 0, 0, 0, 0), 214, "older than the mission allows"),
    "too-coarse": Sign("c", _BLACK, _ORANGE, (240, 240, 240, 240, 15, 15, 15, 15), 208, "coarser than allowed"),
    "no-view": Sign("v", WHITE, _DARK, (24, 60, 126, 255, 0, 0, 0, 0), 25, "a neighbour is missing: no row shows it"),
}
# The names of the states that a square of `builders.atlas` has.
BY_STATE = ("", DESCRIBED, *REASONS)
assert tuple(SIGNS) == BY_STATE[1:]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return six hex digits as red, green and blue."""
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue
