"""Key files and passphrases, from the command line."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

from store.trust.keys import PrivateKey, PublicKey
from tests.support.commands import BIN, flightbag, program


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
