"""The values that the text of an argument stands for."""

from __future__ import annotations

import pytest

from store.errors import Invalid
from tools.arguments import moment


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T12:00:00Z",
        "2026-11-25t12:00:00z",
        "2026-11-25 12:00Z",
        "2026-11-25T12:00:00.5Z",
        "2026-11-25T12:00:00.123456789+00:00",
        "2026-11-25T14:30:00+02:30",
        "2026-11-24T23:00:00-13:00",
        "1795608000",
    ],
)
def test_a_moment_is_the_same_on_every_python(text: str) -> None:
    assert moment(text) == 1_795_608_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-25T12:00:00",
        "2026-11-25",
        "20261125T120000Z",
        "2026-W48-3T12:00:00Z",
        "2026-02-30T12:00:00Z",
        "2026-11-25T25:00:00Z",
        "1969-12-31T23:59:59Z",
        "٢٠٢٦-11-25T12:00:00Z",
        "2026-11-25T12:00:00+25:00",
        "noon",
        "",
    ],
)
def test_what_is_no_moment_has_a_remedy(text: str) -> None:
    with pytest.raises(Invalid, match="is not a time with a time zone") as caught:
        moment(text)
    assert "2026-11-25T12:00:00Z" in caught.value.remedy
