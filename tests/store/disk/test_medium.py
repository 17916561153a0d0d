"""What a folder lies on, by trees of sysfs as kernels show them; and that a read really gets past the page cache."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.disk import media as media_module
from store.disk.media import Media, object_path
from store.disk.medium import Medium, Reading, file_system_of, flush, largest_file, medium_of
from store.errors import Unavailable
from store.takeoff.check import takeoff_check
from tests.support.commands import flightbag
from tests.support.missions import ISSUE, NOW, flight
from tests.support.mounts import disk, exfat
from tests.support.stores import ROOT_FILE, SHARD, make_store

# A mission that the clock of this machine lets fly.
LASTING = flight(issue=replace(ISSUE, expires_at=None))
USB = "devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb"
SATA = "devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"
CARD = "devices/platform/soc/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa"
VIRTUAL = "devices/virtual/block"


def table(device: str, file_system: str, source: str) -> str:
    """A mount table in which the mount 42 is what is asked about."""
    return (
        "22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw\n"
        f"42 27 {device} / /media/crew/a\\040stick rw,nosuid shared:7 master:1 - {file_system} {source} rw,errors=ro\n"
        "43 27 8:1 / /boot rw - ext4 /dev/sda1 rw\n"
    )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class Machine:
    """Trees of /proc/self and /sys as a kernel shows them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.sys = folder / "proc", folder / "sys"
        (self.proc / "fdinfo").mkdir(parents=True)
        (self.sys / "dev/block").mkdir(parents=True)
        (self.proc / "fdinfo/7").write_text("pos:\t0\nflags:\t02100000\nmnt_id:\t42\nino:\t2\n")

    def device(self, number: str, path: str, files: Mapping[str, str]) -> None:
        """A device under its number, and files beside it; `..` leads to the devices above."""
        (self.sys / path).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            file = Path(os.path.normpath(self.sys / path / name))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        (self.sys / "dev/block" / number).symlink_to(self.sys / path)

    def lies_on(self, device: str, file_system: str = "vfat", source: str = "/dev/sdb1") -> Medium:
        (self.proc / "mountinfo").write_text(table(device, file_system, source))
        return medium_of(7, proc=str(self.proc), sysfs=str(self.sys))


class TestDevices:
    @pytest.mark.parametrize(
        ("path", "files", "removable"),
        [
            (f"{USB}/sdb1", {"../removable": "1"}, True),
            (f"{USB}/sdb1", {"../removable": "0"}, True),
            (USB, {"removable": "0"}, True),
            (f"{SATA}/sda1", {"../removable": "0", "../../../type": "0"}, False),
            (f"{SATA}/sda1", {"../removable": "1"}, True),
            (f"{CARD}/block/mmcblk0/mmcblk0p1", {"../removable": "0", "../../../type": "SD"}, True),
            (f"{CARD}/block/mmcblk0/mmcblk0p2", {"../removable": "0", "../../../type": "MMC"}, False),
            ("devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1", {"removable": "0"}, False),
            (
                "devices/pci0000:00/0000:00:07.0/0000:05:00.0/nvme/nvme1/nvme1n1",
                {"removable": "0", "../../../removable": "removable"},
                True,
            ),
            (f"{VIRTUAL}/zram0", {"removable": "0"}, False),
        ],
    )
    def test_a_device(self, machine: Machine, path: str, files: Mapping[str, str], removable: bool) -> None:
        machine.device("8:17", path, files)
        assert machine.lies_on("8:17") == Medium(removable)

    @pytest.mark.parametrize("removable", [True, False])
    def test_an_encrypted_disk_is_what_lies_under_it(self, machine: Machine, removable: bool) -> None:
        machine.device("8:1", USB if removable else SATA, {"removable": "0", "dev": "8:1"})
        machine.device("253:1", f"{VIRTUAL}/dm-1", {"removable": "0", "slaves/sdx1/dev": "8:1", "dev": "253:1"})
        machine.device("253:2", f"{VIRTUAL}/dm-2", {"removable": "0", "slaves/dm-1/dev": "253:1"})
        assert machine.lies_on("253:2", "ext4", "/dev/mapper/stick") == Medium(removable)

    def test_a_disk_over_several_is_as_unsure_as_one_of_them(self, machine: Machine) -> None:
        machine.device("8:1", SATA, {"removable": "0"})
        machine.device("9:0", f"{VIRTUAL}/md0", {"slaves/sda/dev": "8:1", "slaves/sdc/dev": "8:33"})
        assert machine.lies_on("9:0", "ext4").removable is None
        machine.device("8:33", USB, {"removable": "0"})
        assert machine.lies_on("9:0", "ext4").removable is True

    @pytest.mark.parametrize("direct", ["0", "1"])
    def test_a_loop_device_is_where_its_file_lies(self, machine: Machine, tmp_path: Path, direct: str) -> None:
        image = tmp_path / "image"
        image.write_bytes(b"")
        number = image.stat().st_dev
        machine.device(f"{os.major(number)}:{os.minor(number)}", f"{USB}/sdb1", {"../removable": "1"})
        machine.device("7:3", f"{VIRTUAL}/loop3", {"loop/backing_file": str(image), "loop/dio": direct})
        medium = machine.lies_on("7:3", "ext4", "/dev/loop3")
        assert (medium.removable, bool(medium.obstacle)) == (True, direct == "0")
        image.unlink()
        assert machine.lies_on("7:3", "ext4", "/dev/loop3").removable is None

    @pytest.mark.parametrize(("layers", "removable"), [(1, True), (8, True), (9, None)])
    def test_so_many_layers_are_followed(self, machine: Machine, layers: int, removable: bool | None) -> None:
        machine.device("8:1", USB, {"removable": "0"})
        below = "8:1"
        for number in range(1, layers):
            device = f"253:{number}"
            machine.device(device, f"{VIRTUAL}/dm-{number}", {"slaves/below/dev": below})
            below = device
        assert machine.lies_on(below, "ext4").removable is removable

    def test_the_look_for_a_removable_device_ends_below_the_top(self, machine: Machine) -> None:
        machine.device("8:1", SATA, {"removable": "0"})
        (machine.sys / "removable").write_text("1")
        (machine.sys / "type").write_text("SD")
        assert machine.lies_on("8:1") == Medium(False)

    @pytest.mark.parametrize("numbers", [("8:1", "8:33"), ("8:33", "8:1")])
    def test_over_several_one_that_is_fixed_and_one_unknown_are_unknown(
        self, machine: Machine, numbers: tuple[str, str]
    ) -> None:
        machine.device("8:1", SATA, {"removable": "0"})
        machine.device("9:0", f"{VIRTUAL}/md0", {"slaves/a/dev": numbers[0], "slaves/b/dev": numbers[1]})
        medium = machine.lies_on("9:0", "ext4")
        assert (medium.removable, "8:33" in medium.obstacle) == (None, True)
        machine.device("8:33", SATA.replace("sda", "sdc"), {"removable": "0"})
        assert machine.lies_on("9:0", "ext4") == Medium(False)

    def test_devices_in_a_circle_are_unknown(self, machine: Machine) -> None:
        machine.device("253:1", f"{VIRTUAL}/dm-1", {"slaves/dm-2/dev": "253:2"})
        machine.device("253:2", f"{VIRTUAL}/dm-2", {"slaves/dm-1/dev": "253:1"})
        assert machine.lies_on("253:1", "ext4").removable is None


class TestMounts:
    def test_a_device_that_only_the_source_names(self, machine: Machine) -> None:
        assert machine.lies_on("0:51", "btrfs", "/dev/null").removable is None, "a device, and no block device"

    @pytest.mark.parametrize("file_system", ["overlay", "nfs4", "9p", "cifs", "zfs", "fuse.sshfs"])
    def test_a_file_system_of_no_device(self, machine: Machine, file_system: str) -> None:
        medium = machine.lies_on("0:51", file_system, "pool/data")
        assert medium.removable is None
        assert file_system in medium.obstacle

    @pytest.mark.parametrize("file_system", ["tmpfs", "ramfs"])
    def test_memory(self, machine: Machine, file_system: str) -> None:
        assert machine.lies_on("0:24", file_system, "tmpfs") == Medium(False, f"{file_system} lies in memory")

    def test_a_user_space_driver_reads_through_a_cache_of_its_own(self, machine: Machine) -> None:
        machine.device("8:17", f"{USB}/sdb1", {"../removable": "1"})
        medium = machine.lies_on("8:17", "fuseblk")
        assert (medium.removable, bool(medium.obstacle)) == (True, True)

    def test_what_cannot_be_found_out_is_unknown(self, machine: Machine) -> None:
        assert machine.lies_on("8:17").removable is None, "sysfs has no such device"
        (machine.proc / "mountinfo").write_text(table("8:17", "vfat", "/dev/sdb1").replace("42 ", "44 "))
        unknown = medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys))
        assert (unknown.removable, bool(unknown.obstacle)) == (None, True)
        (machine.proc / "mountinfo").write_text("42 " * 2**20)
        assert medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys)) == unknown
        assert medium_of(8, proc=str(machine.proc), sysfs=str(machine.sys)) == unknown
        assert medium_of(7, proc="/none", sysfs="/none") == unknown

    @pytest.mark.parametrize(
        "line",
        [
            "42 27 - vfat /dev/sdb1",
            "42 - vfat /dev/sdb1",
            "42 27 8:17 / / rw - vfat",
            "42 27 8:17 / / rw",
            "4 27 8:17 / / rw - vfat /dev/sdb1",
            "420 27 8:17 / / rw - vfat /dev/sdb1",
        ],
    )
    def test_a_line_that_is_cut_or_of_another_mount_says_nothing(self, machine: Machine, line: str) -> None:
        machine.device("8:17", f"{USB}/sdb1", {"../removable": "1"})
        (machine.proc / "mountinfo").write_text(f"{line}\n")
        assert medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys)).removable is None
        (machine.proc / "mountinfo").write_text(f"{line}\n42 27 8:17 - vfat /dev/sdb1\n")
        assert medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys)) == Medium(True)

    @pytest.mark.parametrize("more", [0, 1])
    def test_a_table_of_the_largest_size_is_read(self, machine: Machine, more: int) -> None:
        machine.device("8:17", f"{USB}/sdb1", {"../removable": "1"})
        line = "42 27 8:17 / / rw - vfat /dev/sdb1\n"
        (machine.proc / "mountinfo").write_text(line + "x" * (2**20 - len(line) + more))
        medium = medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys))
        assert medium.removable is (None if more else True)

    def test_another_system(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.platform", "darwin")
        assert medium_of(0) == Medium(None, "darwin does not tell what a folder lies on")


@given(st.text("0123456789 :-/\\\n.afmtuse", max_size=200))
def test_no_mount_table_raises(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        for info in (text, f"42 {text}", f"42 1 8:1 / / rw - {text}"):
            (machine.proc / "mountinfo").write_text(info)
            medium = medium_of(7, proc=str(machine.proc), sysfs=str(machine.sys))
            assert medium.obstacle or medium.removable is not None


# what a store on such a medium says


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> list[Medium]:
    """Sets what the medium of every folder is taken for."""
    here: list[Medium] = []
    monkeypatch.setattr(media_module, "medium_of", lambda fd: here[0])
    return here


@pytest.mark.parametrize(
    ("medium", "asked", "reading"),
    [
        (Medium(False), None, Reading()),
        (Medium(False), True, Reading(from_medium=True)),
        (Medium(True), False, Reading()),
        (Medium(True), None, Reading(from_medium=True)),
        (Medium(True, "its driver remembers"), None, Reading(doubt="the medium itself, as its driver remembers")),
        (Medium(None, "nobody knows"), None, Reading(doubt="the medium itself, as nobody knows")),
        (Medium(False, "it is memory"), None, Reading()),
        (Medium(False, "it is memory"), True, Reading(doubt="the medium itself, as it is memory")),
    ],
)
def test_the_rule(on: list[Medium], tmp_path: Path, medium: Medium, asked: bool | None, reading: Reading) -> None:
    on.append(medium)
    with Media(tmp_path, drop_cache=asked) as media:
        assert media.reading == reading


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "root").write_bytes(ROOT_FILE)
    return make_store(tmp_path / "store", LASTING)


@pytest.mark.parametrize("more", [(), ("--drop-cache",)])
def test_verify_and_fsck_say_where_the_bytes_came_from(on: list[Medium], store: Path, more: tuple[str, ...]) -> None:
    root = store.parent / "root"
    verify, fsck = ("verify", store, "--trust", root, *more), ("fsck", store, "--full", *more)
    past = "the medium, past the page cache"
    on[:] = [Medium(True)]
    verdict = takeoff_check(store, LASTING.id, trust=ROOT_FILE, now=NOW)
    assert verdict.from_medium
    assert not [text for text in verdict.not_judged if "medium" in text]
    for ran in (flightbag(*verify), flightbag(*fsck)):
        assert (ran.status, past in ran.out, "not judged: the medium" in ran.out) == (0, True, False)
    assert flightbag(*verify, "--json").json["missions"][0]["from_medium"] is True
    on[:] = [Medium(None, "nobody knows")]
    verdict = takeoff_check(store, LASTING.id, trust=ROOT_FILE, now=NOW)
    assert (verdict.from_medium, verdict.not_judged[-1]) == (False, "the medium itself, as nobody knows")
    for ran in (flightbag(*verify), flightbag(*fsck)):
        assert (ran.status, past in ran.out, "the medium itself, as nobody knows" in ran.out) == (0, False, True)
    on[:] = [Medium(False)]
    for ran in (flightbag(*verify), flightbag(*fsck)):
        assert (ran.status, past in ran.out, "the medium itself" in ran.out) == (0, bool(more), False)


def test_bytes_that_never_arrived_are_unreadable(
    on: list[Medium], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    on.append(Medium(True))
    monkeypatch.setattr(media_module, "flush", failing)
    with pytest.raises(Unavailable, match="did not arrive") as caught:
        takeoff_check(store, LASTING.id, trust=ROOT_FILE, now=NOW)
    assert (caught.value.errno, bool(caught.value.remedy)) == (errno.EIO, True)
    assert flightbag("verify", store, "--trust", store.parent / "root").status == 3


# real media


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder on a real disk, removed afterwards: the other tests write to memory."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        fd = os.open(name, os.O_RDONLY)
        try:
            if medium_of(fd).obstacle:
                pytest.skip(f"/var/tmp is no disk: {medium_of(fd).obstacle}")
        finally:
            os.close(fd)
        yield Path(name)


def cached(path: Path) -> int:
    """How many pages of a file the kernel remembers."""
    if shutil.which("fincore") is None:
        pytest.skip("fincore: not installed")
    command = ["fincore", "--noheadings", "--output", "PAGES", str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout or 0)


def test_pages_that_were_just_written_are_gone(folder: Path) -> None:
    """Also those that nobody has synced yet: the page cache would keep them."""
    path = folder / "file"
    path.write_bytes(os.urandom(3 * 2**20))
    pages = cached(path)
    assert pages > 700
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    unsynced = cached(path)
    with Media(folder, drop_cache=True) as media:
        assert media.reading == Reading(from_medium=True)
        with media.open("file"):
            assert cached(path) == 0
    assert unsynced == pages, "without the wait, the kernel gave up pages that nobody had synced"


def test_flush_takes_any_folder(folder: Path, tmp_path: Path) -> None:
    for one in (folder, tmp_path):
        fd = os.open(one, os.O_RDONLY)
        try:
            flush(fd)
        finally:
            os.close(fd)
    with pytest.raises(OSError, match="descriptor"):
        flush(2**20)


def test_a_medium_that_differs_from_what_the_kernel_remembers(folder: Path) -> None:
    """One bit of the disk is flipped under the file system: only a read of the medium notices."""
    with disk(folder) as stick:
        store = make_store(stick.point / "store", LASTING)
        os.sync()
        assert takeoff_check(store, LASTING.id, trust=ROOT_FILE, now=NOW).go
        data = (store / object_path(LASTING.entry(SHARD).id)).read_bytes()
        image = bytearray(stick.image.read_bytes())
        assert image.count(data) == 1, "the object lies on the disk once"
        with stick.image.open("r+b") as file:
            file.seek(image.index(data))
            file.write(bytes([data[0] ^ 1]))
            file.flush()
            os.fsync(file.fileno())
        (folder / "root").write_bytes(ROOT_FILE)
        verify, fsck = ("verify", store, "--trust", folder / "root"), ("fsck", store, "--full")
        assert flightbag(*verify).status == 0, "the kernel remembers the right bytes"
        ran = flightbag(*verify, "--drop-cache", "--json")
        if not stick.direct:
            assert "loop device" in ran.json["missions"][0]["not_judged"][-1]
            pytest.skip("this kernel's loop devices have a cache of their own")
        assert [finding["kind"] for finding in ran.json["findings"]] == ["bit-flip"]
        assert flightbag(*fsck, "--drop-cache").status == 4


def test_a_user_space_driver(tmp_path: Path) -> None:
    with exfat(tmp_path / "image").mounted() as stick:
        fd = os.open(stick, os.O_RDONLY)
        try:
            assert "fuseblk has a cache of its own" in medium_of(fd).obstacle
        finally:
            os.close(fd)


@pytest.mark.parametrize(
    ("file_system", "most"),
    [
        *(("vfat", 2**32 - 1), ("msdos", 2**32 - 1), ("fuse.fusefat", 2**32 - 1)),
        *(("exfat", None), ("fuseblk", None), ("ext4", None), ("ntfs3", None)),
    ],
)
def test_how_large_a_file_may_be(machine: Machine, file_system: str, most: int | None) -> None:
    (machine.proc / "mountinfo").write_text(table("8:17", file_system, "/dev/sdb1"))
    assert largest_file(7, proc=str(machine.proc)) == most


def test_of_a_file_system_that_is_not_known_no_bound_is_known(tmp_path: Path) -> None:
    assert largest_file(7, proc=str(tmp_path)) is None


@pytest.mark.parametrize(
    ("file_system", "lacks", "builds"),
    [
        ("ext4", 0, True),
        ("vfat", 3, True),
        ("exfat", 2, True),
        ("fuse.exfat", 2, True),
        ("ramfs", 1, True),
        ("nfs4", 1, False),
        ("fuse.sshfs", 1, False),
        ("something-new", 0, True),
    ],
)
def test_a_file_system_is_known_by_its_name(machine: Machine, file_system: str, lacks: int, builds: bool) -> None:
    machine.lies_on("0:40", file_system, "source")
    found = file_system_of(7, proc=str(machine.proc))
    assert (found.name, len(found.lacks), found.builds) == (file_system, lacks, builds)
    (machine.proc / "mountinfo").write_text("")
    assert file_system_of(7, proc=str(machine.proc)).name == ""
