"""Stores on another machine: a real sshd on loopback, real rsync on both sides."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from store.disk.media import object_path
from store.errors import Conflict, Corrupt, FlightbagError, NoStore, Unavailable
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, plan_sync
from store.ground.trust_chain import rotate
from store.remotes.mirror import apply_push, mirrored, plan_push
from store.remotes.place import Host, place_of
from store.remotes.ssh import Verdicts, apply_pull, connected
from tests.support.commands import BIN
from tests.support.missions import ISSUE, NOW, ROOT, flight, root_draft, sign_root
from tests.support.mounts import disk
from tests.support.sshd import Sshd, needs_sshd, running
from tests.support.stores import (
    CAMERA,
    ENGINE,
    NORTH,
    ROOT_FILE,
    SOUTH,
    audit,
    check,
    copy_of,
    file_of,
    flip,
    later,
    listing,
    make_store,
    overwrite,
    publish,
)

pytestmark = needs_sshd
DRILL = bool(os.environ.get("FLIGHTBAG_DRILL"))
LARGE = later(NORTH, 1, big=Random("big").randbytes(6 * 2**20))


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(autouse=True)
def _here(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", sshd.path)
    yield
    for path in sshd.bin.iterdir():
        path.unlink()
    sshd.know("host")
    sshd.let_in("user")
    if sshd.process is None:
        sshd.start()


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that no test changes."""
    return make_store(tmp_path_factory.mktemp("ground") / "store")


@pytest.fixture(scope="module")
def pushed(ground: Path, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of that store that was made by ssh. No test changes it."""
    path, there = os.environ["PATH"], tmp_path_factory.mktemp("pushed") / "store"
    os.environ["PATH"] = sshd.path
    try:
        push(ground, there)
    finally:
        os.environ["PATH"] = path
    return there


def host(path: Path | str) -> Host:
    place = place_of(f"hangar:{path}")
    assert isinstance(place, Host)
    return place


def push(source: Path, target: Path | str, *missions: str, checksum: bool = False) -> SyncPlan:
    with (
        Repository.open(source) as repository,
        connected(host(target), str(source), interactive=False) as ssh,
        mirrored(ssh, repository.media, missions) as mirror,
    ):
        plan = plan_push(repository, mirror, missions, checksum=checksum)
        apply_push(plan, repository, mirror, lambda _: None)
        ssh.tidy()
    return plan


def pull(source: Path | str, target: Path, *missions: str) -> SyncPlan:
    with connected(host(source), str(target), interactive=False) as ssh, mirrored(ssh, None, missions) as mirror:
        with mirror.opened() as repository:
            assert repository is not None
            if target.exists():
                with Repository.open(target) as present:
                    plan = plan_sync(repository, present, missions)
            else:
                plan = plan_sync(repository, None, missions)
        apply_pull(plan, mirror, ssh, str(target), lambda _: None)
    return plan


def verdicts(path: Path, *missions: str, root: bytes = ROOT_FILE) -> Verdicts:
    with connected(host(path), "tests", interactive=False) as ssh:
        return ssh.verdicts(missions, root)


ODD = "n\udce9rd"  # a name in Latin-1, as Python has it


def test_folders_whose_names_are_no_text(ground: Path, tmp_path: Path) -> None:
    here, there = copy_of(ground, tmp_path / f"{ODD} here"), tmp_path / f"{ODD} there"
    push(here, there)
    pull(there, tmp_path / f"{ODD} back")
    assert check(tmp_path / f"{ODD} back", NORTH.id).go
    assert verdicts(there, NORTH.id).absent


def inodes(store: Path) -> dict[str, int]:
    """The objects of a store, each with the inode of its file: one that is written again has another."""
    return {str(path.relative_to(store)): path.stat().st_ino for path in (store / "objects").glob("*/*")}


class TestPush:
    def test_a_new_store(self, pushed: Path) -> None:
        assert audit(pushed).findings == ()
        assert all(check(pushed, one.id).go for one in (NORTH, SOUTH))
        assert list((pushed / "tmp").iterdir()) == []
        assert {path.stat().st_mode & 0o777 for path in (pushed / "objects").glob("*/*")} == {0o444}

    def test_nothing_to_do_writes_nothing(self, ground: Path, pushed: Path) -> None:
        before = listing(pushed)
        plan = push(ground, pushed)
        assert (plan.missing, plan.unchanged) == ((), (NORTH.id, SOUTH.id))
        assert listing(pushed) == before

    def test_only_what_is_missing_goes(self, ground: Path, pushed: Path, tmp_path: Path) -> None:
        source, there = copy_of(ground, tmp_path / "source"), copy_of(pushed, tmp_path / "there")
        publish(source, newer := later(NORTH, camera=b"fx: 3.0\n"))
        before = inodes(there)
        plan = push(source, there)
        assert [move.mission for move in plan.moves] == [NORTH.id]
        after = inodes(there)
        assert {name: after[name] for name in before} == before
        assert set(after) - set(before) == {object_path(id_) for id_, _ in plan.missing}
        assert check(there, NORTH.id).mission.manifest_id == newer.manifest_id  # type: ignore[union-attr]
        assert not audit(there).errors

    @pytest.mark.parametrize("name", ["-rf", 'it\'s a "$HOME" `id` ;#& größe a:b %h'])
    def test_the_names_of_folders(self, ground: Path, tmp_path: Path, name: str) -> None:
        push(ground, tmp_path / name, NORTH.id)
        assert check(tmp_path / name, NORTH.id).go
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert pull(tmp_path / name, tmp_path / "back").moves
        assert check(tmp_path / "back", NORTH.id).go

    def test_a_path_below_the_home_folder(self, ground: Path, tmp_path: Path) -> None:
        push(ground, os.path.relpath(tmp_path / "there", Path.home()), NORTH.id)
        assert check(tmp_path / "there", NORTH.id).go

    def test_a_damaged_object_does_not_go(self, ground: Path, tmp_path: Path) -> None:
        flip(file_of(source := copy_of(ground, tmp_path / "source"), NORTH.entry(CAMERA).id))
        with pytest.raises(Corrupt):
            push(source, tmp_path / "there")
        assert not list((tmp_path / "there" / "missions").iterdir())

    def test_an_object_that_changes_while_it_is_sent(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        path = file_of(source := copy_of(ground, tmp_path / "source"), NORTH.entry(CAMERA).id)
        sshd.put("rsync", f'printf x | dd of="{path}" conv=notrunc 2>/dev/null\nexec {shutil.which("rsync")} "$@"')
        path.chmod(0o644)
        with pytest.raises(FlightbagError):
            push(source, tmp_path / "there")
        assert not (tmp_path / "there" / "missions" / NORTH.id).exists()


class TestPull:
    def test_the_way_back(self, pushed: Path, tmp_path: Path) -> None:
        before = listing(pushed)
        assert len(pull(pushed, tmp_path / "back").moves) == 2
        assert listing(pushed) == before
        assert audit(tmp_path / "back").findings == ()
        assert list((tmp_path / "back" / "tmp").iterdir()) == []

    @pytest.mark.parametrize("damage", [flip, lambda path: overwrite(path, lambda data: data + b"x")])
    def test_a_damaged_object_is_not_taken(self, pushed: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
        there, back = copy_of(pushed, tmp_path / "there"), tmp_path / "back"
        damage(file_of(there, NORTH.entry(CAMERA).id))
        with pytest.raises(Corrupt, match=str(NORTH.entry(CAMERA).id)):
            pull(there, back)
        assert not (back / "missions" / NORTH.id).exists()
        assert not file_of(back, NORTH.entry(CAMERA).id).exists()
        file_of(there, NORTH.entry(CAMERA).id).unlink()
        shutil.copy(file_of(pushed, NORTH.entry(CAMERA).id), file_of(there, NORTH.entry(CAMERA).id))
        pull(there, back)
        assert check(back, NORTH.id).go

    def test_nothing_is_there(self, tmp_path: Path) -> None:
        with (
            connected(host(tmp_path / "nowhere"), "tests", interactive=False) as ssh,
            mirrored(ssh) as mirror,
            mirror.opened() as repository,
        ):
            assert repository is None


class TestPoisoned:
    """Somebody else can write at the far side."""

    def test_a_swapped_object_is_found_by_a_checksum(self, ground: Path, pushed: Path, tmp_path: Path) -> None:
        there = copy_of(pushed, tmp_path / "there")
        flip(file_of(there, NORTH.entry(CAMERA).id))
        assert not push(ground, there).missing
        assert [id_ for id_, _ in push(ground, there, checksum=True).missing] == [NORTH.entry(CAMERA).id]
        assert audit(there).findings == ()

    def test_another_trust_domain(self, ground: Path, tmp_path: Path) -> None:
        with Repository.init(tmp_path / "other") as repository:
            rotate(repository, root_draft(sign_root(replace(ROOT, domain="elsewhere"), "root-a")), now=NOW)
        with pytest.raises(Conflict, match=f"hangar:{tmp_path}/other is of the trust domain"):
            push(ground, tmp_path / "other")

    def test_a_newer_mission_stays(self, ground: Path, pushed: Path, tmp_path: Path) -> None:
        publish(there := copy_of(pushed, tmp_path / "there"), later(NORTH))
        before = listing(there)
        assert push(ground, there).newer == (NORTH.id,)
        assert listing(there) == before

    @pytest.mark.parametrize("name", ["missions", "objects", "trust", "objects/{shard}"])
    def test_links_in_the_place_of_folders(self, ground: Path, pushed: Path, tmp_path: Path, name: str) -> None:
        there = copy_of(pushed, tmp_path / "there")
        path = there / name.format(shard=str(NORTH.manifest_id)[:2])
        path.rename(tmp_path / "outside")
        path.symlink_to(tmp_path / "outside")
        before = listing(tmp_path)
        with pytest.raises(Corrupt):
            push(ground, there)
        with pytest.raises(Corrupt):
            pull(there, tmp_path / "back")
        assert listing(tmp_path) == before

    @pytest.mark.parametrize("name", ["missions/north-ridge", "trust/1.root.cbor", "{object}", "tmp"])
    def test_links_in_the_place_of_files(self, ground: Path, pushed: Path, tmp_path: Path, name: str) -> None:
        there = copy_of(pushed, tmp_path / "there")
        path = there / name.format(object=object_path(NORTH.entry(ENGINE).id))
        path.rename(outside := tmp_path / "outside")
        path.symlink_to(outside)
        before = listing(outside) if outside.is_dir() else outside.read_bytes()
        publish(source := copy_of(ground, tmp_path / "source"), later(NORTH))
        try:
            push(source, there)
        except FlightbagError:
            assert name == "tmp"
        else:
            assert check(there, NORTH.id).go
        assert (listing(outside) if outside.is_dir() else outside.read_bytes()) == before

    def test_a_folder_of_something_else(self, ground: Path, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "photo.jpg").write_bytes(b"x")
        with pytest.raises(NoStore):
            push(ground, tmp_path / "home")
        assert [path.name for path in (tmp_path / "home").iterdir()] == ["photo.jpg"]

    def test_a_file_that_grows_while_it_is_fetched(
        self, ground: Path, pushed: Path, tmp_path: Path, sshd: Sshd
    ) -> None:
        there, begun = copy_of(pushed, tmp_path / "there"), tmp_path / "begun"
        grow = f"head -c 9000000 /dev/zero >>{there}/missions/{NORTH.id}"
        sshd.put("rsync", f'[ -e {begun} ] && {grow}; touch {begun}; exec {shutil.which("rsync")} "$@"')
        with pytest.raises(Unavailable):
            push(ground, there)

    @pytest.mark.parametrize("answer", ["cat /dev/urandom", "yes", "true", "cat", "exec sleep 30 <&-"])
    def test_a_program_that_is_no_rsync(self, ground: Path, tmp_path: Path, sshd: Sshd, answer: str) -> None:
        sshd.put("rsync", f"timeout 3 {answer}")
        with pytest.raises(Unavailable):
            push(ground, tmp_path / "there")
        assert not (tmp_path / "there").exists()


class TestRefusals:
    """Each names its cause and a remedy, and none waits for somebody to type."""

    def refused(self, source: Path, target: Path | str) -> Unavailable:
        begun = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            push(source, target)
        assert caught.value.remedy
        assert time.monotonic() - begun < 30
        return caught.value

    def test_host_keys(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.know("")
        assert (error := self.refused(ground, tmp_path / "there")).kind == "host-key"
        assert "ssh hangar" in error.remedy
        sshd.know("other")
        assert (error := self.refused(ground, tmp_path / "there")).kind == "host-key"
        assert "another host key" in error.message
        assert "ssh-keygen -R" in error.remedy

    def test_a_key_that_is_not_let_in(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.let_in("other")
        assert self.refused(ground, tmp_path / "there").kind == "denied"

    def test_a_host_that_is_off_or_unknown(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.stop()
        assert self.refused(ground, tmp_path / "there").kind == "unreachable"
        sshd.let_in("user", HostName="no-such-host.invalid")
        assert "known address" in self.refused(ground, tmp_path / "there").message

    def test_no_rsync_there_and_here(
        self, ground: Path, tmp_path: Path, sshd: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sshd.put("rsync", "echo 'sh: rsync: command not found' >&2; exit 127")
        assert "install rsync 3.2.4 or newer there" in self.refused(ground, tmp_path / "there").remedy
        sshd.put("rsync", "echo 'rsync: --fsync: unknown option' >&2; exit 1")
        assert "install rsync 3.2.4 or newer" in self.refused(ground, tmp_path / "there").remedy
        monkeypatch.setenv("PATH", str(sshd.folder / "here"))
        assert "install rsync 3.2.4 or newer here" in self.refused(ground, tmp_path / "there").remedy
        monkeypatch.setenv("PATH", "/nowhere")
        assert "OpenSSH" in self.refused(ground, tmp_path / "there").remedy

    def test_paths_there(self, ground: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        assert self.refused(ground, tmp_path / "nowhere" / "there").kind == "missing"
        assert self.refused(ground, tmp_path / "file").kind == "wrong-type"
        assert self.refused(ground, "/proc/there").kind in ("missing", "unwritable")

    def test_an_error_of_a_file_whose_reason_was_lost(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.put("rsync", f'{shutil.which("rsync")} "$@" 2>/dev/null')
        assert self.refused(ground, "/proc/there").kind in ("missing", "unwritable")

    def test_a_shell_that_prints(self, ground: Path, tmp_path: Path, sshd: Sshd) -> None:
        sshd.put("rsync", f'echo Welcome aboard; exec {shutil.which("rsync")} "$@"')
        assert "print nothing" in self.refused(ground, tmp_path / "there").remedy

    def test_a_full_disk_there_and_then_room(self, tmp_path: Path) -> None:
        source = make_store(tmp_path / "source", LARGE)
        (tmp_path / "medium").mkdir()
        with disk(tmp_path / "medium") as medium:
            filler = medium.point / "filler"
            with filler.open("wb", buffering=0) as file:
                with suppress(OSError):
                    while file.write(bytes(2**18)):
                        pass
                file.truncate(file.tell() - 3 * 2**20)
            error = self.refused(source, medium.point / "there")
            assert (error.kind, error.errno) == ("no-space", 28)
            assert "free some space there" in error.remedy
            filler.unlink()
            push(source, medium.point / "there")
            assert check(medium.point / "there", NORTH.id).go


class TestInterrupted:
    """Cut anywhere, then run again: all is whole, and what had arrived is not sent again."""

    def cut(self, work: Callable[[], object], sshd: Sshd, when: float, *, kill: bool) -> bool:
        """Does the work in a child; after so long the child is killed, or the cable is pulled. Whether that came
        first."""
        pid = os.fork()
        if not pid:
            status = 1
            try:
                quiet = os.open(os.devnull, os.O_WRONLY)
                os.dup2(quiet, 1)
                os.dup2(quiet, 2)
                work()
                status = 0
            finally:
                os._exit(status)
        time.sleep(when)
        if kill:
            os.kill(pid, signal.SIGKILL)
        else:
            sshd.stop()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if sshd.process is None:
            sshd.start()
        return status != 0

    def test_at_random_moments(self, tmp_path: Path, sshd: Sshd) -> None:
        source = make_store(tmp_path / "source", LARGE, SOUTH)
        begun = time.monotonic()
        push(source, tmp_path / "whole")
        whole, random, cuts = time.monotonic() - begun, Random("ssh"), 0
        for number in range(50 if DRILL else 2):
            there, back = tmp_path / f"there-{number}", tmp_path / f"back-{number}"
            for work, target in ((lambda: push(source, there), there), (lambda: pull(there, back), back)):  # noqa: B023
                cuts += self.cut(work, sshd, random.random() * whole, kill=random.random() < 0.5)
                before = inodes(target) if target.exists() else {}
                for one in (NORTH, SOUTH):
                    if (target / "missions" / one.id).exists():
                        assert check(target, one.id).go
                work()
                after = inodes(target)
                assert {name: after.get(name) for name in before} == before
                assert all(check(target, one.id).go for one in (NORTH, SOUTH))
                assert not audit(target).errors
                if list((target / "tmp").iterdir()):  # of a run that was killed a child lives on for a moment
                    work()
                assert list((target / "tmp").iterdir()) == []
            shutil.rmtree(there)
            shutil.rmtree(back)
        assert cuts

    def test_what_was_left_on_its_way_goes_with_the_next_sync(self, ground: Path, pushed: Path, tmp_path: Path) -> None:
        there = copy_of(pushed, tmp_path / "there")
        with connected(host(there), str(ground), interactive=False) as ssh:
            ssh._prepare()
        assert list((there / "tmp").iterdir())
        assert not push(ground, there).missing
        assert not list((there / "tmp").iterdir())

    def test_the_half_of_a_large_object_is_not_sent_again(self, tmp_path: Path, sshd: Sshd) -> None:
        source = make_store(tmp_path / "source", LARGE)
        there, back, log = tmp_path / "there", tmp_path / "back", tmp_path / "log"
        for target, work in ((there, lambda: push(source, there)), (back, lambda: pull(there, back))):
            sshd.count_rsync(log, limit=4 * 2**20)
            with pytest.raises(Unavailable) as caught:
                work()
            assert "again" in caught.value.remedy
            assert not (target / "missions" / NORTH.id).exists()
            log.unlink()
            sshd.count_rsync(log)
            work()
            assert check(target, NORTH.id).go
            assert sum(map(int, log.read_text().split())) < 4 * 2**20
            log.unlink()


class TestVerdicts:
    @pytest.fixture
    def there(self, tmp_path: Path) -> Path:
        lasting = replace(ISSUE, expires_at=None)
        return make_store(tmp_path / "there", flight(issue=lasting), SOUTH)

    def test_flightbag_is_there(self, there: Path, sshd: Sshd) -> None:
        sshd.put("flightbag", f'exec {BIN}/flightbag "$@"')
        said = verdicts(there, NORTH.id, SOUTH.id)
        assert (said.why, said.absent) == ("", False)
        assert (said.missions[NORTH.id].wrong, said.missions[NORTH.id].against) == ((), ())
        assert said.missions[SOUTH.id].wrong == ()
        assert "expired" in said.missions[SOUTH.id].against[0]
        flip(file_of(there, NORTH.entry(CAMERA).id))
        said = verdicts(there, NORTH.id)
        assert str(NORTH.entry(CAMERA).id) in said.missions[NORTH.id].wrong[0]

    def test_flightbag_is_not_there(self, there: Path) -> None:
        said = verdicts(there, NORTH.id)
        assert said.absent
        assert "hangar" in said.why

    @pytest.mark.parametrize(
        "script",
        [
            "exit 0",
            'echo \'{"missions": [], "findings": []}\'',
            'echo \'{"missions": [{"mission": "north-ridge"}], "findings": []}\'',
            'echo \'{"missions": [{"mission": "north-ridge", "go": true, "could_not_look": false}]}\'',
            "echo '['",
            "yes '[' | head -c 200000",
            "exit 3",
        ],
    )
    def test_an_answer_that_is_none_vouches_for_nothing(self, there: Path, sshd: Sshd, script: str) -> None:
        sshd.put("flightbag", script)
        said = verdicts(there, NORTH.id)
        assert said.missions == {}
        assert said.why
        assert not said.absent
