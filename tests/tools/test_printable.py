"""What a terminal gets: whatever the string, nothing that moves the cursor, reorders, paints or hides."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.commands import BIN, flightbag
from tests.support.field import Desk
from tools.printable import printable, printable_lines
from tools.status import print_json, say

# Text of every kind of character, lone surrogates too, and of those that are meant in particular.
NAMED = "\x00\x07\x08\t\n\r\x1b\x7f\x85\x9b\xa0\xad\u061c\u200b\u200d\u200e\u200f\u2028\u202a\u202e\u2066\u2069\ufeff"
HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from(NAMED + "\udc80\ud800\u034f\u3164\ufe0f\U000e0101")))
EVIL = "GO\x1b]0;GO\x07\x1b[2J\n\rGO  north\u202eOG\u2066\x9b31m\u200b\u061c[red]é日本"


def harmless(text: str) -> bool:
    """Whether text has no control, format, surrogate or private character, and no line or paragraph separator."""
    return all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in text)


@given(HOSTILE)
def test_whatever_the_string_only_what_shows_is_left(text: str) -> None:
    one_line = printable(text)
    assert harmless(one_line)
    assert printable(one_line) == one_line
    assert harmless(printable_lines(text).replace("\n", ""))
    assert printable_lines(text).count("\n") == text.count("\n")


@given(HOSTILE)
def test_a_line_and_a_document_of_it(text: str) -> None:
    out = io.StringIO()
    say(text, out)
    assert harmless(out.getvalue().removesuffix("\n"))
    kept, sys.stdout = sys.stdout, io.StringIO()
    try:
        print_json({f"own {text}": [text]})  # the envelope has names of its own
        document = sys.stdout.getvalue()
    finally:
        sys.stdout = kept
    assert document.isascii()
    assert harmless(document.replace("\n", ""))


@pytest.mark.parametrize(
    "text", ["é", "日本語", "Ångström", "Ωμέγα", "Северный хребет", "رحلة", "e\u0301", "a b", "C:\\x", "[red]x[/red]"]
)
def test_letters_of_every_script_stay(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("a\u202eb", "a\\u202eb"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("a\u200bb", "a\\u200bb"),
        ("a\ufe0f\u3164", "a\\ufe0f\\u3164"),
    ],
)
def test_an_escape_says_which_character_it_was(text: str, shown: str) -> None:
    assert printable(text) == shown


# Whoever writes: print, a warning, a log of a library, a traceback of a thread.
WRITERS = {
    "print": "print(evil); print(evil, file=sys.stderr)",
    "warning": "import warnings; warnings.warn(evil)",
    "logging": "import logging; logging.getLogger('rasterio._env').error(evil)",
    "thread": "import threading; t = threading.Thread(target=lambda: 1 / len(evil[:0])); t.start(); t.join()",
    "help": "import click; click.echo(evil)",
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_the_streams_of_a_program_escape_whoever_writes(name: str, encoding: str) -> None:
    code = f"import sys; from tools.streams import *; open_streams(); evil = {EVIL!r}; {WRITERS[name]}; flush_streams()"
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONWARNINGS": "default"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, env=environment)
    assert ran.returncode == 0
    text = (ran.stdout + ran.stderr).decode(encoding)
    assert text
    assert harmless(text.replace("\n", ""))
    assert name == "thread" or "[red]" in text


def test_a_bar_on_a_terminal_paints_nothing_of_a_name() -> None:
    code = (
        "from tools.streams import *; from tools.progress import *; open_streams()\n"
        f"with work_bars() as advance: advance({EVIL!r}, 1, 2)"
    )
    leader, follower = pty.openpty()
    ran = subprocess.run(
        [sys.executable, "-c", code], stderr=follower, timeout=60, env={**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    )
    os.close(follower)
    shown = b""
    while chunk := _read(leader):
        shown += chunk
    assert ran.returncode == 0
    assert b"\\x1b]0;GO\\x07\\x1b[2J\\n\\rGO" in shown
    assert b"\x1b]" not in shown
    assert b"\x1b[2J" not in shown
    assert b"[red]" in shown, "no markup of the bar's own either"
    assert "\u202e".encode() not in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the other end is closed
        return b""


def test_arguments_in_messages(tmp_path: Path) -> None:
    """A shell expands names of a medium into arguments."""
    for args in (("ls", EVIL), ("ls", "x", EVIL), (EVIL,), ("gc", "x", "--keep-last", EVIL), ("ls", f"--{EVIL}")):
        ran = subprocess.run([BIN / "flightbag", *(a.replace("\0", "") for a in args)], capture_output=True, timeout=60)
        text = (ran.stdout + ran.stderr).decode()
        assert ran.returncode in (2, 3)
        assert harmless(text.replace("\n", ""))
        assert not [line for line in text.splitlines() if line.startswith("GO")]


def test_names_on_a_medium(built: Desk) -> None:
    """Files in every place of a store that an audit lists, and a mission's neighbours."""
    name = EVIL.replace("/", "")
    for folder in ("", "objects", "missions", "trust", "pins", "tmp", "quarantine"):
        (built.store / folder).mkdir(exist_ok=True)
        (built.store / folder / name).write_bytes(b"")
    for command in (
        ("fsck", built.store),
        ("fsck", built.store, "--json"),
        ("ls", built.store),
        ("stats", built.store),
    ):
        ran = flightbag(*command)
        assert harmless((ran.out + ran.err).replace("\n", ""))
        assert not [line for line in ran.out.splitlines() if line.startswith(("GO", "flyable", "clean"))]
    assert "é日本" in flightbag("fsck", built.store).out


def test_an_error_of_the_program_forges_no_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("x\nGO  north-ridge  flight 1  code AAAAA-BBBBB")

    monkeypatch.setattr("tools.cli.Repository.open", fails)
    ran = flightbag("ls", tmp_path)
    assert ran.status == 3
    assert "RuntimeError" in ran.err
    assert not [line for line in ran.err.splitlines() if line.startswith("GO")]
