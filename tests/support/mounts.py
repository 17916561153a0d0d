"""Media that are not the machine's own file system: a read-only bind mount, real exFAT, real FAT32.

exFAT and FAT32 are images that user-space drivers (exfat-fuse, fusefat) mount: no chmod, no link, no symlink, names
that do not differ by case. Each helper skips the test, saying why, where this machine or user cannot do it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

_SIZE = 64 * 2**20
# Long enough for any machine; a mount that works takes milliseconds.
_PATIENCE = 20.0

# Binds a folder over itself, read-only, in a mount namespace of the command's own: nothing is left to unmount.
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


def _need(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name, path=_path()) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")


def _path() -> str:
    return os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"


def _program(name: str) -> str:
    found = shutil.which(name, path=_path())
    assert found is not None
    return found


def need_root(what: str) -> None:
    """Skips the test for a user who may not do this."""
    if os.geteuid() != 0:
        pytest.skip(f"{what} needs root")


def behind_read_only_bind(folder: Path) -> list[str]:
    """The words to put before a command that shall find `folder` on a read-only mount, under the same path."""
    need_root("a bind mount")
    _need("unshare", "mount")
    words = [_program("unshare"), "--mount", "--propagation", "private", "sh", "-c", _READ_ONLY, "sh", str(folder)]
    tried = subprocess.run([*words, "touch", str(folder / "x")], capture_output=True, text=True, check=False)
    if "Read-only file system" not in tried.stderr:
        pytest.skip(f"no read-only bind mount here: {tried.stderr.strip()}")
    return words


@dataclass(frozen=True)
class Image:
    """An image file with a file system, and the folder that it is mounted on, both in `folder`."""

    folder: Path
    driver: tuple[str, ...]
    writable: str
    block_device: bool

    @property
    def file(self) -> Path:
        return self.folder / "image"

    @contextmanager
    def mounted(self, *, read_only: bool = False) -> Iterator[Path]:
        """The mount point, mounted for as long as the block lasts; everything is in the image at its end."""
        point = self.folder / "mounted"
        point.mkdir(exist_ok=True)
        with _device(self.file) if self.block_device else nullcontext(str(self.file)) as device:
            command = [*self.driver, "-o", "ro" if read_only else self.writable, device, str(point)]
            # In the foreground: who is gone has written everything.
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
                _wait_for(driver, point)
                try:
                    yield point
                finally:
                    done = subprocess.run(["umount", str(point)], capture_output=True, text=True, check=False)
                    if done.returncode != 0:  # somebody has a file of it open: that is a failure, but nothing stays
                        subprocess.run(["umount", "--lazy", str(point)], check=False)
                    driver.wait(_PATIENCE)
                assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Disk:
    """A file system of the kernel's own (ext4) on a loop device: `image` is the medium, `point` where it is mounted.

    The loop device reads past the cache of the image where `direct`, so that a change of the image is a change of the
    medium, of which the file system's cache knows nothing.
    """

    image: Path
    point: Path
    direct: bool


@contextmanager
def disk(folder: Path) -> Iterator[Disk]:
    """An empty disk in `folder`, mounted for as long as the block lasts."""
    need_root("mounting an image")
    _need("mkfs.ext4", "losetup", "mount", "umount")
    _make(folder, "mkfs.ext4", "-q")
    point = folder / "mounted"
    point.mkdir()
    with _device(folder / "image", "--direct-io=on") as device:
        tried = subprocess.run(["mount", device, str(point)], capture_output=True, text=True, check=False)
        if tried.returncode != 0:
            pytest.skip(f"no ext4 here: {tried.stderr.strip()}")
        try:
            direct = Path("/sys/block", Path(device).name, "loop/dio").read_text().strip() == "1"
            yield Disk(folder / "image", point, direct)
        finally:
            subprocess.run(["umount", "--lazy", str(point)], check=True)


@contextmanager
def _device(file: Path, *options: str) -> Iterator[str]:
    """A loop device for the image."""
    command = [_program("losetup"), *options, "--find", "--show", str(file)]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no loop device: {tried.stderr.strip()}")
    device = tried.stdout.strip()
    try:
        yield device
    finally:
        subprocess.run([_program("losetup"), "--detach", device], check=True)


def _wait_for(driver: subprocess.Popen[bytes], point: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while not os.path.ismount(point):
        if driver.poll() is not None or time.monotonic() > end:
            driver.kill()
            pytest.skip(f"{driver.args!r} does not mount here, status {driver.poll()}")
        time.sleep(0.005)


def exfat(folder: Path) -> Image:
    """An empty exFAT image in `folder`."""
    _need_fuse("mkfs.exfat", "mount.exfat-fuse", "losetup")
    _make(folder, "mkfs.exfat")
    return Image(folder, (_program("mount.exfat-fuse"), "-d"), "rw", block_device=True)


def fat(folder: Path) -> Image:
    """An empty FAT32 image in `folder`."""
    _need_fuse("mkfs.vfat", "fusefat")
    _make(folder, "mkfs.vfat", "-F", "32")
    return Image(folder, (_program("fusefat"), "-f"), "rw+", block_device=False)


def _make(folder: Path, *command: str) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "image").open("xb") as file:
        file.truncate(_SIZE)
    subprocess.run([_program(command[0]), *command[1:], folder / "image"], check=True, capture_output=True)


def _need_fuse(*programs: str) -> None:
    need_root("mounting an image")
    _need(*programs, "umount")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")


@contextmanager
def stopped(point: Path) -> Iterator[None]:
    """The driver of a mounted image stands still while the block runs: no call on its files returns.

    Whoever waits for it cannot even be killed (the kernel waits for an answer to what it has asked already).
    """
    drivers = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and os.fsencode(point) in _command_line(entry).split(b"\0")
    ]
    assert len(drivers) == 1, drivers
    os.kill(drivers[0], signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(drivers[0], signal.SIGCONT)


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""
