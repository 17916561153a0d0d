"""A part of the tests with the oldest versions that pyproject.toml allows; `make test-oldest` runs all of them so."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.support import oldest, release

# What users install; the libraries of TensorRT come from its vendor.
EXTRAS = ("onboard", "build", "geotiff", "faiss", "remotes", "report", "ssh")
# The packages of these, and for each the tests that work with it; whole files where they are quick.
PART = {
    "store/format/test_cbor.py": ["cbor2"],
    "store/trust/test_keys.py": ["cryptography"],
    "store/trust/test_key_file.py::TestOpenSsh::test_both_files_are_read": ["bcrypt"],
    "store/disk/test_locks.py": ["filelock", "lmdb"],
    "store/remotes/test_bucket_store.py::test_there_and_back": ["obstore"],
    "store/remotes/test_delta.py": ["backports-zstd"],
    "tools/test_aircraft.py": ["blake3", "click", "rich"],
    "builders/test_public.py": ["numpy", "onnx", "onnxruntime", "pillow", "pydantic"],
    "builders/mission/test_schema.py": ["pydantic"],
    "builders/descriptors/test_decoding.py": ["simplejpeg"],
    "tools/test_report.py::test_hostile_names_stay_words": ["jinja2"],
    "builders/areas/test_covering.py::test_the_demonstration_area_as_a_polygon": ["shapely"],
    "builders/imagery/test_pmtiles.py::test_a_run_is_given_a_tile_at_a_time": ["pmtiles"],
    "builders/imagery/test_geotiff.py::test_another_projection_is_warped_and_always_the_same": ["rasterio"],
    "builders/onboard/test_ann.py::test_bytes_depend_on_the_rows_and_ids": ["faiss-cpu"],
}


@pytest.fixture(scope="module")
def environment() -> None:
    if Path(sys.prefix).name == oldest.ROOT.name:
        pytest.skip("make test-oldest runs all tests with the oldest versions")
    if why := release.unreachable():
        pytest.skip(why)
    oldest.install()


def oldest_allowed(*extras: str) -> dict[str, Version]:
    """Return package -> the oldest version that pyproject.toml allows, of the base install and these extras."""
    project = tomllib.loads((release.REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for name in extras for one in project["optional-dependencies"][name])]
    bounds: dict[str, Version] = {}
    for wanted in map(Requirement, asked):
        name = canonicalize_name(wanted.name)
        if name != "flightbag" and (wanted.marker is None or wanted.marker.evaluate()):
            [least] = [Version(one.version) for one in wanted.specifier if one.operator == ">="]
            bounds[name] = max(least, bounds.get(name, least))
    return bounds


def test_each_version_is_the_oldest_that_is_allowed(environment: None) -> None:
    bounds = oldest_allowed(*EXTRAS, "dev")
    listed = oldest.versions()
    installed = {name: Version(listed[name]) for name in bounds}
    younger = {name for name, version in installed.items() if version != bounds[name]}
    # A library has no wheel for a Python that came later than itself; the oldest Python of the ground has them all.
    assert not younger or sys.version_info >= (3, 12), younger
    assert all(installed[name] > bounds[name] for name in younger)


def test_each_package_that_users_install_has_a_part() -> None:
    assert {package for packages in PART.values() for package in packages} == set(oldest_allowed(*EXTRAS))


def test_a_part_of_the_tests_passes_with_them(environment: None) -> None:
    assert oldest.run(["-q", *(f"tests/{name}" for name in PART)]).returncode == 0
