"""What the ground needs is said before anything begins; `tests.tools.test_cli` runs commands without the extras."""

from __future__ import annotations

import sys
import tomllib

import pytest
from packaging.requirements import Requirement

from builders.extras import import_extra, require_build_extra, require_onboard_extra
from store.errors import Unavailable
from store.installation import install_remedy
from tests.support.release import REPOSITORY


def test_the_ground_needs_a_newer_python_than_what_flies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13))
    with pytest.raises(Unavailable, match=r"needs Python 3\.11 or newer") as caught:
        require_build_extra()
    assert "Python 3.11 or newer" in caught.value.remedy
    require_onboard_extra()


@pytest.mark.parametrize(
    ("module", "extra"),
    [("numpy", "onboard"), ("onnxruntime", "onboard"), ("onnx", "build"), ("pmtiles.tile", "build")],
)
def test_a_library_that_is_missing_names_the_least_extra_that_brings_it(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)
    with pytest.raises(Unavailable, match=f"needs {module.partition('.')[0]}") as caught:
        import_extra(module)
    assert caught.value.remedy == install_remedy(extra)
    asked = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"][extra]
    assert module.partition(".")[0] in {Requirement(one).name for one in asked}
