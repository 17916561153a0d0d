"""Evidence in memory: a real implementation of `store.takeoff.verify.Evidence` over dicts, with no disk behind it.

It makes the same promises as `store.takeoff.evidence.StoreEvidence` and fails with the same kinds;
`tests/store/takeoff/test_verify.py` runs the same cases over both. A test damages the dicts: an object's bytes may
differ from those of its id. `unreadable` names objects, `ref/<mission>`, `root/<version>` and `withdrawn/<name>` that
a bad medium does not return.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store.disk.medium import Reading
from store.errors import Corrupt, FlightbagError, NotFound, Unavailable
from store.format.ids import ObjectId
from store.format.ref import REF_SIZE
from store.format.withdrawal import FILE_LIMIT
from store.takeoff.mission import Outcome
from store.trust.root import MAX_STEPS


@dataclass
class MemoryEvidence:
    objects: dict[ObjectId, bytes] = field(default_factory=dict)
    refs: dict[str, bytes] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)
    withdrawn: dict[str, bytes] = field(default_factory=dict)
    unreadable: set[ObjectId | str] = field(default_factory=set)

    @property
    def reading(self) -> Reading:
        return Reading()

    def put(self, data: bytes) -> ObjectId:
        id_ = ObjectId.of(data)
        self.objects[id_] = data
        return id_

    def ref(self, mission: str) -> bytes:
        self._look(f"ref/{mission}")
        if mission not in self.refs:
            raise NotFound(f"no ref {mission}", kind="missing", path=f"missions/{mission}")
        data = self.refs[mission]
        if len(data) > REF_SIZE:
            raise Corrupt(f"the ref {mission} has {len(data)} bytes", kind="too-large")
        return data

    def chain(self, after: int) -> Sequence[bytes]:
        versions = sorted(version for version in self.roots if version > after)
        if versions != list(range(after + 1, after + 1 + len(versions))) or len(versions) > MAX_STEPS:
            raise Corrupt(f"the chain after {after} is {versions}", kind="bad-trust-chain", actual=versions)
        for version in versions:
            self._look(f"root/{version}")
        return [self.roots[version] for version in versions]

    def first_root(self) -> bytes:
        self._look("root/1")
        if 1 not in self.roots:
            raise NotFound("no trust root 1", kind="missing")
        return self.roots[1]

    def withdrawal(self, name: str) -> bytes:
        self._look(f"withdrawn/{name}")
        if name not in self.withdrawn:
            raise NotFound(f"no withdrawal {name}", kind="missing", path=f"withdrawn/{name}")
        data = self.withdrawn[name]
        if len(data) > FILE_LIMIT:
            raise Corrupt(f"the withdrawal {name} has {len(data)} bytes", kind="too-large")
        return data

    def object(self, id_: ObjectId, limit: int) -> bytes:
        data = self._data(id_)
        if len(data) > limit:
            raise Corrupt(
                f"object {id_} has {len(data)} bytes", kind="oversized", object=id_, expected=limit, actual=len(data)
            )
        return bytes(self.bytes_of(id_, len(data)))

    def check_objects(self, objects: Iterable[tuple[ObjectId, int]]) -> Iterator[tuple[ObjectId, Outcome]]:
        for id_, size in objects:
            try:
                self.bytes_of(id_, size)
            except FlightbagError as error:
                yield id_, error
            else:
                yield id_, None

    def bytes_of(self, id_: ObjectId, size: int) -> bytearray:
        data = self._data(id_)
        if len(data) != size:
            kind = "truncated" if len(data) < size else "oversized"
            raise Corrupt(f"object {id_} has {len(data)} bytes", kind=kind, object=id_, expected=size, actual=len(data))
        actual = ObjectId.of(data)
        if actual != id_:
            raise Corrupt(
                f"object {id_} hashes to {actual}", kind="bit-flip", object=id_, expected=str(id_), actual=str(actual)
            )
        return bytearray(data)

    def _data(self, id_: ObjectId) -> bytes:
        self._look(id_)
        if id_ not in self.objects:
            raise NotFound(f"object {id_} is not there", kind="missing", object=id_)
        return self.objects[id_]

    def _look(self, thing: ObjectId | str) -> None:
        if thing in self.unreadable:
            raise Unavailable(f"{thing} cannot be read", kind="unreadable", object=thing)

    def write_to(self, folder: Path) -> None:
        """Writes everything, damage and all, as the plain files of a store directory."""
        files = {f"objects/{str(id_)[:2]}/{str(id_)[2:]}": data for id_, data in self.objects.items()}
        files |= {f"missions/{mission}": data for mission, data in self.refs.items()}
        files |= {f"trust/{version}.root.cbor": data for version, data in self.roots.items()}
        files |= {f"withdrawn/{name}": data for name, data in self.withdrawn.items()}
        for name in ("objects", "missions", "trust"):
            (folder / name).mkdir(parents=True)
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
