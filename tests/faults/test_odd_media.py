"""Media and files that are not what a store is used to: exFAT written to, what FAT lacks, links, devices."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import store as api
from store.disk.durable import Disk
from store.disk.media import object_path
from store.errors import Corrupt, FlightbagError, NoStore, Unavailable
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.takeoff.aircraft import enrol
from store.trust.aircraft_state import AircraftState
from tests.store.audit.test_repair import mend
from tests.support.commands import flightbag, program
from tests.support.missions import pinned
from tests.support.mounts import exfat, fat
from tests.support.opens import make_device, make_socket, opens_of
from tests.support.stores import (
    ENGINE,
    NORTH,
    ROOT_FILE,
    SOUTH,
    audit,
    check,
    file_of,
    later,
    make_store,
    publish,
)


def sync(source: Path, target: Path) -> None:
    with Repository.open(source) as here:
        try:
            with Repository.open(target) as there:
                plan = plan_sync(here, there, ())
        except NoStore:
            plan = plan_sync(here, None, ())
        apply_sync(plan, here, target)


class TestExfat:
    """No hard links, no modes, names that do not differ by case, and a rename that is not atomic.

    Not on FAT32: fusefat, the driver that reads it here, fails to append to a file (EPERM).
    """

    def test_there_and_back(self, tmp_path: Path) -> None:
        source = make_store(tmp_path / "source")
        image = exfat(tmp_path / "image")
        with image.mounted() as stick:
            target = stick / "store"
            sync(source, target)
            assert check(target, NORTH.id).go
            publish(source, later(NORTH, camera2=b"fx: 9.0\n"))
            sync(source, target)
            assert not audit(target).errors
            # The ground store itself may lie there: its locks and its index work too.
            publish(target, later(SOUTH, 5))
            assert not audit(target).errors
        with image.mounted(read_only=True) as stick:
            target = stick / "store"
            assert all(check(target, mission).go for mission in (NORTH.id, SOUTH.id))
            assert not audit(target).errors
            sync(target, tmp_path / "back")
        assert all(check(tmp_path / "back", mission).go for mission in (NORTH.id, SOUTH.id))

    def test_upper_case_names_are_mended_where_there_is_no_case(self, tmp_path: Path) -> None:
        """Some systems write names on FAT in capitals; there `ab` and `AB` are one name."""
        made = make_store(tmp_path / "made")
        with exfat(tmp_path / "image").mounted() as stick:
            target = stick / "store"
            shutil.copytree(made, target, copy_function=shutil.copyfile)
            shutil.rmtree(target / "index")
            path = file_of(target, NORTH.entry(ENGINE).id)
            path.rename(path.with_name("x"))
            path.with_name("x").rename(path.with_name(path.name.upper()))
            assert [one.kind for one in audit(target).findings if not one.information] == ["misnamed"]
            done = mend(target)
            assert not done.audit.errors, done.audit.findings
            assert check(target, NORTH.id).go


class Fat(Disk):
    """What FAT refuses, for machines that cannot mount one."""

    def seal(self, fd: int, path: str) -> None:
        """No modes: see `durable`, which takes the refusal of fchmod for that."""

    def link(self, source: str, target: str) -> None:
        raise AssertionError("no store operation may need a hard link")


def test_nothing_needs_what_fat_lacks(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with Repository.init(store, Fat()) as repository:
        repository.replace("trust/1.root.cbor", ROOT_FILE)
    publish(store, NORTH, disk=Fat())
    names = [str(path.relative_to(store)) for path in store.rglob("*")]
    assert len({name.lower() for name in names}) == len(names), "two names differ by case alone"
    assert not [name for name in names if re.search(r'[<>:"|?*\\]', name)], "a name that FAT cannot hold"
    assert check(store, NORTH.id).go


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: to read it would never end
    except PermissionError:
        pytest.skip("devices cannot be made here")


INSTEAD: dict[str, Callable[[Path], object]] = {
    "link to a file": lambda path: path.symlink_to("/etc/passwd"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "folder": lambda path: path.mkdir(),
    "FIFO": lambda path: os.mkfifo(path),
    "socket": make_socket,
    "device": _device,
}


@pytest.mark.parametrize("what", INSTEAD)
def test_what_is_no_file_is_found_and_healed_and_never_followed(tmp_path: Path, what: str) -> None:
    store = make_store(tmp_path / "store")
    path = file_of(store, NORTH.entry(ENGINE).id)
    keeper = check(store, NORTH.id).mission
    assert keeper is not None
    path.unlink()
    INSTEAD[what](path)
    verdict = check(store, NORTH.id)
    assert [(one.step, one.kind) for one in verdict.findings] == [("F", "wrong-type")]
    with pytest.raises(Corrupt):
        api.load(keeper, ENGINE, kind="engine")
    (finding,) = audit(store).findings
    assert (finding.kind, finding.missions) == ("wrong-type", (NORTH.id, SOUTH.id))
    with Repository.open(store) as source, pytest.raises(FlightbagError):
        apply_sync(plan_sync(source, None, ()), source, tmp_path / "target")
    publish(store, later(NORTH))  # the right bytes come by again
    assert check(store, NORTH.id).go
    assert not audit(store).errors
    assert len(list((store / "quarantine").glob("*/*"))) == 1


def test_a_second_name_is_told_and_flies(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store")
    os.link(file_of(store, NORTH.entry(ENGINE).id), tmp_path / "second")
    assert check(store, NORTH.id).go
    assert [one.kind for one in audit(store).findings] == ["hard-link"]


# A name of each kind that a reader or a writer of a store, of a state or of a pinned root opens.
PLACES = {
    "object": object_path(NORTH.entry(ENGINE).id),
    "manifest": object_path(NORTH.manifest_id),
    "ref": f"missions/{NORTH.id}",
    "draft": "drafts/north-ridge",
    "pin": "pins/one",
    "release": "trust/releases/winter",
    "root": "trust/1.root.cbor",
    "next root": "trust/2.root.cbor",
    "log": "log",
    "toml": "flightbag.toml",
    "lock of the store": "lock/store",
    "lock of the log": "lock/log",
    "lock of a mission": f"lock/mission-{NORTH.id}",
    "lock of the index": "lock/index",
    "owner": "index/owner",
    "index": "index/data.mdb",
    "readers": "index/lock.mdb",
    "shard": os.path.dirname(object_path(NORTH.entry(ENGINE).id)),
}


@pytest.mark.parametrize("what", [make_device, os.mkfifo], ids=["device", "fifo"])
@pytest.mark.parametrize("place", PLACES)
def test_no_command_opens_a_device_or_a_fifo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, what: Callable[[Path], object]
) -> None:
    """Opening some devices acts: a watchdog would restart the aircraft."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    store, root = make_store(tmp_path / "store"), tmp_path / "pinned"
    root.write_bytes(ROOT_FILE)
    path = store / PLACES[place]
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True, parents=True)
    what(path)
    commands: list[tuple[object, ...]] = [
        ("verify", store, "--trust", root),
        ("verify", store, NORTH.id, "--trust", root),
        ("fsck", store, "--full"),
        ("fsck", store, "--mission", NORTH.id),
        ("sync", store, tmp_path / "target"),
        ("gc", store, "--grace", "0s"),
        ("log", store),
        ("ls", store),
        ("stats", store),
        ("show", store, NORTH.id),
        ("checkout", store, NORTH.id, tmp_path / "files", "--trust", root),
        ("discard", store, NORTH.id),
        ("pin", store, "two", str(NORTH.manifest_id)),
        ("trust", "show", store),
    ]
    with opens_of(path) as opens:
        for command in commands:
            ran = flightbag(*command)
            assert "Traceback" not in ran.err, ran.err
        with suppress(FlightbagError):
            publish(store, later(NORTH))
        ran = flightbag("fsck", store, "--repair")
        assert "Traceback" not in ran.err, ran.err
    assert opens == []


@pytest.mark.parametrize("what", [make_device, os.mkfifo], ids=["device", "fifo"])
@pytest.mark.parametrize("place", ["a", "b", "key", "receipts", "lock/state"])
def test_no_command_opens_a_device_or_a_fifo_in_a_state(
    tmp_path: Path, place: str, what: Callable[[Path], object]
) -> None:
    store, state = make_store(tmp_path / "store"), tmp_path / "state"
    enrol(state, AircraftState.initial("uav-07", NORTH.manifest.hosts[0], pinned()))
    path = state / place
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    what(path)
    with opens_of(path) as opens:
        for command in (
            ("verify", store, NORTH.id, "--state", state),
            ("aircraft", "show", "--state", state),
            ("aircraft", "consume", NORTH.manifest.mission.flight, "--state", state),
        ):
            ran = flightbag(*command)
            assert "Traceback" not in ran.err, ran.err
    assert opens == []


class TestFat32:
    def test_an_object_of_4_gib_is_refused_before_the_first_byte(self, tmp_path: Path) -> None:
        """The object is not made: the plan says how large it would be."""
        store = make_store(tmp_path / "store")
        with fat(tmp_path / "image").mounted() as stick, Repository.open(store) as source:
            plan = plan_sync(source, None, ())
            large = replace(plan, missing=(*plan.missing, (ObjectId.of(b"large"), 2**32)))
            with pytest.raises(Unavailable, match="takes no file of 4 GiB or more") as caught:
                apply_sync(large, source, stick / "store")
            assert "exFAT" in caught.value.remedy
            assert (caught.value.kind, os.listdir(stick)) == ("file-too-large", [])

    def test_the_remedy_helps(self, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store")
        with exfat(tmp_path / "image").mounted() as stick, Repository.open(store) as source:
            plan = plan_sync(source, None, ())
            large = replace(plan, missing=(*plan.missing, (ObjectId.of(b"large"), 2**32)))
            with pytest.raises(Unavailable) as caught:  # this one has 64 MiB
                apply_sync(large, source, stick / "store")
            assert caught.value.kind == "no-space"


REFUSING = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

/* Shared maps that may be written, as 9p and FUSE with direct_io refuse them: of files below one folder. */
void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  static void *(*real)(void *, size_t, int, int, int, off_t);
  char link[64], path[4096];
  if (!real) real = dlsym(RTLD_NEXT, "mmap");
  if (fd >= 0 && (flags & MAP_SHARED) && (protection & PROT_WRITE)) {
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) path[length] = 0;
    if (length > 0 && !strncmp(path, FOLDER, strlen(FOLDER))) { errno = EINVAL; return MAP_FAILED; }
  }
  return real(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
  return mmap(at, size, protection, flags, fd, offset);
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="cc is not installed")
def test_without_shared_maps_the_remedy_leads_somewhere(tmp_path: Path) -> None:
    """A library refuses the maps that a file system of another machine refuses; the programs are the real ones."""
    (tmp_path / "far").mkdir()
    store = make_store(tmp_path / "far" / "store")
    (tmp_path / "refusing.c").write_text("#include <stdio.h>\n#include <string.h>\n" + REFUSING)
    folder = f'-DFOLDER="{tmp_path / "far"}/"'
    library = tmp_path / "refusing.so"
    subprocess.run(["cc", "-shared", "-fPIC", folder, "-o", library, tmp_path / "refusing.c", "-ldl"], check=True)
    env = {**os.environ, "LD_PRELOAD": str(library)}
    for _ in range(2):  # whatever was there before, and whatever the first run left
        ran = program("flightbag", "gc", store, env=env)
        assert (ran.status, "share the memory map of a file" in ran.err) == (3, True), ran.err
        shutil.rmtree(store / "index", ignore_errors=True)
    assert f"cp -r {store} DIR" in " ".join(ran.err.split())
    near = tmp_path / "near"
    subprocess.run(["cp", "-r", store, near], check=True)
    assert program("flightbag", "gc", near, env=env).status == 0
    assert program("flightbag", "sync", near, store, env=env).status == 0
    assert program("flightbag", "fsck", store, "--full", env=env).status == 0


class TestSecondCopy:
    """What copies a store over an older copy of it, as a user who may not write a file of mode 0444."""

    @pytest.fixture
    def folder(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    @pytest.mark.parametrize(
        ("command", "whole"),
        [("cp -r", False), ("cp -rn", False), ("cp -rf", True), ("rsync -a", True)],
    )
    def test_it(self, folder: Path, command: str, whole: bool) -> None:
        tool, *options = command.split()
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
        store, stick = make_store(folder / "store", NORTH), folder / "stick"
        who: dict[str, int] = {}
        if os.geteuid() == 0:
            who = {"user": 65534, "group": 65534}
            subprocess.run(["chown", "-R", "65534:65534", folder], check=True)
        copy = [tool, *options, f"{store}/.", stick]
        subprocess.run(copy, check=True, **who)  # type: ignore[call-overload]
        later_camera = later(NORTH, 1, **{"calibration/camera.yaml": b"fx: 2\n"})
        publish(store, later_camera)
        # rsync compares whole seconds, and no crew copies twice within one.
        os.utime(store / "missions" / NORTH.id, (time.time() + 5,) * 2)
        subprocess.run(["chown", "-R", "65534:65534", folder] if who else ["true"], check=True)
        done = subprocess.run(copy, capture_output=True, check=False, **who)  # type: ignore[call-overload]
        with Repository.open(stick) as repository:
            newest = repository.current(NORTH.id).manifest.issue.order == later_camera.manifest.issue.order
        assert (done.returncode == 0 and newest) == whole
