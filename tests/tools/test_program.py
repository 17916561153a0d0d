"""How the two programs end when their output cannot be written. Each test runs the installed program."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import BIN, flightbag
from tests.support.every_command import USES, command_line
from tests.support.field import Desk
from tools.status import READER_GONE

FLIGHTBAG, STORE_FSCK = BIN / "flightbag", BIN / "store-fsck"
# A command prints a report; --help and a mistake in the arguments are printed by click.
PRINTED_BY_CLICK = [("--help",), ("--version",), ("ls", "--help"), ("ls", "--nonsense"), ("nonsense",)]


def run_with(*command: object, redirect: str = "", reader: bool = True) -> tuple[int, str, str]:
    """(status, standard output, standard error) of a program, redirected as a shell would.

    Without a reader, standard output is a pipe whose other end is closed before the program starts.
    """
    read, write = os.pipe()
    if not reader:
        os.close(read)
    line = f"exec {shlex.join(map(str, command))} {redirect}"
    process = subprocess.Popen(["/bin/sh", "-c", line], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    out = b""
    if reader:
        with os.fdopen(read, "rb") as pipe:
            out = pipe.read()
    _, err = process.communicate(timeout=300)
    return process.returncode, out.decode(), err.decode()


# What they sign is shown before.
SHOWN_FIRST = ("sign", "release sign")


@pytest.mark.parametrize("name", USES)
def test_a_reader_that_has_gone_ends_a_command_silently_after_its_work(equipped: Desk, name: str) -> None:
    assert run_with(*command_line(name, equipped), reader=False) == (READER_GONE, "", "")
    if name in SHOWN_FIRST:
        assert not USES[name].is_done(equipped), "what nobody was shown is not signed"
    else:
        assert USES[name].is_done(equipped), "the work comes before the report"


@pytest.mark.parametrize("args", PRINTED_BY_CLICK, ids=" ".join)
def test_a_reader_that_has_gone_ends_help_and_usage_silently(args: tuple[str, ...]) -> None:
    assert run_with(FLIGHTBAG, *args, redirect="2>&1", reader=False) == (READER_GONE, "", "")


def test_a_reader_of_standard_error_that_has_gone(tmp_path: Path) -> None:
    status, _, err = run_with(FLIGHTBAG, "ls", tmp_path / "nowhere", redirect="2>&1 >/dev/null", reader=False)
    assert (status, err) == (READER_GONE, "")


def test_a_verdict_that_nobody_reads_is_never_go(built: Desk) -> None:
    shutil.rmtree(built.store / "objects")
    for more in ((), ("--json",)):
        verify = ("verify", built.store, "--trust", built.root, *more)
        assert flightbag(*verify).status == 1
        assert run_with(FLIGHTBAG, *verify, reader=False)[0] == READER_GONE


@pytest.mark.parametrize("program", [(STORE_FSCK,), (FLIGHTBAG, "fsck")], ids=["store-fsck", "flightbag fsck"])
def test_a_reader_that_goes_away_is_not_an_answer(built: Desk, program: tuple[Path | str, ...]) -> None:
    """`store-fsck | head -1` must not end with 1, which would be "corrected", nor with 0."""
    for number in range(3000):
        (built.store / f"stray-{number:04}").write_text("")
    command = [*map(str, program), str(built.store)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (READER_GONE, b"")


def test_a_repair_is_finished_though_nobody_reads_its_plan(twice: Desk) -> None:
    """A plan is printed before its steps are done: a broken pipe must not leave the repair half done."""
    replica = twice.folder / "replica"
    shutil.copytree(twice.store, replica)
    for path in (twice.store / "objects").glob("*/*"):
        path.unlink()
    # Without a buffer, so that the first line fails.
    command = ("env", "PYTHONUNBUFFERED=1", FLIGHTBAG, "fsck", twice.store, "--repair", "--from", replica)
    assert run_with(*command, reader=False) == (READER_GONE, "", "")
    assert flightbag("fsck", twice.store, "--full").status == 0
    assert twice.verify().status == 0


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full"])
@pytest.mark.parametrize("args", [("--help",), ("--version",), ("ls",), ("ls", "--json"), ("verify",)], ids=" ".join)
def test_output_that_cannot_be_written_is_an_error(built: Desk, args: tuple[str, ...], redirect: str) -> None:
    more: tuple[object, ...] = () if args[0].startswith("--") else (built.store,)
    if args[0] == "verify":
        more = (*more, "--trust", built.root)
    status, out, err = run_with(FLIGHTBAG, *args, *more, redirect=redirect)
    assert (status, out) == (3, "")
    assert err.startswith("flightbag: standard output ")
    assert "Traceback" not in err
    assert "Exception" not in err


@pytest.mark.parametrize("redirect", [">&-", ">/dev/full"])
def test_output_of_an_audit_that_cannot_be_written_is_an_error(built: Desk, redirect: str) -> None:
    for program in ((STORE_FSCK,), (FLIGHTBAG, "fsck")):
        status, _, err = run_with(*program, built.store, redirect=redirect)
        assert status == 8
        assert err.startswith("flightbag: standard output ")
        assert "Traceback" not in err


def test_nothing_is_done_while_standard_output_is_closed(tmp_path: Path) -> None:
    """A file that is opened first would take the number of standard output, and a library may print into it."""
    assert run_with(FLIGHTBAG, "init", tmp_path / "store", redirect=">&-")[0] == 3
    assert not (tmp_path / "store").exists()


def test_no_stream_at_all_ends_with_a_status(built: Desk) -> None:
    for redirect in (">&- 2>&-", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"):
        assert run_with(FLIGHTBAG, "ls", built.store, redirect=redirect) == (3, "", "")


def test_standard_error_and_standard_input_may_be_closed(built: Desk, tmp_path: Path) -> None:
    status, out, _ = run_with(FLIGHTBAG, "ls", built.store, "--json", redirect="2>&- <&-")
    assert (status, json.loads(out)["missions"][0]["mission"]) == (0, "left")
    assert run_with(FLIGHTBAG, "ls", tmp_path / "nowhere", redirect="2>&-") == (3, "", "")
    status, _, err = run_with(FLIGHTBAG, "keys", "new", tmp_path / "a.key", redirect="<&-")
    assert status == 2
    assert "--passphrase-file" in err


def test_a_warning_that_nobody_reads_costs_no_audit(built: Desk) -> None:
    """The ledger of the user cannot be opened, and the reader of that warning has gone: the audit answers as ever."""
    command = ("env", "XDG_STATE_HOME=/dev/null", STORE_FSCK, built.store, "--full")
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, b"clean: " in out) == (0, True)


def test_a_full_pipe_that_does_not_wait_is_a_plain_error(built: Desk) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    while True:
        try:
            os.write(write, b"x" * 4096)
        except BlockingIOError:
            break
    process = subprocess.Popen([FLIGHTBAG, "show", str(built.store), "left"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, err = process.communicate(timeout=60)
    os.close(read)
    assert process.returncode == 3
    assert b"standard output cannot be written" in err
    assert b"Traceback" not in err


NOISY = """
import logging, warnings
import numpy as np
from tools.commands import command_of
from tools.program import run_program

def noisy() -> None:
    warnings.warn("a warning")
    warnings.warn("a warning", DeprecationWarning)
    np.float32(1) / np.float32(0)
    logging.getLogger("rasterio._env").error("an error of a library")
    print("done")

run_program(command_of("noisy", noisy), usage=2, could_not_do=3)
"""


def test_no_warning_of_a_library_reaches_the_user() -> None:
    ran = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("done\n", "")
    shown = subprocess.run([sys.executable, "-W", "default", "-c", NOISY], capture_output=True, text=True, check=True)
    assert "UserWarning" in shown.stderr


def test_a_tile_with_damaged_exif_data_prints_no_path_of_the_installation(built: Desk) -> None:
    """Pillow warns of each entry; `quality` decodes tiles."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + b"\x0e\x01\x02\0\xff\0\0\0\xf0\xff\0\0" * 2
    file = io.BytesIO()
    pixels = np.random.default_rng(3).integers(0, 256, (256, 256, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", exif=exif)
    with closing(sqlite3.connect(built.folder / "terrain.mbtiles")) as db, db:
        db.execute("UPDATE tiles SET tile_data = ? WHERE rowid % 7 = 0", (file.getvalue(),))
    mission = built.folder / "left.toml"
    ran = flightbag("build", mission, "--store", built.store, "--key", built.key)
    assert "Warning" not in ran.err
    assert "site-packages" not in ran.err


LATE = """
import atexit, os, signal
from tools.commands import command_of
from tools.program import run_program

def work() -> int:
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
    print("done")
    return 1

run_program(command_of("work", work), usage=2, could_not_do=3)
"""


def test_ctrl_c_after_the_verdict_does_not_replace_the_status() -> None:
    ran = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "done\n", "")


EARLY = """
import os, signal
from tools.commands import command_of
from tools.program import run_program

def work() -> int:
    os.kill(os.getpid(), signal.SIGINT)

run_program(command_of("work", work), usage=2, could_not_do=3)
"""


def test_ctrl_c_before_a_command_is_loaded_is_no_traceback() -> None:
    ran = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr.strip()) == (130, "", "flightbag: interrupted")


SLOW = """
import os, signal, sys
from threading import Timer
from tools.arguments import Json
from tools.commands import command_of
from tools.program import run_program
from tools.status import command, print_json

@command
def work(as_json: Json = False) -> int:
    print_json({"lines": ["x" * 100] * 20_000})
    Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    return 0

run_program(command_of("work", work), usage=2, could_not_do=3)
"""


def test_ctrl_c_while_nobody_reads_the_document_makes_no_second_one() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.wait(timeout=60) == 130  # the pipe is full, and nobody has read it
        half = process.stdout.read()
        assert process.stderr.read().strip() == "flightbag: interrupted"
    assert half.startswith("{")
    assert '"status": 130' not in half
    with pytest.raises(json.JSONDecodeError):
        json.loads(half)
