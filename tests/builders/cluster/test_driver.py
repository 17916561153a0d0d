"""The driver over a real cluster: order, bounds, lost workers and nodes, what a node may send, and the same mission.

A cluster takes 25 seconds of processors to start: `make test` has one, for the build that loses a node; the others run
in `make drill`. No test waits for a time: each waits for what it wants to see, as long as the cluster lives.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from builders.artifacts.executor import Needs, Travel, Work
from builders.artifacts.task import Progress
from builders.cluster import driver
from builders.cluster.driver import RayExecutor, address_of, connected
from builders.report import NodeReport
from store.errors import Corrupt, Invalid, Unavailable
from tests.bench.cluster import another_store, make_strip, outcome, write_strip
from tests.support.cluster import NAP, Cluster, pack, reader, require_ray, same
from tests.support.commands import flightbag
from tests.support.field import Desk
from tools import render

# Of the strip that a cluster describes.
_CELLS = 6

# -- without a cluster


def test_an_executor_has_a_name() -> None:
    assert address_of("local") is None
    assert address_of("ray") == "auto"
    assert address_of("ray://10.0.0.5:6379") == "10.0.0.5:6379"
    assert address_of("ray://[fe80::1]:6379") == "[fe80::1]:6379"


@pytest.mark.parametrize("text", ["", "here", "ray://", "ray://host", "ray://:6379", "ray://host:port", "ray:host:1"])
def test_another_name_is_refused_with_those_that_are(text: str) -> None:
    with pytest.raises(Invalid, match="names no executor") as caught:
        address_of(text)
    assert "ray://HOST:PORT" in caught.value.remedy


def test_a_build_says_which_executors_there_are(desk: Desk) -> None:
    ran = desk.build(desk.write_mission("left"), "--executor", "here")
    assert ran.status == 2
    assert "'here' names no executor" in ran.json["error"]["message"]


# -- on a cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if "FLIGHTBAG_DRILL" not in os.environ:
        pytest.skip("a real cluster: `make drill`")
    require_ray()
    with Cluster(cpus=1) as one:
        yield one


@pytest.fixture(scope="module")
def executor(cluster: Cluster) -> Iterator[RayExecutor]:
    with connected(cluster.address) as one:
        one._patience = 0.0
        yield one


@pytest.fixture(autouse=True)
def own_tally(request: pytest.FixtureRequest) -> None:
    if "executor" in request.fixturenames:
        request.getfixturevalue("executor")._tally = driver._Tally()


def test_results_come_in_the_order_of_the_requests_and_requests_as_there_is_room(executor: RayExecutor) -> None:
    taken: list[int] = []

    def requests() -> Iterator[tuple[int, float]]:
        for number in range(9):
            taken.append(number)
            yield number, 0.05 * (number == 0)

    results = executor.run(NAP, requests())
    assert taken == []
    assert next(results) == 0
    assert len(taken) <= driver._AHEAD * executor.width + 1
    assert list(results) == list(range(1, 9))


def test_progress_is_that_of_the_units_and_of_the_nodes(executor: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    units: list[int] = []
    nodes: list[str] = []
    monkeypatch.setattr(executor, "_progress", lambda what, _count, _total: nodes.append(what))
    assert list(executor.run(NAP, [(1, 0.0), (2, 0.0)], lambda _, count, __: units.append(count))) == [1, 2]
    assert units == [1, 1]
    assert len(nodes) == 2
    assert all(what.startswith("units on ") for what in nodes)
    assert executor.notes[0].startswith("cluster: 2 units run on 1 nodes, 0 lost, 0 repeated")


def die(request: tuple[str, int], _progress: Progress) -> int:
    """End the process of the worker, so many times."""
    with open(request[0], "a") as file:
        file.write("x")
    if os.path.getsize(request[0]) <= request[1]:
        os._exit(1)
    return os.path.getsize(request[0])


DIE = Work(die, travel=Travel(pack, reader, same))


def test_a_lost_unit_runs_again(executor: RayExecutor, tmp_path: Path) -> None:
    assert executor.run_one(DIE, (str(tmp_path / "runs"), 1)) == 2
    assert "1 units run on 1 nodes, 1 lost, 1 repeated" in executor.notes[0]


def test_a_unit_that_is_always_lost_ends_the_build(
    executor: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "MAX_TRIES", 2)
    with pytest.raises(Unavailable, match="lost 2 times, the last time with WORKER_DIED") as caught:
        executor.run_one(DIE, (str(tmp_path / "runs"), 99))
    assert caught.value.kind == "lost"
    assert os.path.getsize(tmp_path / "runs") == 2


class Trap:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self._path,)


class TrapError(Exception):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.args[0],)


def send_trap(path: str) -> Any:
    return Trap(Path(path))


def raise_trap(path: str) -> Any:
    raise TrapError(path)


def send_bytes(data: bytes) -> bytes:
    return data


def from_node(executor: RayExecutor, function: Callable[[Any], Any], argument: Any) -> Any:
    """What the driver makes of what a node sends that runs something else than it was sent."""
    unit = driver._Unit(None, 0, "", None, None, Needs(), int)
    unit.ref = executor._ray.remote(num_cpus=1, max_retries=0)(function).remote(argument)
    executor._ray.wait([unit.ref], timeout=60)
    return executor._reply(unit)


@pytest.mark.parametrize("function", [send_trap, raise_trap])
def test_nothing_that_a_node_sends_is_unpickled(
    executor: RayExecutor, tmp_path: Path, function: Callable[[Any], Any]
) -> None:
    with pytest.raises(Unavailable, match=r"in place of a reply|failed before it began"):
        from_node(executor, function, str(tmp_path / "trap"))
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("data", [b"", b"\x05ab", b"\x02\xff\xff", b"\x02ab", b"\x02ab" + bytes(9)])
def test_bytes_that_are_no_reply_are_refused(executor: RayExecutor, data: bytes) -> None:
    with pytest.raises(Corrupt, match="sent what no unit of work sends") as caught:
        from_node(executor, send_bytes, data)
    assert caught.value.kind == "bad-reply"


def text(_request: Any, _progress: Progress) -> str:
    return "seven"


def pack_text(result: Any) -> tuple[Any, Sequence[bytes]]:
    return result, []


def test_a_result_of_another_kind_is_refused(executor: RayExecutor) -> None:
    with pytest.raises(Corrupt, match="expected a number"):
        executor.run_one(Work(text, travel=Travel(pack_text, reader, same)), 1)


def needs_sm(_request: Any) -> Needs:
    return Needs("sm87+trt10")


def test_a_unit_that_no_node_can_run_is_refused_at_once(executor: RayExecutor) -> None:
    work = Work(NAP.one, travel=Travel(pack, reader, same, needs_sm))
    with pytest.raises(Unavailable, match="no node of the cluster has a CPU and sm87 and trt10") as caught:
        executor.run_one(work, (1, 0.0))
    assert "flightbag nodes --resources" in caught.value.remedy
    assert executor.makes(None, "sm87")  # type: ignore[arg-type]
    assert executor.makes(None, "cpu") == ""  # type: ignore[arg-type]


def test_a_unit_without_a_way_to_travel_runs_here(executor: RayExecutor) -> None:
    assert executor.run_one(Work(where), 0) == os.getpid()


def where(_request: Any, _progress: Progress) -> int:
    return os.getpid()


def ended(request: tuple[str, float], _progress: Progress) -> int:
    Path(request[0]).touch()
    time.sleep(request[1])
    Path(request[0] + "-ended").touch()
    return 0


def test_an_early_end_ends_what_is_under_way(executor: RayExecutor, tmp_path: Path) -> None:
    work = Work(ended, travel=Travel(pack, reader, same))
    results = executor.run(work, [(str(tmp_path / "first"), 0.0), (str(tmp_path / "second"), 60.0)])
    assert next(results) == 0
    until = time.monotonic() + 30
    while not (tmp_path / "second").exists() and time.monotonic() < until:
        time.sleep(0.05)
    results.close()
    assert executor.run_one(NAP, (7, 0.0)) == 7  # the one CPU is free again
    assert not (tmp_path / "second-ended").exists()


def test_each_node_says_what_it_can_build(executor: RayExecutor) -> None:
    (head,) = driver.described(executor)
    assert (head.why, head.cpus) == ("", 1)
    assert "cpu" in head.providers
    lines = list(render.nodes([head, NodeReport("far", "10.0.0.9", 0, 2, "it lends no CPU")]))
    assert lines[-2] == "far  10.0.0.9  0 CPUs, 2 GPUs  RUNS NO UNITS: it lends no CPU"
    assert lines[-1] == "2 nodes, 1 of them run units, on 1 CPU"
    assert max(map(len, lines)) <= 80


# -- a mission


def test_a_build_that_loses_a_node_is_the_build_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two nodes the one is killed that sends the first shard."""
    require_ray()
    (tmp_path / "desk").mkdir()
    desk = make_strip(tmp_path / "desk", _CELLS)
    mission = write_strip(desk, _CELLS)
    desk.built(mission)
    far = another_store(desk, tmp_path / "far")
    with Cluster() as one:
        one.add()
        one.add()
        real, killed = RayExecutor._reply, list[str]()

        def reply(executor: RayExecutor, unit: Any) -> Any:
            got = real(executor, unit)
            if not killed and not unit.needs.waits:  # an engine is waited for, a shard is not
                killed.extend(id_ for id_, name in executor._names.items() if name == got[1])
                one.kill(killed[0])
            return got

        monkeypatch.setattr(RayExecutor, "_reply", reply)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        where = ("--store", far, "--key", desk.key, "--executor", f"ray://{one.address}")
        ran = flightbag("build", mission, *where, "--json")
    assert ran.status == 0, ran.err
    # In the process of a build its own, Ray prints that a node ended to nobody.
    report = json.loads(ran.out[ran.out.index("{\n") :])
    assert (report["outcome"], len(killed)) == ("built", 1)
    assert report["embedded"] == report["rows"] > 0
    assert outcome(far) == outcome(desk.store)


def test_a_cluster_builds_the_mission_that_this_machine_builds(cluster: Cluster, built: Desk) -> None:
    far = another_store(built, built.folder / "far")
    where = ("--store", far, "--key", built.key, "--executor", f"ray://{cluster.address}")
    ran = flightbag("build", built.folder / "left.toml", *where, "--json")
    assert ran.status == 0, ran.err
    report = json.loads(ran.out)
    assert report["outcome"] == "built"
    assert any(", 0 lost, 0 repeated" in note for note in report["notes"])
    assert outcome(far) == outcome(built.store)


def test_a_machine_without_the_token_is_told_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    ran = flightbag("nodes", f"ray://{cluster.address}")
    assert ran.status == 3
    assert "this machine cannot join" in ran.err
    assert "token" in ran.err
