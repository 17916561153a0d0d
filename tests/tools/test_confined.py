"""Commands without a key that run whole in a confined process: they print what they would print here, and end as it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from tests.support.commands import Ran, flightbag, program
from tests.support.field import Desk
from tests.support.here import confine_here
from tools import confined, lines
from tools.lines import Loudness
from tools.status import notice, say

pytestmark = pytest.mark.confined

CRASH = """
import builders.retrieval.query as query
def decode_photo(data):
    __import__("ctypes").string_at(0)
query.decode_photo = decode_photo
"""


def query(desk: Desk, *more: object, env: dict[str, str] | None = None) -> Ran:
    picture = desk.folder / "frame.png"
    Image.effect_noise((256, 256), 80).convert("RGB").save(picture)
    return flightbag("query", *more, "left", picture, "--trust", desk.root, env=env)


def test_it_prints_what_it_would_print_here(built: Desk) -> None:
    for more in ((), ("--json",), ("--zoom", "3"), ("-v",), ("-q",)):
        Image.effect_noise((256, 256), 80).convert("RGB").save(built.folder / "one.png")
        args = ("query", built.store, "left", built.folder / "one.png", "--trust", built.root, *more)
        there = flightbag(*args, columns=80)  # the child has no other width
        with pytest.MonkeyPatch.context() as patch:
            confine_here(patch)
            assert flightbag(*args, columns=80) == there
        assert there.out or there.err


def _an_id() -> int:
    say(lines.short("ab" * 32))
    notice("a notice")
    return 0


@pytest.mark.parametrize(
    ("loudness", "out", "err"),
    [
        (Loudness.VERBOSE, "ab" * 32, "a notice\n"),
        (Loudness.NORMAL, "ab" * 6, "a notice\n"),
        (Loudness.QUIET, "ab" * 6, ""),
    ],
)
def test_the_other_process_tells_as_much(
    monkeypatch: pytest.MonkeyPatch, loudness: Loudness, out: str, err: str
) -> None:
    monkeypatch.setattr(lines, "_loudness", Loudness.NORMAL)
    request = {"module": __name__, "function": "_an_id", "arguments": {}, "loudness": loudness.value}
    result = confined.command(request, cast(Any, None))
    assert (result["out"], result["err"]) == (f"{out}\n", err)


def test_the_store_may_come_from_the_environment(built: Desk) -> None:
    assert query(built, env={"FLIGHTBAG_STORE": str(built.store)}).status == 0


def test_a_crash_is_an_error_that_names_the_picture(
    built: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "sitecustomize.py").write_text(CRASH)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), *sys.path])
    ran = query(built, built.store, "--json")
    assert (ran.status, ran.json["error"]["kind"]) == (3, "failed")
    assert f"SIGSEGV, while it was decoding the picture {built.folder / 'frame.png'}" in ran.json["error"]["message"]


def test_the_program_itself_finds_its_worker(built: Desk) -> None:
    args = ("verify", built.store, "left", "--trust", built.root, "--tiles")
    ran = program("flightbag", *args, built.folder / "x.mbtiles")
    assert ran.status == 2, ran.err
    assert "x.mbtiles" in ran.err
    ran = program("flightbag", *args, built.folder / "terrain.mbtiles")
    assert (ran.status, "\nGO  left" in ran.out) == (0, True), ran.out + ran.err
