"""Read-only and odd media: what only reads works with no flag and writes nothing; odd things are findings."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import store as api
from store.durable import Disk
from store.errors import Corrupt, FlightbagError, NotFound
from store.fsck import fsck  # noqa: F401 - imported before a child becomes another user
from store.repository import Repository
from store.sync import apply_sync, plan_sync
from tests.store.test_repair import mend
from tests.support.commands import BIN, flightbag
from tests.support.field import Desk
from tests.support.missions import NOW
from tests.support.mounts import as_nobody, exfat, read_only
from tests.support.stores import (
    ENGINE,
    NORTH,
    ROOT_FILE,
    SOUTH,
    audit,
    check,
    file_of,
    later,
    listing,
    make_store,
    publish,
)


def readers(desk: Desk, store: Path, folder: Path) -> list[tuple[object, ...]]:
    """Every command that only reads a store; what some of them write goes to `folder`."""
    return [
        ("verify", store, "--trust", desk.root),
        ("fsck", store),
        ("fsck", store, "--full"),
        ("fsck", store, "--full", "--drop-cache"),
        ("fsck", store, "--budget", "9s"),
        ("fsck", store, "--exclusive"),
        ("fsck", store, "--repair", "--dry-run"),
        ("sync", store, folder / "target"),
        ("sync", store, folder / "target", "--dry-run"),
        ("sync", folder / "target", store, "--dry-run"),
        ("ls", store),
        ("show", store, "left"),
        ("log", store, "left"),
        ("stats", store),
        ("diff", store, "left", "left"),
        ("pin", store),
        ("gc", store, "--dry-run"),
        ("plan", desk.folder / "left.toml", "--store", store),
        ("checkout", store, "left", folder / "out", "--trust", desk.root),
    ]


@pytest.fixture
def shown() -> Iterator[Path]:
    """A folder that every user can enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_read_only_mount_needs_no_flag_and_gets_no_trace(built: Desk, tmp_path: Path) -> None:
    before = listing(built.store)
    with read_only(built.store, tmp_path / "mount") as mounted:
        for command in readers(built, mounted, tmp_path):
            ran = flightbag(*command)
            assert ran.status == 0, (command, ran.err)
        verdict = api.takeoff_check(mounted, "left", trust=built.root.read_bytes(), now=NOW)
        assert verdict.mission is not None
        name = next(entry.name for entry in verdict.mission.table.entries if entry.kind == "engine")
        assert len(api.load(verdict.mission, name, kind="engine")) > 0
        del verdict
        assert flightbag("gc", mounted).status == 3
        assert flightbag("build", built.folder / "left.toml", "--store", mounted, "--key", built.key).status == 3
    assert listing(built.store) == before


# System calls that change something, as strace prints them; opening to write is told by its flags.
_WRITING = re.compile(
    r"\b(mkdir|rename|unlink|rmdir|chmod|fchmod|chown|utime|truncate|link|symlink|mknod|setxattr)\w*\(|O_WRONLY|O_RDWR|O_CREAT"
)


def test_no_call_that_writes_is_even_tried(built: Desk, tmp_path: Path) -> None:
    """On a store that could be written to: a trace of the system calls, in which no store path is opened to write."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    for number, command in enumerate(readers(built, built.store, tmp_path)):
        if command[0] == "plan":
            continue  # a planner's command, which loads half of the numeric world: the mount above covers it
        trace = tmp_path / f"trace-{number}"
        calls = "trace=%file,%desc"
        done = subprocess.run(
            ["strace", "-f", "-y", "-qq", "-e", calls, "-o", trace, BIN / "flightbag", *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = trace.read_text(errors="replace").splitlines()
        touched = [line for line in lines if str(built.store) in line]
        assert touched, "the trace shows nothing of the store"
        tried = [line for line in touched if _WRITING.search(line.split(str(built.store))[0]) or _opens_to_write(line)]
        assert tried == [], command


def _opens_to_write(line: str) -> bool:
    return "open" in line and any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT"))


def test_a_store_of_another_user(built: Desk, shown: Path) -> None:
    """The crew may read the stick, and no more."""
    store = shown / "store"
    shutil.copytree(built.store, store)
    for path in (store, *store.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root, theirs = shown / "root", shown / "theirs"
    shutil.copy(built.root, root)
    theirs.mkdir()
    theirs.chmod(0o777)
    before = listing(store)
    for command in (("verify", store, "--trust", root), ("fsck", store)):
        assert flightbag(*command).status == 0  # imports everything that it needs

    def work() -> int:
        os.environ["XDG_STATE_HOME"] = str(theirs)
        for number, command in enumerate(
            [
                ("verify", store, "--trust", root),
                ("fsck", store),
                ("fsck", store, "--full"),
                ("sync", store, theirs / "target"),
                ("ls", store),
                ("show", store, "left"),
                ("stats", store),
                ("gc", store, "--dry-run"),
            ]
        ):
            if flightbag(*command).status:
                return number + 1
        return 0 if flightbag("gc", store).status == 3 else 50

    assert as_nobody(work) == 0
    assert listing(store) == before
    assert check_built(theirs / "target", built)


def check_built(store: Path, desk: Desk) -> bool:
    return api.takeoff_check(store, "left", trust=desk.root.read_bytes(), now=NOW).go


class TestExfat:
    """Real exFAT: no hard links, no modes, no case, and a rename that is not atomic."""

    def test_there_and_back(self, tmp_path: Path) -> None:
        source = make_store(tmp_path / "source")
        image = tmp_path / "image"
        with exfat(tmp_path / "stick", image) as stick:
            target = stick / "store"
            self.sync(source, target)
            assert check(target, NORTH.id).go
            publish(source, later(NORTH, camera2=b"fx: 9.0\n"))
            self.sync(source, target)
            assert not audit(target).errors
            # The ground store itself may lie there: its locks and its index work too.
            publish(target, later(SOUTH, 5))
            assert not audit(target).errors
            held = Repository.open(target)
            held.close()
        with exfat(tmp_path / "stick", image, read_only=True) as stick:
            target = stick / "store"
            before = listing(target)
            for mission in (NORTH.id, SOUTH.id):
                assert check(target, mission).go
            for full in (False, True):
                assert not audit(target, full=full).errors
            self.sync(target, tmp_path / "back")
            assert listing(target) == before
        assert check(tmp_path / "back", NORTH.id).go
        assert check(tmp_path / "back", SOUTH.id).go

    def sync(self, source: Path, target: Path) -> None:
        with Repository.open(source) as here:
            try:
                with Repository.open(target) as there:
                    plan = plan_sync(here, there, ())
            except NotFound:
                plan = plan_sync(here, None, ())
            apply_sync(plan, here, target)

    def test_upper_case_names_are_mended_where_there_is_no_case(self, tmp_path: Path) -> None:
        """Some systems write names on FAT in capitals; there `ab` and `AB` are one name."""
        made = make_store(tmp_path / "made")
        with exfat(tmp_path / "stick", tmp_path / "image") as stick:
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
    """What FAT refuses."""

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


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


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
    "socket": _socket,
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


def test_a_missing_right_is_no_missing_object(built: Desk, shown: Path) -> None:
    """A file that this user may not read is "could not look", status 3 and 8, never "missing" and never fine."""
    store = shown / "store"
    shutil.copytree(built.store, store)
    root = shown / "root"
    shutil.copy(built.root, root)
    entry = next(e for e in flightbag("show", store, "left", "--json").json["entries"] if e["kind"] == "engine")
    (store / "objects" / entry["id"][:2] / entry["id"][2:]).chmod(0)
    flightbag("verify", store, "--trust", root)

    def work() -> int:
        os.environ["XDG_STATE_HOME"] = "/nowhere"
        return 100 * (flightbag("verify", store, "--trust", root).status == 3) + flightbag("fsck", store).status

    assert as_nobody(work) == 100, "names and sizes can be read; the bytes cannot"
