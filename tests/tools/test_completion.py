"""Completion, in the shells that are here."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import BIN, flightbag, program
from tests.support.field import Desk

ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}


def completed(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last word of a line."""
    script = flightbag("completion", "bash").out
    line = " ".join(f"'{word}'" for word in ("flightbag", *words))
    code = f'{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _flightbag_completion flightbag "{words[-1]}"\n'
    code += 'printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(
        ["bash", "-c", code], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stderr, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("veri",), ["verify"]),
        (("keys", "n"), ["new"]),
        (("verify", "--tr"), ["--trust"]),
        (("trust", "set-l"), ["set-lifetime"]),
        (("nonsense", "x"), []),
    ],
)
def test_bash_completes_commands_and_options(tmp_path: Path, words: tuple[str, ...], offered: list[str]) -> None:
    assert completed(tmp_path, *words) == offered


def test_bash_completes_missions_of_the_store_that_is_given_or_found(built: Desk) -> None:
    assert completed(built.folder, "show", "ground", "l") == ["left"]
    assert completed(built.store, "verify", "l") == ["left"]
    assert completed(built.store / "trust", "sign", "le") == ["left"]


def test_bash_completes_topics_of_help(tmp_path: Path) -> None:
    assert completed(tmp_path, "help", "unprov") == ["unproven"]
    assert completed(tmp_path, "help", "carr") == ["carrying"]
    assert completed(tmp_path, "help", "statu") == ["status", "statuses"]


def test_bash_completes_remotes_where_a_place_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "XDG_CONFIG_HOME", str(tmp_path))
    for name in ("hangar", "hall"):
        ran = program("flightbag", "remote", "add", name, f"crew@{name}:store", env=ENVIRONMENT)
        assert ran.status == 0, ran.err
    assert completed(tmp_path, "sync", "ha") == ["hall", "hangar"]
    assert completed(tmp_path, "sync", "ground", "han") == ["hangar"]
    assert completed(tmp_path, "sync", "-q", "ground", "stick", "han") == ["hangar"]
    assert completed(tmp_path, "unpack", "hal") == ["hall"]
    assert completed(tmp_path, "remote", "remove", "hal") == ["hall"]


def test_bash_completes_at_a_terminal(tmp_path: Path) -> None:
    """A command, an option, and the name of a file, each by the Tab key."""
    (tmp_path / "pinned.root.cbor").write_bytes(b"")
    lines = tmp_path / "lines"
    lines.write_text(flightbag("completion", "bash").out)
    terminal, other = pty.openpty()
    bash = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=other,
        stdout=other,
        stderr=other,
        cwd=tmp_path,
        env={**ENVIRONMENT, "TERM": "dumb", "PS1": "ready "},
        start_new_session=True,
    )
    os.close(other)
    try:
        for typed, answer in (
            ("source lines\n", "ready "),
            ("flightbag verif\t", "verify "),
            ("x --trus\t", "--trust "),
            ("pinn\t", "pinned.root.cbor"),
        ):
            os.write(terminal, typed.encode())
            shown = ""
            while answer not in shown:
                assert select.select([terminal], [], [], 30)[0], f"after {typed!r} bash shows {shown!r}"
                shown += os.read(terminal, 4096).decode()
    finally:
        bash.kill()
        bash.wait(timeout=30)
        os.close(terminal)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_lines_are_those_of_the_shell(shell: str) -> None:
    ran = flightbag("completion", shell)
    assert (ran.status, "FLIGHTBAG_COMPLETE" in ran.out) == (0, True)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=ran.out, text=True, check=True, timeout=60)


def test_another_shell_is_refused() -> None:
    ran = flightbag("completion", "tcsh")
    assert (ran.status, "give bash, zsh or fish" in ran.err) == (2, True)
