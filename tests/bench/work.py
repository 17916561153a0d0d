"""What the bench runs in processes of its own: `python -m tests.bench.work VERB …`. Prints what it measured as JSON."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A verb imports what it alone needs: the start of the process is part of what is measured.
from blake3 import blake3

from store.disk.media import Media, object_path
from store.disk.objects import read_chunks
from store.format.ids import ObjectId
from store.ground.repository import Repository
from store.ground.writer import writing


def insert(source: str, store: str) -> None:
    """Everything under a folder into a new store, durable at the end."""
    with (
        Repository.init(store) as repository,
        writing(repository) as writer,
        writer.inserting() as batch,
    ):
        batch.add_all((read_chunks(path), None) for path in _files(source))
        batch.commit()


def _files(source: str) -> Iterator[str]:
    for top, _, names in sorted(os.walk(source)):
        for name in sorted(names):
            yield os.path.join(top, name)


def publish(store: str, per_mission: str = "100000") -> None:
    """Signs missions that need every object of a store, `per_mission` of them each."""
    from dataclasses import replace

    from store.format.entries import Entry, sorted_table
    from store.ground.trust_chain import rotate
    from tests.support.missions import FACTS, ISSUE, NOW, manifest_of, root_draft, sign_manifest
    from tests.support.stores import ROOT_FILE

    with Repository.open(store) as repository:
        if not repository.evidence.root_versions():
            rotate(repository, root_draft(ROOT_FILE), now=NOW)
        objects = [(id_, s.st_size) for first in range(256) for id_, s in repository.media.objects(first)]
        with writing(repository) as writer:
            count = int(per_mission)
            for number, start in enumerate(range(0, len(objects), count)):
                part = objects[start : start + count]
                names = (f"files/x/{n:07d}" for n in range(len(part)))
                entries = [Entry(name, id_, size, None, {}) for name, (id_, size) in zip(names, part, strict=True)]
                table = sorted_table(entries)
                facts = replace(FACTS, id=f"bench-{number}")
                manifest = manifest_of(table, mission=facts, issue=replace(ISSUE, expires_at=None))
                writer.publish(facts.id, sign_manifest(manifest), table.render())


def change(store: str) -> None:
    """Publishes the first mission again, with another object in the place of one."""
    from dataclasses import replace

    from store.format.entries import Entry, sorted_table
    from tests.support.missions import manifest_of, sign_manifest

    with Repository.open(store) as repository, writing(repository) as writer:
        opened = repository.current("bench-0")
        issue = replace(opened.manifest.issue, sequence=opened.manifest.issue.sequence + 1)
        with writer.inserting() as batch:
            added = batch.add_bytes(b"changed %d" % issue.sequence)
            batch.commit()
        first, *rest = opened.table.entries
        table = sorted_table([Entry(first.name, added.id, added.size, None, {}), *rest])
        manifest = manifest_of(table, mission=opened.manifest.mission, issue=issue)
        writer.publish("bench-0", sign_manifest(manifest), table.render())


def make_objects(store: str, count: str) -> None:
    """A store with that many small objects, put there without the barriers: this is not what is measured."""
    Repository.init(store).close()
    for first in range(256):
        os.mkdir(os.path.join(store, "objects", f"{first:02x}"))
    for number in range(int(count)):
        data = b"object %d" % number
        with open(os.path.join(store, object_path(ObjectId(blake3(data).digest()))), "wb") as file:
            file.write(data)


def make_large(store: str, size: str) -> None:
    """A store with one large object of random bytes."""
    from random import Random

    block = Random(1).randbytes(2**20)
    with Repository.init(store) as repository, writing(repository) as writer, writer.inserting() as batch:
        batch.add(block for _ in range(int(size) // 2**20))
        batch.commit()


def verify(store: str) -> None:
    """The takeoff check of every mission."""
    from store.takeoff.evidence import StoreEvidence
    from store.takeoff.mission import Binding
    from store.takeoff.verify import pinned_root, verify_mission
    from tests.support.missions import NOW
    from tests.support.stores import ROOT_FILE

    with Media(store) as media:
        evidence = StoreEvidence(media)
        for mission in evidence.missions():
            assert verify_mission(evidence, mission, pinned_root(ROOT_FILE), Binding(NOW)).go


def audit(store: str) -> None:
    """fsck --full."""
    from store.audit.fsck import fsck
    from store.audit.scope import FULL

    with Media(store) as media:
        found = fsck(media, FULL)
    assert not found.errors
    assert found.read_objects == found.objects


def proof(store: str) -> None:
    """One object by its inclusion proof, against hashing its file: the medians of interleaved rounds, in seconds."""
    import statistics

    from store.format.manifest import ENVELOPE_LIMIT
    from store.takeoff.proof import Proof, prove
    from store.takeoff.verify import pinned_root
    from tests.support.stores import ROOT_FILE

    with Repository.open(store) as repository:
        (mission,) = repository.missions()
        opened = repository.current(mission)
        envelope = repository.evidence.object(opened.manifest_id, ENVELOPE_LIMIT)
        data = Proof.of(opened, envelope, [], opened.table.entries[0].name).render()
        pinned, path = pinned_root(ROOT_FILE), repository.media.absolute(object_path(opened.table.entries[0].id))

        def proven() -> None:
            entry = prove(Proof.parse(data), pinned).entry
            repository.media.digest(entry.id, entry.size)

        def hashed() -> None:
            hasher = blake3()
            with open(path, "rb", buffering=0) as file:
                while chunk := file.read(2**20):
                    hasher.update(chunk)

        times: dict[str, list[float]] = {"hash_seconds": [], "proof_seconds": []}
        for _ in range(15):
            for name, call in (("hash_seconds", hashed), ("proof_seconds", proven)):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
    _say({name: statistics.median(found) for name, found in times.items()})


def rebuild(store: str) -> None:
    """Opens the index of a store that has none."""
    with Repository.open(store) as repository, writing(repository):
        pass


def lookup(store: str, count: str) -> None:
    """Looks objects up in the index, and stats their files: seconds at the median and the 99th percentile."""
    from random import Random

    random = Random(2)
    numbers = [random.randrange(int(count)) for _ in range(100_000)]
    ids = [ObjectId(blake3(b"object %d" % number).digest()) for number in numbers]
    with Repository.open(store) as repository, writing(repository) as writer:
        for what, look in (
            ("stat", lambda id_: os.stat(os.path.join(store, object_path(id_)))),
            ("index", writer.index.object),
        ):
            for warm in (True, False):
                times = []
                for id_ in ids:
                    start = time.perf_counter_ns()
                    found = look(id_)
                    times.append(time.perf_counter_ns() - start)
                    assert found is not None
                if not warm:
                    times.sort()
                    _say(
                        {what: {"p50_us": times[len(times) // 2] / 1e3, "p99_us": times[len(times) * 99 // 100] / 1e3}}
                    )


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


VERBS = {
    function.__name__.replace("_", "-"): function
    for function in (insert, publish, change, make_objects, make_large, verify, audit, proof, rebuild, lookup)
}


def main() -> None:
    start = time.perf_counter()
    VERBS[sys.argv[1]](*sys.argv[2:])
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # Not ru_maxrss: a process takes that over from the one that started it, and the bench itself is larger.
    with open("/proc/self/status", encoding="utf-8") as file:
        own = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
    _say({"seconds": time.perf_counter() - start, "peak_mb": own / 1024, "peak_of_a_child_mb": children / 1024})


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()
