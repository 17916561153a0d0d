"""Key files and passphrases, from the command line."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from store.errors import Invalid
from store.trust.keys import PrivateKey, PublicKey
from tests.support.commands import BIN, flightbag, program
from tests.support.opens import make_device, opens_of
from tools import keyfiles


def test_keys_are_encrypted_private_and_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("correct horse\n")
    key = tmp_path / "a.key"
    ran = flightbag("keys", "new", key, "--passphrase-file", tmp_path / "pass", "--json")
    assert ran.status == 0
    assert b"ENCRYPTED PRIVATE KEY" in key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    public = PublicKey.of_pem((tmp_path / "a.key.pub").read_bytes())
    assert ran.json["kid"] == public.kid.hex()
    assert PrivateKey.of_pem(key.read_bytes(), b"correct horse").public == public
    for path in (key, tmp_path / "a.key.pub"):
        assert (
            flightbag("keys", "show", path, "--passphrase-file", tmp_path / "pass").out.split()[1] == public.kid.hex()
        )
    before = key.read_bytes()
    assert flightbag("keys", "new", key, "--no-passphrase").status == 2
    assert key.read_bytes() == before
    (tmp_path / "wrong").write_text("battery staple\n")
    assert flightbag("keys", "show", key, "--passphrase-file", tmp_path / "wrong").status == 2


def test_a_key_needs_a_passphrase_or_the_word_that_it_does_not(tmp_path: Path) -> None:
    ran = program("flightbag", "keys", "new", tmp_path / "a.key", stdin=subprocess.DEVNULL)
    assert ran.status == 2
    assert "--passphrase-file" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_passphrase_is_asked_at_a_terminal(tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [BIN / "flightbag", "keys", "new", tmp_path / "a.key"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )
    os.close(slave)
    for prompt in (b"passphrase", b"again"):
        seen = b""
        while prompt not in seen:
            seen += os.read(master, 1024)
        os.write(master, b"tap tap\n")
    out, err = process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0, err
    assert b"tap" not in out
    assert PrivateKey.of_pem((tmp_path / "a.key").read_bytes(), b"tap tap")


@pytest.mark.parametrize("kind", ["device", "socket", "directory"])
def test_a_file_that_the_user_names_is_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket is short
    if kind == "device":
        make_device(Path("thing"))
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("thing")
    else:
        Path("thing").mkdir()
    with opens_of(Path("thing")) as opens, pytest.raises(Invalid, match=f"found a {kind}"):
        keyfiles.read_file(Path("thing"), 10, "the key file")
    assert opens == []


def test_a_pipe_is_read_to_its_end_when_its_writer_comes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Timer(0.2, (tmp_path / "pipe").write_bytes, (b"words",))
    writer.start()
    assert keyfiles.read_file(tmp_path / "pipe", 10, "the passphrase file") == b"words"
    writer.join()
