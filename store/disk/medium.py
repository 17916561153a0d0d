"""The medium that a folder lies on: whether it can be taken out, and whether a read gets past the page cache.

A check of a stick that was just written reads the memory of the kernel, and not the stick. On Linux the mount table
names the device that a folder lies on, and sysfs describes the device. Everything else is unknown, and reported so.
Reads a few small files of /proc and /sys; writes nothing, but `flush` waits for what others wrote.

Only the bytes of files are read past the cache. Names and sizes may be those that the file system remembers.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator

from store.errors import Unavailable
from store.values import dataclass

_MEMORY = frozenset({"tmpfs", "ramfs", "devtmpfs"})
# FAT12 to FAT32, by the kernel's drivers and by one of user space.
_FAT = frozenset({"vfat", "msdos", "fuse.fusefat"})
_NUMBER = re.compile(r"[0-9]+:[0-9]+")
_USB_BUS = re.compile(r"usb[0-9]+")
# The mount table of a machine with thousands of mounts is some hundred KiB.
_LIMIT = 2**20
# A device may lie on others: a partition on a mapped disk, on an encrypted one, on a loop device, on a disk.
_MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class Medium:
    """What a folder lies on.

    `removable` is None where that is not known. `obstacle` says why a read may not get past a cache, "" where it does.
    """

    removable: bool | None
    obstacle: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a store is read. `from_medium` is whether past the page cache; `doubt` says why not where it ought to be."""

    from_medium: bool = False
    doubt: str = ""


def medium_of(fd: int, *, proc: str = "/proc/self", sysfs: str = "/sys") -> Medium:
    """Return what an open folder lies on. Raise nothing: what cannot be found out is unknown."""
    if sys.platform != "linux":
        return Medium(None, f"{sys.platform} does not tell what a folder lies on")
    mount = _mount(fd, proc)
    if mount is None:
        return Medium(None, "the mount table does not tell what the folder lies on")
    device, file_system, source = mount
    if file_system in _MEMORY:
        return Medium(False, f"{file_system} lies in memory")
    if device.startswith("0:"):  # of no device, or of one that only the source names: btrfs, some FUSE drivers
        device = _block_device(source)
    if not device:
        return Medium(None, f"the file system {file_system} names no device")
    medium = _medium_of_device(device, sysfs, _MOST_LAYERS)
    if file_system.startswith("fuse"):
        return Medium(medium.removable, f"the driver of {file_system} has a cache of its own")
    return medium


def largest_file(fd: int, *, proc: str = "/proc/self") -> int | None:
    """Return the most bytes that a file may have on the file system of an open folder, None where no bound is known.

    FAT writes the size of a file in 32 bits; exFAT, which shares its name, in 64.
    """
    mount = _mount(fd, proc) if sys.platform == "linux" else None
    return 2**32 - 1 if mount is not None and mount[1] in _FAT else None


def check_file_sizes(folder: str, sizes: Iterable[tuple[object, int]]) -> None:
    """Raise Unavailable (kind file-too-large) for the first object that the file system of a folder cannot take.

    `sizes` has ids and sizes. Ask before the first byte is written: the system would refuse byte 4,294,967,296.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # whoever writes there will say so
    try:
        most = largest_file(fd)
    finally:
        os.close(fd)
    for what, size in sizes if most is not None else ():
        if most is not None and size > most:
            raise Unavailable(
                f"object {what} has {size} bytes, and the file system of {folder}, FAT, takes no file of 4 GiB or more",
                remedy="format the medium as exFAT, which systems read as widely, or give another one",
                kind="file-too-large",
                path=folder,
                expected=most,
                actual=size,
            )


def _mount(fd: int, proc: str) -> tuple[str, str, str] | None:
    """Return the device (`major:minor`), the file system and the source of the mount that a descriptor lies on."""
    info = re.search(r"^mnt_id:\s*([0-9]+)$", _text(f"{proc}/fdinfo/{fd}"), re.MULTILINE)
    for line in _text(f"{proc}/mountinfo").splitlines() if info else ():
        place, _, what = line.partition(" - ")
        fields, rest = place.split(" "), what.split(" ")
        if info and fields[0] == info[1] and len(fields) > 2 and len(rest) > 1:
            source = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), rest[1])
            return fields[2], rest[0], source
    return None


def _medium_of_device(device: str, sysfs: str, layers: int) -> Medium:
    """Return what a block device (`major:minor`) is, by sysfs: itself, or the devices that it lies on."""
    at = os.path.realpath(f"{sysfs}/dev/block/{device}")
    if not layers or not _NUMBER.fullmatch(device) or not os.path.isdir(at):
        return Medium(None, f"sysfs does not describe the device {device or 'of a file that is gone'}")
    for folder in (at, os.path.dirname(at)):  # a partition lies in the folder of its disk
        backing = _text(f"{folder}/loop/backing_file").rstrip("\n")
        if backing:
            direct = _text(f"{folder}/loop/dio").strip() == "1"
            below = _medium_of_device(_device_of_file(backing), sysfs, layers - 1)
            return Medium(below.removable, "" if direct else "the loop device reads through the cache of its file")
        below_it = [_medium_of_device(one, sysfs, layers - 1) for one in _slaves(folder)]
        if below_it:
            states = {one.removable for one in below_it}
            removable = True if True in states else None if None in states else False
            return Medium(removable, next((one.obstacle for one in below_it if one.obstacle), ""))
    while len(at) > len(os.path.realpath(sysfs)):
        # A USB disk calls itself fixed; so does the reader of an SD card.
        if _USB_BUS.fullmatch(os.path.basename(at)) or _text(f"{at}/type").strip() == "SD":
            return Medium(True)
        if _text(f"{at}/removable").strip() in ("1", "removable"):
            return Medium(True)
        at = os.path.dirname(at)
    return Medium(False)


def _slaves(folder: str) -> Iterator[str]:
    """Yield the devices that a mapped device lies on, as `major:minor`."""
    try:
        names = sorted(os.listdir(f"{folder}/slaves"))
    except OSError:
        return
    for name in names:
        yield _text(f"{folder}/slaves/{name}/dev").strip()


def _block_device(path: str) -> str:
    """Return the block device under a path as `major:minor`, "" where the path leads to none."""
    try:
        status = os.stat(path) if path.startswith("/") else None
    except OSError:
        return ""
    if status is None or not stat.S_ISBLK(status.st_mode):
        return ""
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _device_of_file(path: str) -> str:
    try:
        device = os.stat(path).st_dev
    except OSError:
        return ""
    return f"{os.major(device)}:{os.minor(device)}"


def _text(path: str) -> str:
    """Return the text of a small file, "" where it cannot be read or is larger than the bound."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError:
        return ""
    return os.fsdecode(data) if len(data) <= _LIMIT else ""


def flush(fd: int) -> None:
    """Wait until everything that was written to the file system of an open folder is on its medium.

    The page cache gives up only what is there: until then the pages of a stick that was just written stay. Raise
    OSError, also where an earlier write to the file system failed.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
