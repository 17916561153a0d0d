"""Disks that fail, and a medium that forgets what was never synced.

`Watched` is a real `Disk` that names every operation before it happens. `PowerCut` stops the program at one of them,
for good. `Failing` gives the system call itself an error, so that the conversion to typed errors runs too.
`Medium` is a model of a file system that keeps only what was made durable: what a power cut may leave.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from store import durable
from store.durable import Disk
from store.index import Index

SYSTEM_CALLS = ("mkdir", "open", "write", "fchmod", "fsync", "rename", "rmdir", "unlink", "ftruncate")


class PowerFails(BaseException):
    """The machine stops here. No handler for ordinary errors sees it."""


class Watched(Disk, ABC):
    """A disk that calls `before` with the name of each operation and its path. One file is synced at a time, so
    that the order is always the same."""

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
    """Gives system call number `at` of `durable` the error `number`; `failed` says which one it was."""

    def __init__(self, at: int, number: int) -> None:
        self.failed = ""
        self.calls = 0
        self._at, self._number = at, number

    @contextmanager
    def installed(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        fakes = {name: self._wrapped(name) for name in SYSTEM_CALLS}
        real = {name: getattr(os, name) for name in dir(os) if not name.startswith("__")}
        with patch.context() as own:
            own.setattr(durable, "os", SimpleNamespace(**{**real, **fakes}))
            yield

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls - 1 == self._at:
                self.failed = f"{name} of {arguments[0]}"
                raise OSError(self._number, os.strerror(self._number), arguments[0])
            return real(*arguments, **options)

        return call


@dataclass
class File:
    """`durable` is what a power cut leaves of the content."""

    content: bytes = b""
    durable: bytes = b""


@dataclass
class Folder:
    """`durable` are the names that a power cut leaves."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)


class Medium(Watched):
    """A disk that also keeps a model of what is durable under `top`.

    fsync of a file makes its content durable, fsync of a directory its names, nothing else does anything. `deaf` names
    operations that this medium does not carry out in the model: a broken order of publication must show.
    """

    def __init__(self, top: Path, visit: Callable[[Medium], None], deaf: tuple[str, ...] = ()) -> None:
        self.top = top
        self.tree = _durable(top)
        self.operations: list[str] = []
        self._visit = visit
        self._deaf = deaf

    def forget(self, *shards: str) -> None:
        """Makes the names of these shards of objects, and those in them, not durable yet."""
        objects = self._folder(str(self.top / "objects"))
        for shard in shards:
            del objects.durable[shard]
            self._folder(str(self.top / "objects" / shard)).durable.clear()

    def before(self, operation: str, path: str) -> None:
        # What the operations so far may have left is looked at before the next one.
        self.operations.append(f"{operation} {os.path.relpath(path, self.top)}")
        self._visit(self)

    def _folder(self, path: str) -> Folder:
        folder: File | Folder = self.tree
        for part in Path(os.path.relpath(path, self.top)).parts:
            assert isinstance(folder, Folder)
            folder = folder.names[part]
        assert isinstance(folder, Folder)
        return folder

    def _file(self, path: str) -> File:
        file = self._folder(os.path.dirname(path)).names[os.path.basename(path)]
        assert isinstance(file, File)
        return file

    def make_directory(self, path: str) -> None:
        super().make_directory(path)
        self._folder(os.path.dirname(path)).names.setdefault(os.path.basename(path), Folder())

    def create(self, path: str, mode: int = 0o644) -> int:
        fd = super().create(path, mode)
        self._folder(os.path.dirname(path)).names[os.path.basename(path)] = File()
        return fd

    def write(self, fd: int, data: bytes | bytearray | memoryview, path: str) -> None:
        super().write(fd, data, path)
        self._file(path).content += bytes(data)

    def sync_file(self, fd: int, path: str) -> None:
        super().sync_file(fd, path)
        if "sync" not in self._deaf:
            self._file(path).durable = self._file(path).content

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        moved = self._folder(os.path.dirname(source)).names.pop(os.path.basename(source))
        self._folder(os.path.dirname(target)).names[os.path.basename(target)] = moved

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        if "sync-directory" not in self._deaf:
            folder = self._folder(path)
            folder.durable = dict(folder.names)

    def remove(self, path: str) -> None:
        super().remove(path)
        self._folder(os.path.dirname(path)).names.pop(os.path.basename(path), None)

    def append(self, path: str, data: bytes, keep: int) -> None:
        folder = self._folder(os.path.dirname(path))
        file = folder.names.setdefault(os.path.basename(path), File())
        assert isinstance(file, File)
        file.content = file.content[:keep]
        super().append(path, data, keep)

    def leave(self, target: Path, *, names: str) -> Path:
        """Writes what a power cut leaves now: only what is durable; with `names="all"` every name got through, but
        of the contents only what is durable."""
        _write(self.tree, target, names == "all")
        return target


def _durable(path: Path) -> Folder:
    folder = Folder()
    for entry in path.iterdir():
        data = b"" if entry.is_dir() else entry.read_bytes()
        folder.names[entry.name] = _durable(entry) if entry.is_dir() else File(data, data)
    folder.durable = dict(folder.names)
    return folder


def _write(folder: Folder, target: Path, all_names: bool) -> None:
    target.mkdir()
    for name, node in (folder.names if all_names else folder.durable).items():
        if isinstance(node, Folder):
            _write(node, target / name, all_names)
        else:
            (target / name).write_bytes(node.durable)
