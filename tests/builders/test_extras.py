"""What the ground needs is said before anything begins; `tests.tools.test_cli` runs commands without the extras."""

from __future__ import annotations

import sys

import pytest

from builders.extras import require_build_extra, require_onboard_extra
from store.errors import Unavailable


def test_the_ground_needs_a_newer_python_than_what_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(Unavailable, match=r"needs Python 3\.11 or newer") as caught:
        require_build_extra()
    assert "Python 3.11 or newer" in caught.value.remedy
    require_onboard_extra()
