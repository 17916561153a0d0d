"""Key files and passphrases: the files around `store.trust.keys`."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from store.disk.durable import Disk, replace_file, write_new_file
from store.disk.layout import TOML
from store.errors import Invalid, Unavailable
from store.format.cose import SIGNATURE_SIZE
from store.trust.keys import KEY_FILE_LIMIT, PassphraseNeeded, PrivateKey, PublicKey, Signer

# A person may have to touch the token first.
_SIGNER_SECONDS = 300


def read_file(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a file that the user named. Raises Invalid if it is not there or too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise Invalid(f"{what} {path} is no file", path=str(path)) from error
    except OSError as error:
        raise Unavailable(f"{what} {path} cannot be read: {error.strerror}", path=str(path)) from error
    if len(data) > limit:
        raise Invalid(f"{what} {path} has more than {limit} bytes", path=str(path))
    return data


def passphrase_from(file: Path | None) -> Callable[[str], bytes]:
    """A function that gives the passphrase for a key: the first line of `file`, or asked at the terminal."""

    def ask(prompt: str) -> bytes:
        if file is not None:
            lines = read_file(file, 4096, "the passphrase file").splitlines()
            return lines[0] if lines else b""
        if not sys.stdin.isatty():
            raise Invalid("a passphrase is needed and there is no terminal to ask", remedy="give --passphrase-file")
        return getpass.getpass(prompt).encode()

    return ask


def new_key(path: Path, ask: Callable[[str], bytes] | None, *, confirm: bool) -> PublicKey:
    """Makes a key: PKCS#8 in `path` (mode 0600), encrypted unless `ask` is None, and `path`.pub beside it."""
    public_path = path.with_name(path.name + ".pub")
    for target in (path, public_path):
        if os.path.lexists(target):
            raise Invalid(f"{target} is there already", remedy="give another name; keys are never overwritten")
    key = PrivateKey.generate()
    passphrase = ask(f"New passphrase for {path.name}: ") if ask else None
    if ask and confirm and ask("The same again: ") != passphrase:
        raise Invalid("the two passphrases differ")
    disk = Disk()
    write_new_file(disk, os.path.abspath(path), key.pem(passphrase), 0o600)
    write_new_file(disk, os.path.abspath(public_path), key.public.pem(), 0o644)
    return key.public


def private_key(path: Path, ask: Callable[[str], bytes]) -> PrivateKey:
    """The private key in a file. Its passphrase is asked for only if it has one."""
    data = read_file(path, KEY_FILE_LIMIT, "the key file")
    try:
        try:
            return PrivateKey.of_pem(data, None)
        except PassphraseNeeded:
            return PrivateKey.of_pem(data, ask(f"Passphrase for {path.name}: "))
    except Invalid as error:
        raise Invalid(f"{path}: {error.message}", remedy=error.remedy, path=str(path)) from error


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A key that never comes here: a command signs with it, in a token or on another machine.

    The command is given the bytes on standard input and the kid in FLIGHTBAG_KID, and answers with the 64 bytes of the
    signature on standard output.
    """

    public: PublicKey
    command: str

    def sign(self, message: bytes) -> bytes:
        try:
            argv = shlex.split(self.command)
            done = subprocess.run(  # noqa: S603 - the user's own command, split and not given to a shell
                argv,
                input=message,
                stdout=subprocess.PIPE,
                timeout=_SIGNER_SECONDS,
                check=False,
                env={**os.environ, "FLIGHTBAG_KID": self.public.kid.hex()},
            )
        except subprocess.TimeoutExpired as error:
            text = f"the signer {self.command!r} has not answered for {_SIGNER_SECONDS} s"
            raise Unavailable(text, kind="signer") from error
        except (OSError, ValueError, IndexError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no command"
            raise Unavailable(f"the signer {self.command!r} cannot be run: {why}", kind="signer") from error
        if done.returncode != 0 or len(done.stdout) != SIGNATURE_SIZE:
            raise Unavailable(
                f"the signer {self.command!r} ended with {done.returncode} and {len(done.stdout)} bytes",
                remedy=f"it must end with 0 and write the {SIGNATURE_SIZE} bytes of the signature, and nothing else",
                kind="signer",
            )
        return done.stdout


def signers(paths: Sequence[Path], ask: Callable[[str], bytes], command: str | None) -> list[Signer]:
    """Who signs: the private keys in these files, and for those of public keys the command."""
    found: list[Signer] = []
    for path in paths:
        if is_private(path):
            found.append(private_key(path, ask))
        elif command is None:
            text = f"{path} is a public key, which signs nothing"
            raise Invalid(text, remedy="give the private key, or --signer for the command that has it", path=str(path))
        else:
            found.append(CommandSigner(public_key(path, ask), command))
    if command is not None and not any(isinstance(one, CommandSigner) for one in found):
        raise Invalid("--signer needs a public key", remedy="give its .pub file with --key")
    return found


def public_key(path: Path, ask: Callable[[str], bytes]) -> PublicKey:
    """The public key of a .pub file, or of a private key's file."""
    data = read_file(path, KEY_FILE_LIMIT, "the key file")
    if b"PRIVATE KEY" in data:
        return private_key(path, ask).public
    try:
        return PublicKey.of_pem(data)
    except Invalid as error:
        raise Invalid(f"{path}: {error.message}", path=str(path)) from error


def is_private(path: Path) -> bool:
    return b"PRIVATE KEY" in read_file(path, KEY_FILE_LIMIT, "the key file")


def refuse_inside(option: str, path: Path, folder: str) -> None:
    """Raises Invalid for a root or a state inside the folder that is to be verified: it would vouch for itself."""
    inside = os.path.realpath(folder) + os.sep
    if os.path.realpath(path).startswith(inside):
        raise Invalid(
            f"{option} {path} lies inside {folder}, which is to be verified",
            remedy="give what was handed out apart from it",
        )


def store_above(path: Path) -> str | None:
    """The store that a path lies in, if it does."""
    above = os.path.dirname(os.path.realpath(path))
    while True:
        if os.path.lexists(os.path.join(above, TOML)):
            return above
        if above == os.path.dirname(above):
            return None
        above = os.path.dirname(above)


def write_new(path: Path, data: bytes) -> None:
    """Writes a file to carry. Raises Invalid for one that is there, and for a path inside a store."""
    if os.path.lexists(path):
        raise Invalid(f"{path} is there already", remedy="give another name")
    _refuse_store(path)
    write_new_file(Disk(), os.path.abspath(path), data, 0o644)


def write_over(path: Path, data: bytes) -> None:
    """Writes a file to carry over the one before: after a crash it is the one or the other."""
    _refuse_store(path)
    target = os.path.abspath(path)
    replace_file(Disk(), target, data, os.path.dirname(target))


def _refuse_store(path: Path) -> None:
    if (store := store_above(path)) is not None:
        raise Invalid(f"{path} lies in the store {store}, where it has no place", remedy="give another folder")
