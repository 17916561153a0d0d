"""The table says what the libraries themselves have: the oldest supported, two between, and the newest."""

from __future__ import annotations

import re

import pytest

from builders.engines.onnxruntime_versions import CAME, HIGHEST, NEWEST, OLDEST
from tests.support import runtimes


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def operator(token: str) -> str:
    match = re.match(r"[a-z.]+:\w+/\d+", token)
    return match[0] if match else token


def test_pyproject_names_the_same_oldest_version() -> None:
    assert runtimes.oldest_of_pyproject() == OLDEST == ".".join(runtimes.FIRST[0].split(".")[:2])


def test_each_minor_version_is_known() -> None:
    minors = [".".join(version.split(".")[:2]) for version in runtimes.FIRST]
    assert minors == [f"1.{number}" for number in range(minor(OLDEST)[1], minor(NEWEST)[1] + 1)]
    assert set(CAME.values()) <= set(minors)
    assert HIGHEST == {"ai.onnx": 28, "ai.onnx.ml": 5, "com.microsoft": 1, "ir": 14}


@pytest.mark.parametrize("version", [*runtimes.SOME, runtimes.FIRST[-1]])
def test_a_library_has_what_the_table_says_and_no_more(version: str) -> None:
    for one in (version, runtimes.FIRST[-1]):
        if why := runtimes.environment(one)[1]:
            pytest.skip(why)
    has, newest = runtimes.tokens(version), runtimes.tokens(runtimes.FIRST[-1])
    for token, came in CAME.items():
        # Some types of kernels were taken away again; no engine of the newest library has them.
        assert (token in has) is (minor(came) <= minor(version)) or token not in newest, token
    # What the newest has and this one lacks is in the table, or is a part of an operator that is.
    for token in newest - has:
        assert minor(CAME.get(token) or CAME[operator(token)]) > minor(version), token
