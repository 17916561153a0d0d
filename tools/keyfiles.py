"""Files outside of stores: keys and their passphrases, and files to carry. Also keys that a command signs with.

The bytes of keys are read and written by `store.trust.keys`. The crew waits for `verify`, which loads this module: what
asks for passphrases and runs signers imports there what it needs.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from store.disk.durable import Disk, replace_file, write_new_file
from store.disk.layout import open_store, store_above
from store.disk.media import Media
from store.disk.opening import OtherType, nearest, open_file, type_name
from store.errors import Corrupt, Invalid, Unavailable, Untrusted
from store.format.cose import SIGNATURE_SIZE
from store.takeoff.verify import pinned_root
from store.trust.key_file import (
    KEY_FILE_LIMIT,
    OPENSSH,
    PUBLIC,
    Protection,
    block,
    check_name,
    check_passphrase,
    name_in,
    named,
)
from store.trust.keys import PassphraseNeeded, PrivateKey, PublicKey, Signer
from store.trust.root import ROOT_FILE_LIMIT, SignedRoot
from store.values import dataclass
from tools.printable import printable

if TYPE_CHECKING:
    from builders.sharing import Sharing
    from store.ground.issuing import Keys

# Seconds. A person may have to touch the token first.
_SIGNER_SECONDS = 300


def read_file(path: Path, limit: int, what: str) -> bytes:
    """Return the bytes of a file that the user named.

    `what` names the file in messages. Raise Invalid if it does not exist, is of another type, or has more than `limit`
    bytes, and Unavailable if it cannot be read. Another thing than a file is not opened.
    """
    return _read(path, limit, what, stat.S_ISREG)


def read_file_or_pipe(path: Path, limit: int, what: str) -> bytes:
    """As `read_file`; it may also be a pipe that this program was started with, as by `<(pass show planner)`."""
    return _read(path, limit, what, _is_file_or_pipe if is_pipe(path) else stat.S_ISREG)


def is_pipe(path: Path) -> bool:
    """Whether the path names a pipe that this program was started with. A FIFO, which has a name, is none: whether
    anybody ever writes to it, nobody knows."""
    return str(path.parent) in ("/dev/fd", "/proc/self/fd") and path.is_fifo()


def _read(path: Path, limit: int, what: str, accept: Callable[[int], bool]) -> bytes:
    try:
        fd, _ = open_file(path, os.O_RDONLY, follow=True, accept=accept)
        with open(fd, "rb") as file:
            data = file.read(limit + 1)
    except OtherType as error:
        text = f"{what} {path}: expected a file, found a {type_name(error.mode)}"
        raise Invalid(text, remedy="give the file itself", path=str(path)) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        remedy = "check the path; if it lies on a medium, mount it"
        if near := nearest(path):
            remedy = f"give {near}, or {remedy}"
        raise Invalid(f"{what} {path} does not exist", remedy=remedy, kind="missing", path=str(path)) from error
    except OSError as error:
        text = f"{what} {path} cannot be read: {error.strerror}"
        raise Unavailable(text, remedy="check who may read it, and its medium", path=str(path)) from error
    if len(data) > limit:
        text = f"{what} {path} has more than {limit} bytes"
        raise Invalid(text, remedy=f"give the file of {what}", path=str(path))
    return data


def _is_file_or_pipe(mode: int) -> bool:
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def passphrase_from(file: Path | None, option: str = "--passphrase-file") -> Callable[[str], bytes]:
    """Return a function that gives the passphrase of a key: the first line of `file`, or an answer at the terminal.

    Its argument is the prompt. It raises Invalid, naming the option of the file, if there is neither a file nor a
    terminal, and at the end of input.
    """

    def ask(prompt: str) -> bytes:
        if file is not None:
            lines = read_file_or_pipe(file, 4096, "the passphrase file").splitlines()
            return lines[0] if lines else b""
        if not sys.stdin.isatty():
            raise Invalid("the key needs a passphrase, and standard input is not a terminal", remedy=f"give {option}")
        try:
            import getpass

            return getpass.getpass(printable(prompt)).encode()
        except EOFError as error:  # Ctrl-D
            raise Invalid("no passphrase was given", remedy="run the command again") from error

    return ask


def new_key(path: Path, ask: Callable[[str], bytes] | None, name: str = "", *, confirm: bool) -> PublicKey:
    """Create a key: PKCS#8 in `path` (mode 0600), encrypted unless `ask` is None, and the public key in `path`.pub,
    which proposes a name for it unless that is "".

    Return the public key. With `confirm`, ask for the passphrase twice. Raise Invalid if one of the files exists, for
    what is not a name, and for a passphrase that is too short.
    """
    if name:
        check_name(name)
    public_path = _beside(path)
    for target in (path, public_path):
        if os.path.lexists(target):
            raise Invalid(f"{target} exists already", remedy="give another name; keys are never overwritten")
    key = PrivateKey.generate()
    passphrase = None if ask is None else _new_passphrase(path, ask, confirm=confirm)
    disk = Disk()
    write_new_file(disk, os.path.abspath(path), key.pem(passphrase), 0o600)
    pem = key.public.pem()
    write_new_file(disk, os.path.abspath(public_path), named(pem, name) if name else pem, 0o644)
    return key.public


def _beside(path: Path) -> Path:
    """Return the path at which `keys new` writes the public key of a private one."""
    return path.with_name(path.name + ".pub")


def proposed_name(path: Path, key: PublicKey) -> str:
    """Return the name that the file of a key proposes, or for a private key the .pub file beside it; "" for none."""
    for file in (path, _beside(path)):
        with suppress(Invalid, Unavailable):
            data = read_file(file, KEY_FILE_LIMIT, "the key file")
            if block(data)[0] == PUBLIC:
                return name_in(data) if PublicKey.of_pem(data) == key else ""
    return ""


def _new_passphrase(path: Path, ask: Callable[[str], bytes], *, confirm: bool) -> bytes:
    passphrase = ask(f"New passphrase for {path.name}: ")
    check_passphrase(passphrase)
    if confirm and ask("The same passphrase again: ") != passphrase:
        raise Invalid("the two passphrases differ", remedy="run the command again")
    return passphrase


def rewrap(path: Path, ask: Callable[[str], bytes], ask_new: Callable[[str], bytes], *, confirm: bool) -> PublicKey:
    """Encrypt the private key in `path` again, under another passphrase and as strongly as a new key. Return its
    public key.

    Raise Invalid for a key of OpenSSH: what is written is PKCS#8, which not every OpenSSH reads.

    A crash leaves the old file or the new one, whole, and the file ends with mode 0600. Links are followed. Raise as
    `key_of` and `new_key`, before anything is written.
    """
    target = os.path.realpath(path)
    data = read_file(path, KEY_FILE_LIMIT, "the key file")
    with _named(path):
        if block(data)[0] == OPENSSH:
            raise Invalid("the key is one of OpenSSH", remedy=_ssh_keygen(path))
    key = _private(path, data, ask)
    passphrase = _new_passphrase(path, ask_new, confirm=confirm)
    data = key.pem(passphrase)
    if PrivateKey.of_pem(data, passphrase).public != key.public:
        # Nothing replaces the only copy of a key before it has been read back.
        raise Corrupt(
            f"{path}: the new file would hold another key; the old one stays", remedy="report this as a defect"
        )
    replace_file(Disk(), target, data, os.path.dirname(target), 0o600)
    return key.public


def weaknesses(path: Path) -> tuple[list[str], str]:
    """Return what makes the file of a private key easier to misuse than a new one, and how to mend that; nothing for a
    public key."""
    data = read_file(path, KEY_FILE_LIMIT, "the key file")
    with _named(path):
        label, content = block(data)
        if label == PUBLIC:
            return [], ""
        protection = Protection.of(label, content)
    found = ["it is not encrypted"] if protection is None else list(protection.weaknesses)
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        found.append(f"other users may open it: its mode is {status.st_mode & 0o777:04o}, should be 0600")
    import shlex

    rewrapping = f"flightbag keys rewrap {shlex.quote(str(path))} encrypts the key again, with mode 0600"
    return found, _ssh_keygen(path) if label == OPENSSH else rewrapping


def _ssh_keygen(path: Path) -> str:
    import shlex

    quoted = shlex.quote(str(path))
    return f"ssh-keygen -p -a 100 -f {quoted} encrypts it again; then chmod 600 {quoted}"


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file in every error about its content."""
    try:
        yield
    except Invalid as error:
        if str(path) in error.message:
            raise
        raise error.restated(f"{path}: {error.message}", path=str(path)) from error


def _private(path: Path, data: bytes, ask: Callable[[str], bytes]) -> PrivateKey:
    """Return the private key that a file holds. Ask for its passphrase only if the file is encrypted."""
    with _named(path):
        try:
            return PrivateKey.of_pem(data, None)
        except PassphraseNeeded:
            return PrivateKey.of_pem(data, ask(f"Passphrase for {path.name}: "))


@dataclass(frozen=True, slots=True)
class CommandSigner:
    """A key that this program never reads: a command signs with it, in a token or on another machine.

    The command reads the bytes to sign from standard input, or from the file that FLIGHTBAG_TO_SIGN names, and the kid
    from FLIGHTBAG_KID, and writes the signature of 64 bytes to standard output. The file is gone when it has ended.
    """

    public: PublicKey
    command: str

    def sign(self, message: bytes) -> bytes:
        """Return the signature of 64 bytes. Raise Unavailable (kind `signer`) if the command does not give one."""
        import shlex
        import subprocess
        import tempfile

        try:
            argv = shlex.split(self.command)
            with tempfile.TemporaryDirectory(prefix="flightbag-") as folder:  # for this user only
                to_sign = Path(folder, "to-sign")
                to_sign.write_bytes(message)
                process = subprocess.run(  # noqa: S603 - the user's own command, split and not given to a shell
                    argv,
                    input=message,
                    stdout=subprocess.PIPE,
                    timeout=_SIGNER_SECONDS,
                    check=False,
                    env={**os.environ, "FLIGHTBAG_KID": self.public.kid.hex(), "FLIGHTBAG_TO_SIGN": str(to_sign)},
                )
        except subprocess.TimeoutExpired as error:
            text = f"the signer {self.command!r} has not answered within {_SIGNER_SECONDS} s"
            raise Unavailable(text, remedy="see whether the command waits for something", kind="signer") from error
        except (OSError, ValueError, IndexError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not a command line"
            text = f"the signer {self.command!r} cannot be run: {why}"
            raise Unavailable(text, remedy="check the command that --signer names", kind="signer") from error
        if process.returncode != 0 or len(process.stdout) != SIGNATURE_SIZE:
            raise Unavailable(
                f"the signer {self.command!r} ended with status {process.returncode} after {len(process.stdout)} bytes",
                remedy=f"the command must end with status 0 and write only the {SIGNATURE_SIZE} bytes of the signature",
                kind="signer",
            )
        return process.stdout


def signers(paths: Sequence[Path], ask: Callable[[str], bytes], command: str | None) -> list[Signer]:
    """Return the signers of these files: private keys, and for public keys the command.

    Raise Invalid for a public key without a command, and for a command without a public key.
    """
    result: list[Signer] = []
    for path in paths:
        key = key_of(path, ask)
        if isinstance(key, PrivateKey):
            result.append(key)
        elif command is None:
            text = f"{path} is a public key, and cannot sign"
            private = path.with_suffix("") if path.suffix == ".pub" and path.with_suffix("").is_file() else ""
            remedy = f"give the private key{' ' if private else ''}{private}, or a command that signs as --signer"
            raise Invalid(text, remedy=remedy, path=str(path))
        else:
            result.append(CommandSigner(key, command))
    if command is not None and not any(isinstance(one, CommandSigner) for one in result):
        raise Invalid("--signer needs a public key", remedy="give the .pub file of the key")
    return result


def key_of(path: Path, ask: Callable[[str], bytes]) -> PrivateKey | PublicKey:
    """Return the one key that a file holds, private or public. The file is read once."""
    data = read_file(path, KEY_FILE_LIMIT, "the key file")
    with _named(path):
        if block(data)[0] == PUBLIC:
            return PublicKey.of_pem(data)
    return _private(path, data, ask)


def keys_for_later(paths: Sequence[Path], passphrase_file: Path | None, command: str | None) -> Keys:
    """Return the keys of these files, to be opened when the work is done; mistakes that show without that raise now.

    Raise as `signers` does for files that are absent or no keys and for a command that does not fit them, and Invalid
    for a passphrase that nobody could give.
    """
    ask = passphrase_from(passphrase_file)
    encrypted = {path: _is_encrypted(path) for path in paths}
    public = [path for path in paths if encrypted[path] is None]
    known = [one.public for one in signers(public, ask, command)] if public or command is not None else []
    for path in (path for path in paths if path not in public):
        if encrypted[path]:
            if passphrase_file is None:
                if not sys.stdin.isatty():
                    raise Invalid(
                        f"the key {path} needs a passphrase, and standard input is not a terminal",
                        remedy="give --passphrase-file",
                        path=str(path),
                    )
            elif not is_pipe(passphrase_file):  # which is read once, when the key is opened
                read_file(passphrase_file, 4096, "the passphrase file")
        # `keys new` writes the public key beside the private one.
        beside = _beside(path)
        if beside.is_file():
            known.append(public_key(beside, ask))
    from store.ground.issuing import Keys  # not above: to verify needs nothing of the ground

    return Keys(len(paths), known, lambda: signers(paths, ask, command))


def sharing(
    place: str | None,
    builder_keys: Sequence[Path] = (),
    passphrase_file: Path | None = None,
    command: str | None = None,
) -> Sharing | None:
    """Return the shared cache of a build, with the keys that sign what is put there; None without a cache. Raise as
    `keys_for_later` does, and Invalid for keys without a cache."""
    if place is None:
        if builder_keys:
            raise Invalid("--builder-key needs --shared-cache", remedy="name the cache, or leave the key out")
        return None
    from builders.sharing import Sharing
    from tools.named_remotes import place_named

    signing = command if any(_is_encrypted(path) is None for path in builder_keys) else None
    return Sharing(place_named(place), keys_for_later(builder_keys, passphrase_file, signing))


def _is_encrypted(path: Path) -> bool | None:
    """Return whether the private key of a file is encrypted; None for a public key."""
    with _named(path):
        label, content = block(read_file(path, KEY_FILE_LIMIT, "the key file"))
        return None if label == PUBLIC else Protection.of(label, content) is not None


def public_key(path: Path, ask: Callable[[str], bytes]) -> PublicKey:
    """Return the public key of a .pub file, or of the file of a private key."""
    key = key_of(path, ask)
    return key.public if isinstance(key, PrivateKey) else key


def refuse_inside(option: str, path: Path, folder: str) -> None:
    """Raise Invalid for a trust root or a state inside the folder to verify: the folder would vouch for itself."""
    inside = os.path.realpath(folder) + os.sep
    if os.path.realpath(path).startswith(inside):
        raise Invalid(
            f"{option} {path} lies inside {folder}, the folder that it would vouch for",
            remedy="give a copy that reached you by another way than the store",
        )


def pinned(path: Path) -> SignedRoot:
    """Return the trust root of a file that the user pins. Raise Invalid for any other file: nothing was verified."""
    try:
        return pinned_root(read_file(path, ROOT_FILE_LIMIT, "the trust root"))
    except Untrusted as error:
        raise Invalid(f"{path}: {error.message}", remedy=error.remedy, kind=error.kind, path=str(path)) from error


def open_to_verify(
    store: str, trust: Path | None, state: str | None = None, *, drop_cache: bool | None = None
) -> Media:
    """Open a store to verify it; `drop_cache` as for `Media`.

    Raise as `open_store` does, and Invalid if the trust root or the state lies in it.
    """
    media = open_store(store, drop_cache=drop_cache)
    try:
        for option, path in (("--trust", trust), ("--state", state)):
            if path is not None:
                refuse_inside(option, Path(path), store)
    except Invalid:
        media.close()
        raise
    return media


def write_new(path: Path, data: bytes) -> None:
    """Write a new file to carry. Raise Invalid if the file exists, and for a path inside a store."""
    if os.path.lexists(path):
        raise Invalid(f"{path} exists already", remedy="give another name")
    refuse_store(path)
    write_new_file(Disk(), os.path.abspath(path), data, 0o644)


def write_over(path: Path, data: bytes) -> None:
    """Replace a file to carry: after a crash it has the old bytes or the new ones. Raise Invalid inside a store."""
    refuse_store(path)
    target = os.path.abspath(path)
    replace_file(Disk(), target, data, os.path.dirname(target))


def refuse_store(path: Path) -> None:
    """Raise Invalid for a path inside a store."""
    if (store := store_above(path)) is not None:
        raise Invalid(f"{path} lies in the store {store}, which must not hold it", remedy="give another folder")
