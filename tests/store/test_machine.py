"""Many at one store: interleaved transactions against a model in memory, and real processes at once.

The machine runs in one process, step by step, so that every interleaving can be made again; the stress test has real
processes, real kills, and nothing to decide the order.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from store.disk.durable import Disk
from store.disk.locks import Locked
from store.disk.media import Media, object_path
from store.disk.objects import Batch, inserting
from store.disk.staging import sweep
from store.errors import FlightbagError
from store.format.ids import ObjectId
from store.ground.gc import collect
from store.ground.repository import Repository
from store.ground.sync import apply_sync, plan_sync
from store.ground.writer import writing
from tests.support.missions import Flight
from tests.support.stores import NORTH, SOUTH, audit, check, file_of, flip, later, make_store, publish

DATA = [b"data %d " % number * (number + 1) for number in range(6)]


class Transaction:
    """A writer that has the store open, with a batch. Without the index, of which a process has one environment."""

    def __init__(self, store: Path) -> None:
        self.stack = ExitStack()
        self.repository = self.stack.enter_context(Repository.open(store))
        self.stack.enter_context(self.repository.locked())
        sweep(self.repository.media, self.repository.disk)
        self.batch: Batch = self.stack.enter_context(inserting(self.repository.media, Disk(), None))
        self.staged: set[ObjectId] = set()


class Together(RuleBasedStateMachine):
    transactions = Bundle("transactions")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = make_store(self.folder / "store")
        self.committed: set[ObjectId] = set()
        self.open: list[Transaction] = []
        self.current: dict[str, Flight] = {NORTH.id: NORTH, SOUTH.id: SOUTH}
        self.step = 0

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for one in self.open:
                one.stack.close()
            shutil.rmtree(self.folder)

    @rule(target=transactions)
    def opens(self) -> Transaction:
        one = Transaction(self.store)
        self.open.append(one)
        return one

    @rule(one=transactions, data=st.sampled_from(DATA))
    def inserts(self, one: Transaction, data: bytes) -> None:
        added = one.batch.add_bytes(data)
        assert added.id == ObjectId.of(data)
        if added.reused:
            assert added.id in self.committed | one.staged
        one.staged.add(added.id)

    @rule(one=transactions)
    def commits(self, one: Transaction) -> None:
        one.batch.commit()
        self.committed |= one.staged
        one.staged = set()

    @rule(one=consumes(transactions))
    def ends(self, one: Transaction) -> None:
        one.stack.close()
        self.open.remove(one)

    @rule(which=st.sampled_from([NORTH, SOUTH]), content=st.integers(0, 2))
    def publishes(self, which: Flight, content: int) -> None:
        self.step += 1
        new = later(which, self.step, extra=b"content %d" % content)
        publish(self.store, new)
        self.current[new.id] = new

    @rule()
    def sweeps(self) -> None:
        with Media(self.store) as media:
            assert sweep(media, Disk()) == 0, "every transaction is alive, or has tidied up"

    @rule()
    def syncs_out(self) -> None:
        target = self.folder / "target"
        with Repository.open(self.store) as source:
            there = Repository.open(target) if target.exists() else None
            apply_sync(plan_sync(source, there, ()), source, target)
            if there is not None:
                there.close()
        for mission, one in self.current.items():
            verdict = check(target, mission)
            assert verdict.mission is not None
            assert verdict.mission.manifest_id == one.manifest_id

    @rule()
    def collects(self) -> None:
        with Repository.open(self.store) as repository:
            if self.open:
                with pytest.raises(Locked) as caught:
                    collect(repository, now=time.time() + 86400 * 30, keep_last=1)
                assert caught.value.fields["pid"] == os.getpid()
                return
            collect(repository, now=time.time() + 86400 * 30, keep_last=1)
        needed = {
            id_
            for one in self.current.values()
            for id_ in (one.manifest_id, one.manifest.table, *(entry.id for entry in one.table.entries))
        }
        self.committed &= needed

    @rule(data=st.sampled_from(DATA))
    def a_bit_flips_in_what_is_committed(self, data: bytes) -> None:
        """Whoever inserts the same bytes next heals it; until then the model does not count on it."""
        if ObjectId.of(data) in self.committed and data and not self.open:
            flip(file_of(self.store, ObjectId.of(data)))
            one = Transaction(self.store)
            assert not one.batch.add_bytes(data).reused
            one.batch.commit()
            one.stack.close()

    @invariant()
    def what_was_committed_is_whole(self) -> None:
        if hasattr(self, "store"):
            with Media(self.store) as media:
                for id_ in self.committed:
                    media.digest(id_, media.stamp(object_path(id_)).size)
            assert not [one for one in audit(self.store).findings if not one.information]
            for mission, one in self.current.items():
                verdict = check(self.store, mission)
                assert verdict.mission is not None
                assert verdict.mission.manifest_id == one.manifest_id
            if not self.open:
                tmp = self.store / "tmp"
                assert not tmp.exists() or not list(tmp.iterdir())


TestTogether = Together.TestCase
TestTogether.settings = settings(max_examples=8, stateful_step_count=14)


# -- real processes


def inserts(store: str, seed: int, until: float) -> None:
    """Overlapping sets; what is committed is whole as long as the transaction is open, whoever collects meanwhile."""
    random = Random(seed)
    while time.monotonic() < until:
        try:
            with Repository.open(store) as repository, writing(repository) as writer, writer.inserting() as batch:
                data = random.sample(DATA, 4)
                ids = [batch.add_bytes(one).id for one in data]
                batch.commit()
                for id_, one in zip(ids, data, strict=True):
                    repository.media.digest(id_, len(one))
        except Locked:
            continue


def publishes(store: str, seed: int, until: float) -> None:
    step = seed * 100_000
    while time.monotonic() < until:
        step += 1
        try:
            publish(Path(store), later(NORTH, step, extra=DATA[step % 6]))
        except Locked:
            continue


def syncs(store: str, seed: int, until: float) -> None:
    target = f"{store}-target-{seed}"
    while time.monotonic() < until:
        try:
            with Repository.open(store) as source:
                there = Repository.open(target) if os.path.exists(target) else None
                apply_sync(plan_sync(source, there, ()), source, target)
                if there is not None:
                    there.close()
        except Locked:
            continue
        except FlightbagError as error:
            # Between planning and copying a collection may take what was replaced meanwhile; then it is planned anew.
            if error.fields.get("kind") != "missing" and "not there" not in error.message:
                raise
            continue
        assert all(check(Path(target), mission).go for mission in (NORTH.id, SOUTH.id))


def audits(store: str, seed: int, until: float) -> None:
    while time.monotonic() < until:
        try:
            found = audit(Path(store))
        except Locked:
            continue
        assert not [one for one in found.findings if not one.information], found.findings


def collects(store: str, seed: int, until: float) -> None:
    while time.monotonic() < until:
        with Repository.open(store) as repository:
            collect(repository, now=time.time() + 1, grace=0, keep_last=1, wait=True)
        time.sleep(0.05)


ROLES = (inserts, inserts, publishes, syncs, audits, collects)


@pytest.mark.parametrize("kills", [False, True], ids=["in peace", "with kills"])
def test_many_processes_at_once(tmp_path: Path, kills: bool) -> None:
    """FLIGHTBAG_STRESS says for how many seconds; the default is a taste of it."""
    seconds = float(os.environ.get("FLIGHTBAG_STRESS", "3"))
    store = make_store(tmp_path / "store")
    context = multiprocessing.get_context("spawn")
    until = time.monotonic() + seconds + 2  # the interpreters take a while to start

    def started(number: int) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=ROLES[number % len(ROLES)], args=(str(store), number, until))
        process.start()
        return process

    random = Random(1)
    processes = {number: started(number) for number in range(len(ROLES))}
    killed = 0
    while kills and time.monotonic() < until - 0.5:
        time.sleep(0.4)
        number = random.choice(list(processes))
        process = processes.pop(number)
        if process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()
        processes[number + len(ROLES)] = started(number + len(ROLES))
    for process in processes.values():
        process.join(60)
        assert process.exitcode == 0
    assert not kills or killed > 2
    # No lock has outlived its holder, and the next transaction tidies up.
    with Repository.open(store) as repository, writing(repository, alone=True):
        pass
    assert list((store / "tmp").iterdir()) == []
    assert not [one for one in audit(store).findings if not one.information]
    assert all(check(store, mission).go for mission in (NORTH.id, SOUTH.id))
