"""Disks that fail, and a medium that forgets what was never synced.

`Watched` is a real `Disk` that names every operation before it happens. `PowerCut` stops the program at one of them,
for good. `Failing` gives the system call itself an error, so that the conversion to typed errors runs too.
`Medium` keeps a journal, and makes from it every state that a power cut may leave.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from store.disk import durable, media, opening
from store.disk.durable import Disk, R, T
from store.disk.index import Index

READ_CALLS = ("open", "fstat", "stat", "read", "readv", "scandir")
SYSTEM_CALLS = ("mkdir", "open", "write", "fchmod", "fsync", "rename", "rmdir", "unlink", "ftruncate")


def bad_sectors(patch: pytest.MonkeyPatch, *inodes: int, number: int = errno.EIO, times: int = sys.maxsize) -> None:
    """Makes reads of the bytes of these files fail: all of them, or the first so many."""
    left = [times]

    def refusing(real: Callable[..., object]) -> Callable[..., object]:
        def call(fd: int, *arguments: object) -> object:
            if os.fstat(fd).st_ino in inodes and left[0] > 0:
                left[0] -= 1
                raise OSError(number, os.strerror(number))
            return real(fd, *arguments)

        return call

    for name in ("read", "readv"):
        patch.setattr(os, name, refusing(getattr(os, name)))


class PowerFails(BaseException):
    """The machine stops here. No handler for ordinary errors sees it."""


class Orderly(Disk):
    """A disk that does one thing after the other, so that the order is always the same."""

    def at_once(
        self, task: Callable[[T], R], items: Iterable[T], *, threads: int = 1, stop: Callable[[], None] = lambda: None
    ) -> list[R]:
        return [task(item) for item in items]


class Watched(Orderly, ABC):
    """A disk that calls `before` with the name of each operation and its path. One file is synced at a time."""

    @abstractmethod
    def before(self, operation: str, path: str) -> None:
        """Called with what is about to be done, and to which path."""

    def make_directory(self, path: str) -> None:
        self.before("mkdir", path)
        super().make_directory(path)

    def create(self, path: str, mode: int = 0o644) -> int:
        self.before("create", path)
        return super().create(path, mode)

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        self.before("write", path)
        super().write(fd, data, path)

    def seal(self, fd: int, path: str) -> None:
        self.before("seal", path)
        super().seal(fd, path)

    def sync_file(self, fd: int, path: str) -> None:
        self.before("sync", path)
        super().sync_file(fd, path)

    def sync_files(self, paths: Iterable[str]) -> None:
        for path in paths:
            super().sync_files([path])

    def rename(self, source: str, target: str) -> None:
        self.before("rename", target)
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self.before("sync-directory", path)
        super().sync_directory(path)

    def sync_directories(self, paths: Sequence[str]) -> None:
        for path in paths:
            super().sync_directories([path])

    def remove(self, path: str) -> None:
        self.before("remove", path)
        super().remove(path)

    def append(self, path: str, data: bytes, keep: int) -> None:
        self.before("append", path)
        super().append(path, data, keep)


class Recorded(Watched):
    """Keeps the operations as (name, path)."""

    def __init__(self) -> None:
        self.operations: list[tuple[str, str]] = []

    def before(self, operation: str, path: str) -> None:
        self.operations.append((operation, path))


class PowerCut(Watched):
    """Stops before operation number `stop`, in the middle of it where it is a write, and does nothing ever after."""

    def __init__(self, stop: int) -> None:
        self._left = stop

    def before(self, operation: str, path: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise PowerFails(f"at {operation} of {path}")

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        if self._left == 0:
            os.write(fd, memoryview(data)[: len(data) // 2])
        super().write(fd, data, path)


@contextmanager
def index_watched(disk: Watched, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the commits of the index (step 5) operations of the disk."""
    commit = Index.commit

    def watched(self: Index, **changes: Any) -> None:
        disk.before("index", "")
        commit(self, **changes)

    with patch.context() as own:
        own.setattr(Index, "commit", watched)
        yield


class Failing:
    """Gives system call number `at` of `durable` the error `number`, or of `media` if `reading`; `failed` says it.

    The calls of `opening` count where they serve what is tested.
    """

    def __init__(self, at: int, number: int, *, reading: bool = False) -> None:
        self.failed = ""
        self.calls = 0
        self._at, self._number = at, number
        self._reading = reading
        self._module, self._names = (media, READ_CALLS) if reading else (durable, SYSTEM_CALLS)

    @contextmanager
    def installed(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        fakes = {name: self._wrapped(name) for name in self._names}
        real = {name: getattr(os, name) for name in dir(os) if not name.startswith("__")}
        with patch.context() as own:
            own.setattr(self._module, "os", SimpleNamespace(**{**real, **fakes}))
            if self._reading:
                own.setattr(opening, "os", SimpleNamespace(**{**real, **fakes}))
            else:
                own.setattr(durable, "open_file", self._wrapped("open_file", opening))
                own.setattr(durable, "open_or_create", self._wrapped("open_or_create", opening))
            yield

    def _wrapped(self, name: str, module: Any = os) -> Callable[..., Any]:
        real = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls - 1 == self._at:
                self.failed = f"{name} of {arguments[0]}"
                raise OSError(self._number, os.strerror(self._number), arguments[0])
            return real(*arguments, **options)

        return call


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that an operation changes, on the medium only once `where` is synced.

    `where` is the number of a file or folder. A name effect puts `node` under `name` of a folder, or takes the name
    away where `node` is None; a data effect writes `data` at `offset` of a file, after cutting it to `keep` bytes.
    """

    where: int
    name: str = ""
    node: int | None = None
    offset: int = 0
    data: bytes = b""
    keep: int | None = None

    @property
    def is_write(self) -> bool:
        return not self.name and self.keep is None


# A file's bytes, or the tree below a folder.
Tree = dict[str, "bytes | Tree"]


class Medium(Watched):
    """A real disk that keeps a journal of what it does under `top`, and makes the states that a power cut may leave.

    Names and data are effects of their own, and the medium may keep any of them before the others: a rename may be
    there without the bytes, a file gone from its old name and not yet under its new one. fsync of a file makes its data
    durable, fsync of a folder its names, nothing else does anything; with `at_once`, the barriers of many files or
    folders are one syncfs, which makes all durable. `deaf` names operations that this medium does not
    carry out: a broken order of publication must show. `visit` is called before each operation. The index and the lock
    files are no part of it: the one is a view, the others are the kernel's.
    """

    def __init__(
        self,
        top: Path,
        visit: Callable[[Medium], None] = lambda _: None,
        deaf: tuple[str, ...] = (),
        *,
        at_once: bool = False,
    ) -> None:
        self.top = top
        self.operations: list[str] = []
        self._visit = visit
        self._deaf = deaf
        self._at_once = at_once
        self._log: list[Effect | int] = []  # an int is a sync of that file or folder
        self._folders: set[int] = set()
        self._count = 0
        # Where everything lies now, and how long the files are.
        self._names: dict[str, int] = {}
        self._lengths: dict[int, int] = {}
        self._scan("")
        self._sync_everything()

    def _sync_everything(self) -> None:
        self._log += sorted({e.where for e in self._log if isinstance(e, Effect)})

    def _new(self, path: str, *, folder: bool = False) -> int:
        self._count += 1
        self._names[path] = self._count
        if folder:
            self._folders.add(self._count)
        else:
            self._lengths[self._count] = 0
        return self._count

    def _scan(self, path: str) -> None:
        here = self._new(path, folder=True)
        for entry in sorted(os.scandir(self.top / path), key=lambda entry: entry.name):
            name = f"{path}/{entry.name}" if path else entry.name
            if _outside(name):
                continue
            if entry.is_dir(follow_symlinks=False):
                self._scan(name)
            elif entry.is_file(follow_symlinks=False):
                node = self._new(name)
                data = Path(entry.path).read_bytes()
                self._log.append(Effect(node, data=data))
                self._lengths[node] = len(data)
            else:
                continue
            self._log.append(Effect(here, entry.name, self._names[name]))

    def _relative(self, path: str) -> str | None:
        """The path in the journal; None for what is no part of it."""
        name = os.path.relpath(path, self.top)
        if name == ".":
            return ""
        return None if name.startswith("..") or _outside(name) else name

    def _place(self, name: str, node: int | None) -> None:
        folder, _, last = name.rpartition("/")
        self._log.append(Effect(self._names[folder], last, node))

    def before(self, operation: str, path: str) -> None:
        # What the operations so far may have left is looked at before the next one.
        self.operations.append(f"{operation} {os.path.relpath(path, self.top)}")
        self._visit(self)

    def make_directory(self, path: str) -> None:
        there = os.path.isdir(path)
        super().make_directory(path)
        name = self._relative(path)
        if name and not there:
            self._place(name, self._new(name, folder=True))

    def create(self, path: str, mode: int = 0o644) -> int:
        fd = super().create(path, mode)
        name = self._relative(path)
        if name:
            self._place(name, self._new(name))
        return fd

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        super().write(fd, data, path)
        name = self._relative(path)
        if name:
            node = self._names[name]
            self._log.append(Effect(node, offset=self._lengths[node], data=bytes(data)))
            self._lengths[node] += len(data)

    def sync_file(self, fd: int, path: str) -> None:
        super().sync_file(fd, path)
        name = self._relative(path)
        if name and "sync" not in self._deaf:
            self._log.append(self._names[name])

    def sync_files(self, paths: Iterable[str]) -> None:
        if self._at_once:
            self._syncfs()
        else:
            super().sync_files(paths)

    def sync_directories(self, paths: Sequence[str]) -> None:
        if self._at_once:
            self._syncfs()
        else:
            super().sync_directories(paths)

    def _syncfs(self) -> None:
        self.before("syncfs", str(self.top))
        if "syncfs" not in self._deaf:
            self._sync_everything()

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        old, new = self._relative(source), self._relative(target)
        assert old
        assert new
        moved = {name: node for name, node in self._names.items() if name == old or name.startswith(f"{old}/")}
        for name in [*moved, *(name for name in self._names if name == new)]:
            del self._names[name]
        self._names.update({new + name[len(old) :]: node for name, node in moved.items()})
        self._place(new, self._names[new])
        self._place(old, None)

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        name = self._relative(path)
        if name is not None and "sync-directory" not in self._deaf:
            self._log.append(self._names[name])

    def remove(self, path: str) -> None:
        super().remove(path)
        name = self._relative(path)
        if name and name in self._names:
            self._place(name, None)
            del self._names[name]

    def append(self, path: str, data: bytes, keep: int) -> None:
        name = self._relative(path)
        assert name
        if name not in self._names:
            self._place(name, self._new(name))
        node = self._names[name]
        self._log.append(Effect(node, keep=keep))
        self._lengths[node] = keep
        super().append(path, data, keep)

    def forget(self, *shards: str) -> None:
        """Makes the names of these shards of objects, and those in them, not durable yet."""
        places = {self._names[f"objects/{shard}"] for shard in shards}

        def of_shards(entry: Effect | int) -> bool:
            return isinstance(entry, Effect) and bool(entry.name) and (entry.where in places or entry.node in places)

        # After the syncs of what was there before.
        self._log = [e for e in self._log if not of_shards(e)] + [e for e in self._log if of_shards(e)]

    # -- the states

    def pending(self) -> list[int]:
        """The effects, by their place in the journal, that are not durable yet."""
        synced: set[int] = set()
        found = []
        for at in range(len(self._log) - 1, -1, -1):
            entry = self._log[at]
            if isinstance(entry, int):
                synced.add(entry)
            elif entry.where not in synced:
                found.append(at)
        return found[::-1]

    def cuts(self, random: Random, subsets: int = 20) -> Iterator[tuple[str, Tree]]:
        """Every state that a power cut may leave now: all of what is not durable kept; all of it lost; each alone lost;
        the last write torn at 4 KiB, or its length kept and its bytes lost; and random subsets."""
        pending = self.pending()
        yield "all kept", self.tree(set())
        if not pending:
            return
        yield "all lost", self.tree(set(pending))
        for at in pending:
            yield f"lost: {self._said(at)}", self.tree({at})
        last = pending[-1]
        entry = self._log[last]
        if isinstance(entry, Effect) and entry.is_write:
            for name, data in (
                ("torn", entry.data[: len(entry.data) // 2 // 4096 * 4096]),
                ("zeros", bytes(len(entry.data))),
            ):
                yield f"{name}: {self._said(last)}", self.tree(set(), {last: replace(entry, data=data)})
        for _ in range(subsets):
            yield "some lost", self.tree({at for at in pending if random.random() < 0.5})

    def _said(self, at: int) -> str:
        entry = self._log[at]
        assert isinstance(entry, Effect)
        return f"{entry.name or 'data'} of {entry.where}"

    def tree(self, lost: set[int], changed: Mapping[int, Effect] | None = None) -> Tree:
        """What lies on the medium where some effects are lost and some are others."""
        names: dict[int, dict[str, int]] = {}
        files: dict[int, bytearray] = {}
        for at, entry in enumerate(self._log):
            if isinstance(entry, int) or at in lost:
                continue
            effect = (changed or {}).get(at, entry)
            if effect.name:
                folder = names.setdefault(effect.where, {})
                if effect.node is None:
                    folder.pop(effect.name, None)
                else:
                    folder[effect.name] = effect.node
            else:
                file = files.setdefault(effect.where, bytearray())
                if effect.keep is not None:
                    del file[effect.keep :]
                file.extend(bytes(max(0, effect.offset - len(file))))
                file[effect.offset : effect.offset + len(effect.data)] = effect.data

        def build(node: int) -> Tree:
            return {
                name: build(inner) if inner in self._folders else bytes(files.get(inner, b""))
                for name, inner in names.get(node, {}).items()
            }

        return build(1)

    def leave(self, target: Path, *, names: str) -> Path:
        """Writes one state: of what is not durable nothing, or with `names="all"` the names, but none of the bytes."""
        lost = set(self.pending())
        if names == "all":
            lost = {at for at in lost if not self._log[at].name}  # type: ignore[union-attr]
        write_tree(self.tree(lost), target)
        return target


def _outside(name: str) -> bool:
    return "index" in name.split("/") or "lock" in name.split("/")


def write_tree(tree: Tree, target: Path) -> None:
    """Lays a state out as files."""
    target.mkdir()
    for name, node in tree.items():
        if isinstance(node, dict):
            write_tree(node, target / name)
        else:
            (target / name).write_bytes(node)


def digest_of(tree: Tree) -> bytes:
    """Equal for equal states."""
    hasher = hashlib.blake2b(digest_size=16)

    def feed(node: Tree) -> None:
        for name in sorted(node):
            inner = node[name]
            hasher.update(f"{len(os.fsencode(name))} ".encode() + os.fsencode(name))
            if isinstance(inner, dict):
                hasher.update(b"{")
                feed(inner)
                hasher.update(b"}")
            else:
                hasher.update(f"{len(inner)} ".encode() + inner)

    feed(tree)
    return hasher.digest()
