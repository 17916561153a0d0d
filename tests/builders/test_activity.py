"""The flight recorder of a worker: what stands in it, whatever the threads do, and however the worker ends."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from builders import activity
from builders.activity import Recorder, doing, getting_on, record_in
from store.errors import Invalid
from tests.support.examples import run_examples


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    monkeypatch.setattr(activity, "_box", None)
    with closing(Recorder(tmp_path / "box")) as opened:
        record_in(tmp_path / "box")
        yield opened


def test_the_innermost_block_is_named_and_each_one_counts(recorder: Recorder) -> None:
    assert (recorder.count, recorder.doing) == (0, ())
    with doing("a"):
        assert recorder.doing == ("a",)
        with doing("b"):
            assert recorder.doing == ("b",)
        assert recorder.doing == ("a",)
    assert recorder.doing == ()
    before = recorder.count
    getting_on()
    assert recorder.count > before > 0


def test_each_thread_has_its_own_words_and_gives_its_place_back(recorder: Recorder) -> None:
    def work(number: int, begun: threading.Barrier, end: threading.Event) -> None:
        with doing(f"thread {number}"):
            begun.wait()
            end.wait()

    for count in (3, 40, 3):  # more than there are places for, and then again fewer
        begun, end = threading.Barrier(count + 1), threading.Event()
        threads = [threading.Thread(target=work, args=(number, begun, end)) for number in range(count)]
        for thread in threads:
            thread.start()
        begun.wait()
        assert set(recorder.doing) <= {f"thread {number}" for number in range(count)}
        assert len(recorder.doing) == min(count, 32)
        end.set()
        for thread in threads:
            thread.join()
        assert recorder.doing == ()


def test_words_are_cut_and_hold_no_control_character(recorder: Recorder) -> None:
    with doing("\x1b[31m" + "x" * 10_000 + "\n"):
        (text,) = recorder.doing
    assert text.startswith("[31mxxx")
    assert len(text) < 512


def test_a_number_is_named_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def name_of(number: int) -> str:
        if number > 9:
            raise Invalid("no such tile")
        return f"#{number}"

    monkeypatch.setattr(activity, "_box", None)
    with closing(Recorder(tmp_path / "box", name_of)) as recorder:
        record_in(tmp_path / "box")
        for number, text in ((0, "tile #0"), (9, "tile #9"), (10, "tile 10"), (2**62, f"tile {2**62}")):
            with doing("tile", number):
                assert recorder.doing == (text,)


def test_whatever_a_worker_writes_is_text(tmp_path: Path) -> None:
    with closing(Recorder(tmp_path / "box")) as recorder:
        size = (tmp_path / "box").stat().st_size
        with (tmp_path / "box").open("r+b") as file:
            file.write(b"\xff" * size)
        assert recorder.count > 0
        assert all(text.isprintable() for text in recorder.doing)


def test_it_outlives_a_crash(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from builders.activity import *\n"
        "record_in(Path(sys.argv[1]))\nwith doing('falling'): os.abort()"
    )
    with closing(Recorder(tmp_path / "box")) as recorder:
        subprocess.run([sys.executable, "-c", code, tmp_path / "box"], stderr=subprocess.DEVNULL, cwd=Path.cwd())
        assert recorder.doing == ("falling",)


def test_memory_that_runs_out_is_told_with_the_innermost_block(recorder: Recorder) -> None:
    with pytest.raises(MemoryError) as caught, doing("a"), doing("b"):
        raise MemoryError
    assert caught.value.__notes__ == ["b"]


def test_elsewhere_it_does_nothing() -> None:
    assert run_examples(activity, {"doing": doing}) > 0
