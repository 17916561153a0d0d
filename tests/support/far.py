"""A far store without a network: another folder of this machine behind the interface of the transports, which
`tests/store/remotes` also runs over the real ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from store.disk.media import Media, object_path
from store.disk.objects import inserting
from store.errors import FlightbagError
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.remotes.mirror import Listed


class FolderFar:
    """`store.remotes.mirror.Far` over a folder. `calls` has what was asked of it, `meanwhile` runs after objects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = "hangar:store"
        self.calls: list[tuple[str, list[str]]] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def listing(self) -> Iterator[Listed]:
        for top, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = Path(top, name)
                size = path.lstat().st_size if path.is_file() and not path.is_symlink() else None
                yield Listed(str(path.relative_to(self.path)), size, path.is_dir() and not path.is_symlink())

    def fetch(self, files: Mapping[str, int], folder: str) -> None:
        self.calls.append(("fetch", sorted(files)))
        for name in files:
            if (self.path / name).is_file():
                shutil.copyfile(self.path / name, Path(folder, name))

    def send(self, items: Sequence[tuple[ObjectId, int]], source: Media, progress: Callable[[int], None]) -> None:
        self.calls.append(("send", [str(id_) for id_, _ in items]))
        for id_, size in items:
            data = bytearray(size)
            source.digest(id_, size, into=data, progress=progress)
            self._write(object_path(id_), bytes(data))
        self.meanwhile()

    def altered(self, items: Sequence[tuple[ObjectId, int]], source: Media) -> set[ObjectId]:
        altered = set()
        with Media(self.path) as media:
            for id_, size in items:
                try:
                    media.digest(id_, size)
                except FlightbagError:
                    altered.add(id_)
        return altered

    def publish(self, names: Sequence[str], folder: str) -> None:
        self.calls.append(("publish", list(names)))
        for name in ("missions", "objects", "trust"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        for name in names:
            self._write(name, Path(folder, name).read_bytes())

    def bring(self, items: Sequence[tuple[ObjectId, int]], destination: Repository) -> None:
        with Media(self.path) as media, inserting(destination.media, destination.disk, None) as batch:
            batch.add_all((media.chunks(object_path(id_), size), id_) for id_, size in items)
            batch.commit()

    def _write(self, name: str, data: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f"{path.name}.new")
        staged.write_bytes(data)
        staged.rename(path)
