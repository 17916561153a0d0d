"""A part of the tests with the oldest versions that pyproject.toml allows; `make test-oldest` runs all of them so."""

from __future__ import annotations

import os
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import oldest, release

# Loads every library of a build and of an aircraft, in a minute.
PART = ["store/trust/test_root.py", "store/trust/test_key_file.py", "store/takeoff/test_verify.py"]
PART += ["store/disk/test_locks.py", "tools/test_aircraft.py", "builders/test_public.py"]
PART += ["builders/mission/test_schema.py", "builders/areas/test_covering.py"]


@pytest.fixture(scope="module")
def environment() -> None:
    if "FLIGHTBAG_DRILL" not in os.environ:
        pytest.skip("takes minutes: a part of make drill")
    if why := release.unreachable():
        pytest.skip(why)
    oldest.install()


def test_each_version_is_the_oldest_that_is_allowed(environment: None) -> None:
    project = tomllib.loads((release.REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        *project["dependencies"],
        *(one for name in ("build", "geotiff", "faiss", "ssh", "dev") for one in extras[name]),
    ]
    bounds: dict[str, Version] = {}
    for wanted in map(Requirement, asked):
        name = canonicalize_name(wanted.name)
        if name != "flightbag" and (wanted.marker is None or wanted.marker.evaluate()):
            [least] = [Version(one.version) for one in wanted.specifier if one.operator == ">="]
            bounds[name] = max(least, bounds.get(name, least))
    installed = oldest.versions()
    assert {name: Version(installed[name]) for name in bounds} == bounds


def test_a_part_of_the_tests_passes_with_them(environment: None) -> None:
    assert oldest.run(["-q", *(f"tests/{name}" for name in PART)]).returncode == 0
