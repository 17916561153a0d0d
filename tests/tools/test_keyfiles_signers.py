"""Commands that sign: what they are given, and the recipes in docs/signers with the tools that hold the keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import Unavailable
from store.trust import ed25519
from store.trust.keys import PublicKey
from tests.support.commands import flightbag
from tests.support.missions import key
from tools import keyfiles
from tools.keyfiles import CommandSigner

RECIPES = Path(__file__).parents[2] / "docs" / "signers"
MODULES = [Path("/usr/lib/softhsm/libsofthsm2.so"), *Path("/usr/lib").glob("*/softhsm/libsofthsm2.so")]
MESSAGE = bytes(range(256)) * 300


def needs(*tools: str) -> pytest.MarkDecorator:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not installed")


def signs(public: Path, command: str) -> None:
    """The command signs any message with this key, as the commands of the program would use it."""
    [signer] = keyfiles.signers([public], lambda prompt: b"", command)
    for message in (b"x", MESSAGE):
        assert ed25519.verify(signer.public.raw, signer.sign(message), message)


def run(*command: object, env: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, check=True, text=True, env={**os.environ, **(env or {})})
    return done.stdout


def test_the_bytes_lie_in_a_file_of_this_user_until_the_command_ends(tmp_path: Path) -> None:
    script = tmp_path / "signer.py"
    script.write_text(
        "import os, pathlib, stat, sys\n"
        "path = pathlib.Path(os.environ['FLIGHTBAG_TO_SIGN'])\n"
        "assert path.read_bytes() == sys.stdin.buffer.read()\n"
        "assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700\n"
        f"pathlib.Path({str(tmp_path / 'seen')!r}).write_text(str(path))\n"
        "sys.stdout.buffer.write(bytes(64) if len(sys.argv) == 1 else b'')\n"
    )
    for more, whole in (("", True), (" short", False)):
        signer = CommandSigner(key("ada").public, f"{sys.executable} {script}{more}")
        if whole:
            assert signer.sign(MESSAGE) == bytes(64)
        else:
            with pytest.raises(Unavailable):
                signer.sign(MESSAGE)
        seen = Path((tmp_path / "seen").read_text())
        assert not seen.exists()
        assert not seen.parent.exists()


def test_a_command_that_does_not_read_its_input(tmp_path: Path) -> None:
    script = tmp_path / "signer.sh"
    script.write_text("exec 0<&-\nsleep 0.1\nhead -c 64 /dev/zero\n")
    assert CommandSigner(key("ada").public, f"sh {script}").sign(bytes(2**20)) == bytes(64)


@needs("openssl")
def test_openssl(tmp_path: Path) -> None:
    run("openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "planner.pem")
    run("openssl", "pkey", "-in", tmp_path / "planner.pem", "-pubout", "-out", tmp_path / "planner.pub")
    signs(tmp_path / "planner.pub", f"{RECIPES}/openssl.sh {tmp_path}/planner.pem")


@needs("openssl")
def test_a_trust_root_is_signed_by_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(key("root-a").pem(None))
    (tmp_path / "root.pub").write_bytes(key("root-a").public.pem())
    (tmp_path / "pilot.pub").write_bytes(key("pilot").public.pem())
    assert flightbag("init", tmp_path / "ground").status == 0
    files = ("--root-key", tmp_path / "root.pub", "--mission-key", tmp_path / "pilot.pub", "--draft", tmp_path / "d")
    made = flightbag("trust", "new", tmp_path / "ground", "--domain", "fleet", *files, "--json")
    command = f"{RECIPES}/openssl.sh {tmp_path}/root.pem"
    args = ("--key", tmp_path / "root.pub", "--signer", command, "--expect", made.json["code"])
    assert flightbag("trust", "sign", tmp_path / "d", *args).status == 0
    assert flightbag("trust", "rotate", tmp_path / "ground", tmp_path / "d", "--expect", made.json["code"]).status == 0


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent that holds two keys; the file of the second."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        for name in ("other", "planner"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name} of the fleet", "-f", tmp_path / name)
            run("ssh-add", "-q", tmp_path / name)
        yield tmp_path / "planner"
    finally:
        process.terminate()
        process.communicate()


@needs("ssh-agent", "ssh-add", "ssh-keygen")
def test_ssh_agent(agent: Path, tmp_path: Path) -> None:
    recipe = f"{sys.executable} {RECIPES}/ssh_agent.py"
    signs(agent.with_suffix(".pub"), recipe)
    # The same key, as this program reads its file.
    assert PublicKey.of_pem(agent.with_suffix(".pub").read_bytes()) == keyfiles.public_key(agent, lambda prompt: b"")
    (tmp_path / "ada.pub").write_bytes(key("ada").public.pem())
    [stranger] = keyfiles.signers([tmp_path / "ada.pub"], lambda prompt: b"", recipe)
    with pytest.raises(Unavailable, match="ended with status 1"):
        stranger.sign(MESSAGE)
    run("ssh-add", "-q", "-D")
    with pytest.raises(Unavailable, match="ended with status 1"):
        signs(agent.with_suffix(".pub"), recipe)


@needs("softhsm2-util", "pkcs11-tool")
def test_pkcs11(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pkcs11")
    module = next((path for path in MODULES if path.exists()), None)
    if module is None:
        pytest.skip("libsofthsm2.so is not where Debian has it")
    (tmp_path / "tokens").mkdir()
    (tmp_path / "conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nobjectstore.backend = file\n")
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "conf"))
    monkeypatch.setenv("PKCS11_PIN", "271828")
    run("softhsm2-util", "--init-token", "--free", "--label", "fleet", "--pin", "271828", "--so-pin", "314159")
    tool = ("pkcs11-tool", "--module", module, "--token-label", "fleet")
    new = ("--keypairgen", "--key-type", "EC:edwards25519", "--id", "01")
    run(*tool, "--login", "--pin", "env:PKCS11_PIN", *new)
    public = tmp_path / "planner.pub"
    run(*tool, "--read-object", "--type", "pubkey", "--id", "01", "--output-file", public)
    signs(public, f"{sys.executable} {RECIPES}/pkcs11_token.py {module} fleet 01")
    monkeypatch.setenv("PKCS11_PIN", "999999")
    with pytest.raises(Unavailable, match="ended with status"):
        signs(public, f"{sys.executable} {RECIPES}/pkcs11_token.py {module} fleet 01")
