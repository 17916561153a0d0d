"""Key files and passphrases: the files around `store.trust.keys`."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from store.durable import Disk, write_new_file
from store.errors import Invalid, Unavailable
from store.trust.keys import KEY_FILE_LIMIT, PrivateKey, PublicKey


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
        except Invalid as error:
            if not error.fields.get("needs_passphrase"):
                raise
            return PrivateKey.of_pem(data, ask(f"Passphrase for {path.name}: "))
    except Invalid as error:
        raise Invalid(f"{path}: {error.message}", remedy=error.remedy, path=str(path)) from error


def private_keys(paths: Sequence[Path], ask: Callable[[str], bytes]) -> list[PrivateKey]:
    return [private_key(path, ask) for path in paths]


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


def refuse_inside(trust: Path, folder: str) -> None:
    """Raises Invalid for a trust root inside the folder that is to be verified: it would vouch for itself."""
    inside = os.path.realpath(folder) + os.sep
    if os.path.realpath(trust).startswith(inside):
        raise Invalid(
            f"--trust {trust} lies inside {folder}, which is to be verified",
            remedy="give the root file that was handed out apart from it",
        )
