"""The schema of the mission file: exact numbers, and descriptions that complete the sentence "must be ..."."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from builders.mission import schema
from builders.mission.schema import MissionFile, Section, Takeoff, Target, is_path, scaled
from store.format.manifest import Takeoff as ExactTakeoff


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 9))
def test_scaling_is_exact_and_rounds_half_to_even(value: Decimal, places: int) -> None:
    assert scaled(value, places) == round(Fraction(value) * 10**places)


@given(st.integers(-900000000, 900000000))
def test_every_coordinate_of_seven_decimals_is_kept(units: int) -> None:
    text = f"{'-' * (units < 0)}{abs(units) // 10**7}.{abs(units) % 10**7:07}"
    takeoff = Takeoff.model_validate({"lat": Decimal(text), "lon": Decimal(text), "alt_m": Decimal(0)})
    assert takeoff.exact == ExactTakeoff(units, units, 0)


def sections() -> list[type[Section]]:
    return [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, Section)]


def test_every_key_has_a_description_that_completes_must_be() -> None:
    assert MissionFile in sections()
    for section in sections():
        for name, field in section.model_fields.items():
            description = field.description or " ".join(
                item.description for item in get_args(field.annotation) if getattr(item, "description", None)
            )
            assert description, f"{section.__name__}.{name}"
            assert not description.endswith("."), f"{section.__name__}.{name}"


def test_a_section_is_frozen_and_knows_its_keys() -> None:
    target = Target(host="auto")
    with pytest.raises(ValidationError):
        target.host = "cpu-x86_64"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Target.model_validate({"host": "auto", "hots": "auto"})
    assert issubclass(Section, BaseModel)


@pytest.mark.parametrize(
    ("value", "expected"), [("a", True), ("a/b", True), ("", False), ("a\0b", False), ("a" * 4097, False), (7, False)]
)
def test_a_path_is_a_short_string_without_nul(value: Any, expected: bool) -> None:
    assert is_path(value) is expected


def test_a_path_is_resolved_against_the_folder_of_the_mission_file() -> None:
    section = schema.File.model_validate({"name": "a", "path": "b/c"}, context={"folder": Path("/missions")})
    assert section.path == Path("/missions/b/c")
    section = schema.File.model_validate({"name": "a", "path": "/b/c"}, context={"folder": Path("/missions")})
    assert section.path == Path("/b/c")
