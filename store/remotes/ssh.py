"""A far store on another machine: rsync over ssh, which needs nothing of this project there.

`Ssh` is the transport behind `mirror.Far`. One connection is shared by all the runs of rsync of a sync. rsync writes
each file under another name and renames it when its own checksum of the whole file holds, so a name at the far side
always has all of its bytes; the order of the runs is the order of publication. Its sort order is that of names, so what
has to come first goes in a run of its own.

What goes there is hashed here first, and a file that changed until it was sent is an error. What arrives here is hashed
before it is inserted. Whether the medium there kept it, only a check there tells: `verdicts`.

Far names and sizes come from `mirror`, within its bounds. Output of the other side is read as text that may be hostile.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import IO, Any

from blake3 import blake3

from store.disk.durable import Disk
from store.disk.layout import TMP
from store.disk.media import Media, object_path
from store.disk.objects import hashed, inserting
from store.disk.staging import kept
from store.errors import Corrupt, FlightbagError, NoStore, Unavailable
from store.format.ids import ObjectId
from store.format.manifest import MISSION_ID
from store.ground.repository import Repository
from store.ground.sync import SyncPlan, apply_sync, batches
from store.remotes.mirror import LISTED, Listed, Mirror
from store.remotes.place import Host
from store.values import dataclass

# A connection that is not answered ends after 20 seconds, one that went silent after 60. An fsync there may take long.
_SSH = ("ConnectTimeout=20", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ForwardAgent=no", "ForwardX11=no")
_IDLE, _SILENT = 60, 300
# Names with other bytes than text, and times, play no part: everything is judged by name, type and size.
_LISTED = re.compile(r"([-a-zA-Z])\S{9,10} +([0-9,.]+) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d (.+)")
# A line for each file, when it has gone or come: with its bytes, rsync prints it at the end.
_TOLD = ("--out-format=%b %n", "--outbuf=L")
# So much of an error, and of an answer, is read.
_ERROR_BYTES, _ANSWER_BYTES, _LINE = 8192, 16 * 2**20, 65536
_FAILURE = re.compile(r"^rsync: (?:\[(\w+)\] )?.*\((\d{1,3})\)\s*$", re.MULTILINE)
_NO_FOLDER = re.compile(r"change_dir .* failed: .*\(2\)")
_AGAIN = "run the sync again: what arrived is not sent again"
_RSYNC = "rsync 3.2.4 or newer"

# What ssh says, and then: kind, what happened, what to do. `{login}` is the host with its user.
_REFUSALS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "host-key",
        "shows another host key than the one that is known here",
        "ask the owner of the host whether its key changed, for somebody may sit in between; then `ssh-keygen -R` "
        "and log in once with `ssh {login}`",
    ),
    (
        "Host key verification failed",
        "host-key",
        "has a host key that is not known here",
        "log in once with `ssh {login}`, and compare the fingerprint with the one that the owner of the host gives",
    ),
    (
        "Permission denied",
        "denied",
        "did not let this user in",
        "make `ssh {login}` work: name the key in ~/.ssh/config or give it to ssh-agent; ssh-copy-id adds it there",
    ),
    ("Could not resolve", "unreachable", "has no known address", "check the name, or add it to ~/.ssh/config"),
)
# Error numbers by which rsync explains itself: kind, what happened, what to do. `{where}` is the side.
_FAILURES = {
    2: ("missing", "a file or a folder is missing {where}", f"check the path; {_AGAIN}"),
    13: ("unwritable", "the user {where} may not read or write it", "let that user read and write the store {where}"),
    20: ("wrong-type", "a file lies {where} in the place of a folder", "give the folder of the store {where}"),
    27: (
        "no-space",
        "the file system {where} takes no file that large",
        "format it as exFAT, or raise `ulimit -f` {where}",
    ),
    28: ("no-space", "no space is left {where}", f"free some space {{where}}, and {_AGAIN}"),
    30: ("unwritable", "the medium {where} is read-only", "mount it writable {where}"),
    122: ("no-space", "the quota {where} is used up", f"free some space {{where}}, and {_AGAIN}"),
}
_CUT = frozenset({10, 12, 20, 30, 35, 255})
# Of a file there the reason may be lost: the far side ends before ssh has carried it.
_FILE_ERRORS = frozenset({11, 23})


@dataclass(frozen=True, slots=True)
class FarVerdict:
    """The takeoff check of a mission at the far side. `wrong` says what is against its bytes and signatures, `against`
    what else keeps it from flying there: neither flight nor aircraft is asked. `unknown`: not everything could be read.
    """

    wrong: tuple[str, ...]
    against: tuple[str, ...]
    unknown: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the far side says of its copy: a verdict for each mission that was asked for, or `why` there are none.
    `absent` is true where no flightbag is there: then nothing was verified, and nothing failed."""

    missions: Mapping[str, FarVerdict]
    why: str = ""
    absent: bool = False


class Ssh:
    """An open connection to a far store. `station` names this end: what it left half sent there, it continues."""

    def __init__(self, place: Host, folder: str, station: str, *, interactive: bool) -> None:
        self.place = place
        self.name = str(place)
        self._folder = folder
        self._prepared = self._left = False
        # Files on their way lie in tmp/ of the far store (FORMAT.md 2.10).
        self._staging = f"{TMP}/rsync-{blake3(os.fsencode(station)).hexdigest(16)}"
        options = (*_SSH, f"BatchMode={'no' if interactive else 'yes'}")
        self._control = os.path.join(folder, "c")
        self._ssh = ["ssh", "-T", "-x", *(word for option in options for word in ("-o", option))]
        self._ssh += ["-o", f"ControlPath={self._control.replace('%', '%%')}"]

    def connect(self) -> None:
        """Log in. Whoever has to type a passphrase does so once. Raise Unavailable."""
        # In the background, and ends by itself soon after its last use, also where this process was killed.
        persist = ["-o", "ControlMaster=yes", "-o", f"ControlPersist={_IDLE}", "-N"]
        with tempfile.TemporaryFile(dir=self._folder) as errors:
            command = [*self._ssh, *persist, "--", self.place.login]
            status = _started(command, stdout=subprocess.DEVNULL, stderr=errors).wait()
            if status:
                raise self._refused(_start_of(errors))

    def close(self) -> None:
        """End the connection."""
        command = [*self._ssh, "-O", "exit", "--", self.place.login]
        with suppress(FlightbagError):
            _started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()

    # -- mirror.Far

    def listing(self) -> Iterator[Listed]:
        filters = [*(f"--include=/{one}" for one in (*LISTED, self._staging)), "--exclude=*"]
        command = ["-r", "--list-only", "--no-h", *filters]
        try:  # 24: something went while the list was made
            for line in self._rsync(command, [self._there()], passed=(24,)):
                match = _LISTED.fullmatch(line)
                if match and match[3] != ".":
                    size = int(re.sub("[^0-9]", "", match[2])) if match[1] == "-" else None
                    name = match[3].partition(" -> ")[0] if match[1] == "l" else match[3]
                    self._left |= name == self._staging
                    yield Listed(name, size, match[1] == "d")
        except _NoFolder:
            return

    def fetch(self, files: Mapping[str, int], folder: str) -> None:
        command = ["-I", self._names(files)]
        for _ in self._rsync(command, [self._there(), f"{folder}/"], largest=max(files.values())):
            pass

    def send(self, items: Sequence[tuple[ObjectId, int]], source: Media, progress: Callable[[int], None]) -> None:
        for batch in batches(items):
            stamps = {id_: source.digest(id_, size) for id_, size in batch}
            names = [object_path(id_) for id_ in stamps]
            self._prepare()
            command = ["-I", "--fsync", f"--temp-dir={self._staging}", "--chmod=D755,F444", self._names(names)]
            if self.place.path.startswith("/"):  # rsync takes no relative path of a folder that is not below each file
                command.append(f"--partial-dir={self.place.path}/{self._staging}")
            sizes = {object_path(id_): size for id_, size in batch}
            for line in self._rsync([*_TOLD, *command], [f"{source.path}/", self._there()]):
                progress(sizes.get(line.partition(" ")[2], 0))
            for id_, stamp in stamps.items():
                if source.stamp(object_path(id_)) != stamp:
                    text = f"object {id_} changed while it was sent"
                    raise Unavailable(text, remedy=f"find out who changes the source; {_AGAIN}", object=id_)

    def altered(self, items: Sequence[tuple[ObjectId, int]], source: Media) -> set[ObjectId]:
        names = {object_path(id_): id_ for id_, _ in items}
        command = ["-n", "-c", "--out-format=%i %n", self._names(names)]
        lines = self._rsync(command, [f"{source.path}/", self._there()]) if names else iter(())
        changes = (line.split(" ", 1) for line in lines if line.startswith("<f"))
        return {names[name] for _, name in changes if name in names}

    def publish(self, names: Sequence[str], folder: str) -> None:
        self._prepare()
        # Within a folder the order is that of names, of trust roots that of their versions.
        for _, run in groupby(names, key=lambda name: (os.path.dirname(name), len(name) * name.startswith("trust/"))):
            command = ["-I", "--fsync", f"--temp-dir={self._staging}", "--chmod=D755,F644", self._names(run)]
            for _line in self._rsync(command, [f"{folder}/", self._there()]):
                pass

    def _prepare(self) -> None:
        """Make the folders of a store there, and that of files on their way."""
        if self._prepared:
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as empty:
            for name in ("missions", "objects", "trust", self._staging):
                os.makedirs(os.path.join(empty, name))
            for _ in self._rsync(["-r", "--chmod=D755"], [f"{empty}/", self._there()]):
                pass
        self._prepared = True

    def tidy(self) -> None:
        """Remove the folder of files on their way, once nothing is on its way. What fails is left to the next one."""
        if not (self._prepared or self._left):
            return
        name = os.path.basename(self._staging)
        with tempfile.TemporaryDirectory(dir=self._folder) as empty:
            command = ["-r", "--delete", f"--include=/{name}/", f"--include=/{name}/**", "--exclude=*"]
            with suppress(FlightbagError):
                for _ in self._rsync(command, [f"{empty}/", f"{self._there()}{TMP}/"]):
                    pass
        self._prepared = self._left = False

    # -- the way here

    def bring(
        self,
        items: Sequence[tuple[ObjectId, int]],
        destination: Repository,
        folder: str,
        progress: Callable[[int], None],
    ) -> None:
        """Insert a batch of far objects, durably. `folder`, on the medium of the destination, has what came before."""
        sizes = {object_path(id_): size for id_, size in items}
        left = {id_: os.path.join(folder, object_path(id_)) for id_, _ in items}
        for id_, path in left.items():
            if os.path.lexists(path) and not _is(path, id_):
                destination.disk.remove(path)
        command = ["--size-only", f"--partial-dir={folder}/partial", *_TOLD, self._names(sizes)]
        largest = max(sizes.values(), default=0)
        for line in self._rsync(command, [self._there(), f"{folder}/"], largest=largest):
            progress(sizes.get(line.partition(" ")[2], 0))
        with inserting(destination.media, destination.disk, None) as batch:
            for id_, path in left.items():
                batch.take(path, id_)
            batch.commit()

    # -- a check there

    def verdicts(self, missions: Sequence[str], root: bytes) -> Verdicts:
        """Let flightbag there verify every mission from this trust root, and return what it says of `missions`."""
        assert all(MISSION_ID.fullmatch(mission) for mission in missions)
        script = _SCRIPT.format(root=base64.b64encode(root).decode(), store=shlex.quote(self.place.path))
        with tempfile.TemporaryFile(dir=self._folder) as feed, tempfile.TemporaryFile(dir=self._folder) as errors:
            feed.write(os.fsencode(script))
            feed.seek(0)
            command = [*self._ssh, "--", self.place.login, "sh", "-s"]
            process = _started(command, stdin=feed, stdout=subprocess.PIPE, stderr=errors)
            assert process.stdout is not None
            with _ended(process):
                answer = process.stdout.read(_ANSWER_BYTES)
            status = process.wait()
            if status == _ABSENT:
                return Verdicts({}, f"flightbag is not installed on {self.place.host}", absent=True)
            said = _start_of(errors).strip().splitlines()
        try:
            said_there = json.loads(answer)
            verdicts = {one["mission"]: _verdict(one, said_there["findings"]) for one in said_there["missions"]}
            return Verdicts({mission: verdicts[mission] for mission in missions})
        except (ValueError, LookupError, TypeError, RecursionError):
            return Verdicts({}, f"flightbag there ended with status {status}: {(said or ['no answer'])[-1][:200]}")

    # -- rsync

    def _there(self) -> str:
        return f"{self.place}/"

    def _names(self, names: Iterable[str]) -> str:
        """Return the option that names the files, in a file: there may be more than a command line takes."""
        with tempfile.NamedTemporaryFile("w", dir=self._folder, delete=False) as file:
            file.write("".join(f"{name}\n" for name in names))
        return f"--files-from={file.name}"

    def _rsync(
        self, options: Sequence[str], places: Sequence[str], *, passed: tuple[int, ...] = (), largest: int | None = None
    ) -> Iterator[str]:
        """Run rsync and yield the lines of its output. No file that it writes here has more than `largest` bytes.

        Raise Unavailable for a status that is neither 0 nor in `passed`.
        """
        shell = " ".join(f'"{word}"' if " " in word else word for word in self._ssh)
        command = ["rsync", "-s", f"--timeout={_SILENT}", "-e", shell, *options, "--", *places]
        with tempfile.TemporaryFile(dir=self._folder) as errors:
            process = _started(command, stdout=subprocess.PIPE, stderr=errors)
            if largest is not None and hasattr(resource, "prlimit"):
                with suppress(OSError):  # it ended already
                    limit = max(largest, _LINE)
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
            assert process.stdout is not None
            with _ended(process):
                while line := process.stdout.readline(_LINE):
                    yield line.decode(errors="replace").rstrip("\n")
            status = process.wait()
            if status and status not in passed:
                raise self._failed(status, _start_of(errors), receiving=places[-1] != self._there())

    # -- what went wrong

    def _refused(self, said: str) -> Unavailable:
        for words, kind, what, remedy in _REFUSALS:
            if words in said:
                text = f"{self.place.host} {what}"
                return Unavailable(text, remedy=remedy.format(login=self.place.login), kind=kind, path=self.name)
        last = (said.strip().splitlines() or ["ssh gave no reason"])[-1][:200]
        remedy = f"check that the host is on and that `ssh {self.place.login}` works, and {_AGAIN}"
        return Unavailable(
            f"{self.place.host} cannot be reached: {last}", remedy=remedy, kind="unreachable", path=self.name
        )

    def _failed(self, status: int, said: str, *, receiving: bool) -> Unavailable:
        if _NO_FOLDER.search(said):
            return _NoFolder(f"{self.name} does not exist", remedy="check the path", kind="missing", path=self.name)
        failures = [(side, int(number)) for side, number in _FAILURE.findall(said) if int(number) in _FAILURES]
        kind, what, remedy = "unreachable", f"rsync ended with status {status}", _AGAIN
        first = (said.strip().splitlines() or [""])[0][:200]
        if status in (126, 127) or "command not found" in said:
            kind, what, remedy = "no-rsync", "rsync is not installed there", f"install {_RSYNC} there"
        elif "shell clean" in said:
            kind, what = "unreachable", "the shell there prints more than what rsync says"
            remedy = f"let `ssh {self.place.login} true` print nothing: look at ~/.bashrc and the like there"
        elif status in (1, 2, 4) or "unknown option" in said:
            kind, what, remedy = "no-rsync", "rsync here or there is too old", f"install {_RSYNC} here and there"
        elif failures:
            here = receiving == (failures[0][0].lower() in ("receiver", "generator"))
            where = "here" if here else "there"
            kind, what, remedy = (text.format(where=where) for text in _FAILURES[failures[0][1]])
        elif status in _FILE_ERRORS:
            kind, what = "unwritable", "a file could not be read or written, here or there"
        elif status in _CUT or status < 0:
            kind, what = "unreachable", "the connection was cut"
        return Unavailable(
            f"{self.name}: {what}" + (f" ({first})" if first else ""),
            remedy=remedy,
            kind=kind,
            path=self.name,
            status=status,
            errno=failures[0][1] if failures else None,
        )


class _NoFolder(Unavailable):
    """The folder does not exist there."""


# Where no flightbag is, nothing else answers with this.
_ABSENT = 97
_SCRIPT = f"""command -v flightbag >/dev/null 2>&1 || exit {_ABSENT}
root=$(mktemp) || exit 3
trap 'rm -f "$root"' EXIT
base64 -d >"$root" <<'END' || exit 3
{{root}}
END
flightbag verify {{store}} --trust "$root" --json
"""


@contextmanager
def connected(place: Host, station: str, *, interactive: bool) -> Iterator[Ssh]:
    """Yield a connection to a host. `interactive`: ssh may ask at the terminal. Raise Unavailable."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        ssh = Ssh(place, folder, station, interactive=interactive)
        ssh.connect()
        try:
            yield ssh
        finally:
            ssh.close()


def apply_pull(
    plan: SyncPlan, mirror: Mirror, ssh: Ssh, target: str, progress: Callable[[int], None], disk: Disk | None = None
) -> None:
    """Bring objects from a far store, then trust roots, small files and refs. Raise as `apply_sync` does."""
    for id_, size in plan.missing:
        if not mirror.resident(id_, size):
            raise Corrupt(
                f"object {id_} is missing at {mirror.far.name}, or has another size there",
                remedy="run store-fsck on that store, or sync from another copy",
                kind="missing",
                object=id_,
            )
    with mirror.opened() as source:
        assert source is not None, "a plan has a source"
        with _arriving(target, mirror.far.name, disk or Disk()) as folder:
            apply_sync(
                plan,
                source,
                target,
                disk=disk,
                bring=lambda items, destination: ssh.bring(items, destination, folder, progress),
            )


@contextmanager
def _arriving(target: str, name: str, disk: Disk) -> Iterator[str]:
    """Yield the folder of what arrives at a store. It is made where it does not exist yet."""
    try:
        repository = Repository.open(target, disk)
    except NoStore as error:
        if error.kind != "no-store":
            raise
        repository = Repository.init(target, disk)
    with repository, kept(repository.media, disk, f"rsync-{blake3(os.fsencode(name)).hexdigest(16)}") as folder:
        yield folder


def _started(command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Start ssh or rsync, without input. What the user set for other uses of rsync does not count."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RSYNC_")}
    try:
        return subprocess.Popen(command, env={**env, "LC_ALL": "C"}, **{"stdin": subprocess.DEVNULL, **streams})
    except OSError as error:
        what = _RSYNC if command[0] == "rsync" else "the client of OpenSSH"
        text = f"the program {command[0]} cannot be started: {error.strerror}"
        raise Unavailable(text, remedy=f"install {what} here", kind=f"no-{command[0]}", errno=error.errno) from error


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process where the block is left early: rsync keeps what arrived, if it has the time."""
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _verdict(value: Any, all_findings: Any) -> FarVerdict:
    """Return the verdict of one mission as `flightbag verify --json` prints it. Raise as a look-up does."""
    of_mission = [one for one in all_findings if value["mission"] in one["missions"]]
    findings = [(str(one["step"]), str(one["message"])) for one in of_mission]
    if type(value["go"]) is not bool or value["go"] != (not findings):
        raise ValueError("a verdict contradicts its findings")
    return FarVerdict(
        wrong=tuple(message for step, message in findings if step != "E"),
        against=tuple(message for step, message in findings if step == "E"),
        unknown=value["could_not_look"] is not False,
    )


def _start_of(errors: IO[bytes]) -> str:
    errors.seek(0)
    return errors.read(_ERROR_BYTES).decode(errors="replace")


def _is(path: str, id_: ObjectId) -> bool:
    """Whether a regular file has the bytes of an object."""
    try:
        return hashed(path)[0] == id_
    except FlightbagError:
        return False
