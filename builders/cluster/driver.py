"""The driver of a Ray cluster: it sends units of work to nodes, and takes what comes back.

    requests -> payloads in the object store of this node -> tasks of Ray -> replies -> results, in order

The driver alone decides what is run again: Ray retries nothing. A unit whose worker or node is lost is sent again, up
to `MAX_TRIES` times; a second reply to one request is never read. What is under way is bounded by the number of CPUs of
the cluster and by `MAX_PAYLOADS` bytes; the payloads lie in the object store and not in this process, replies too until
their turn comes.

Replies are taken as bytes and never unpickled: `ray.get` would unpickle whatever a node sends, errors too, so that this
module asks Ray's core for the bytes and the kind of each object, and reads those that are marked as plain bytes.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from blake3 import blake3

from builders.activity import getting_on
from builders.artifacts.executor import LocalExecutor, Needs, Request, Result, Work
from builders.artifacts.task import Progress, silent
from builders.cluster import node, parcel, unit
from builders.cluster.parcel import bad_reply
from builders.engines.base import EngineBackend
from builders.extras import import_extra
from builders.report import NodeReport
from store.errors import Corrupt, Invalid, Unavailable, instead_of

MAX_TRIES = 5
# Of the requests under way; the object store spills to disk beyond its own size.
MAX_PAYLOADS = 2 * 2**30
# Units under way for each CPU: one runs, others are on their way.
_AHEAD = 3
_SHOWN_NODES = 32
_ANSWER_S = 60.0
_POLL_S = 1.0
# How long a cluster may lack a node that a unit needs: another may be starting in its place.
_PATIENCE_S = 60.0
# What the metadata of an object of Ray say where it is plain bytes.
_RAW = b"RAW"
_START = 'ray start --address=HOST:PORT --resources="$(flightbag nodes --resources)"'
# Ray's kinds of errors (`ErrorType`) after which a unit is sent again: its worker, its node or its result is lost.
_LOST = (
    "WORKER_DIED", "NODE_DIED", "OBJECT_LOST", "OBJECT_FETCH_TIMED_OUT", "OBJECT_DELETED", "OWNER_DIED",
    "OUT_OF_MEMORY", "OUT_OF_DISK_ERROR", "WORKER_STARTUP_FAILED", "OBJECT_UNRECONSTRUCTABLE_MAX_ATTEMPTS_EXCEEDED",
    "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED", "OBJECT_UNRECONSTRUCTABLE_RETRIES_DISABLED",
    "OBJECT_UNRECONSTRUCTABLE_LINEAGE_DISABLED", "OBJECT_UNRECONSTRUCTABLE_BORROWED", "OBJECT_UNRECONSTRUCTABLE_PUT",
    "OBJECT_UNRECONSTRUCTABLE_REF_NOT_FOUND",
)  # fmt: skip


class Lost(Exception):
    """The reply to a unit is lost, with its worker, its node or the object; the message is Ray's word for it."""


@dataclass
class _Unit:
    """A unit under way. `payload` is the object that holds its request; `ready` says that its reply is there."""

    payload: Any
    size: int
    name: str
    common: Any
    files: Any
    needs: Needs
    read: Callable[[Any, Sequence[bytes]], Any]
    ref: Any = None
    ready: bool = False
    tries: int = 0


@dataclass
class _Tally:
    """What became of the units: by node, the number that it ran and the seconds that they took."""

    started: float = field(default_factory=time.monotonic)
    run: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    repeated: int = 0

    def notes(self) -> list[str]:
        if not self.run:
            return []
        seconds = max(time.monotonic() - self.started, 0.001)
        total = sum(self.run.values())
        texts = [
            f"cluster: {total} units run on {len(self.run)} nodes, {self.lost} lost, {self.repeated} repeated; "
            f"{total / seconds:.1f} units a second"
        ]
        shown = sorted(self.run.items())[:_SHOWN_NODES]
        texts += [f"cluster: {name} ran {count} units, {count / seconds:.1f} a second" for name, count in shown]
        if (rest := len(self.run) - len(shown)) > 0:
            texts.append(f"cluster: and {rest} more nodes")
        return texts


class RayExecutor:
    """Runs work units on the nodes of a cluster of Ray, to which this process is connected: see `connected`."""

    def __init__(self, progress: Progress = silent, patience: float = _PATIENCE_S) -> None:
        self._progress = progress
        self._ray = import_extra("ray", "ray")
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(_remote)
        self._patience = patience
        self._tally = _Tally()
        # By identity: what is common, so that it stays the one that it is; its name; the object that holds it.
        self._common: dict[int, tuple[object, str, Any]] = {}
        self._names: dict[str, str] = {}
        self._nodes: list[dict[str, Any]] = []
        self._nodes_at = -_POLL_S * 2

    # -- what an executor promises

    @property
    def width(self) -> int:
        return self._width(Needs())

    @property
    def notes(self) -> Sequence[str]:
        return self._tally.notes()

    def makes(self, _backend: EngineBackend, host: str) -> str:
        wanted = node.demands(Needs(host))
        return "" if self._fitting(wanted) else self._why_none(wanted)

    def run(
        self, work: Work[Request, Result], requests: Iterable[Request], progress: Progress = silent
    ) -> Generator[Result, None, None]:
        if work.travel is None:
            yield from LocalExecutor().run(work, requests, progress)
            return
        units: deque[_Unit] = deque()
        under_way: dict[Any, _Unit] = {}
        coming = iter(requests)
        more = True
        try:
            while True:
                while more and self._has_room(units):
                    request = next(coming, None)
                    if more := request is not None:
                        units.append(self._packed(work, request))
                        self._send(units[-1], under_way)
                        del request  # its tiles are in the object store now
                if not units:
                    return
                if not units[0].ready:
                    self._wait(units, under_way)
                    continue
                try:
                    reply, sender = self._reply(units[0])
                except Lost as lost:
                    self._again(units[0], lost, under_way)
                    continue
                done = units.popleft()
                try:
                    result = done.read(reply.value, reply.parts)
                except (KeyError, TypeError, ValueError, Corrupt) as wrong:
                    raise bad_reply(sender, wrong) from wrong
                self._tally.run[sender] += 1
                if len(self._tally.run) <= _SHOWN_NODES:
                    self._progress(f"units on {sender}", 1, 0)
                for activity, count in () if done.needs.waits else reply.done:
                    progress(activity, count, 0)
                yield result
        finally:
            for ref in under_way:
                with suppress(Exception):  # a cluster that is gone runs nothing
                    self._ray.cancel(ref, force=True)

    def run_one(self, work: Work[Request, Result], request: Request, progress: Progress = silent) -> Result:
        with closing(self.run(work, [request], progress)) as results:
            return next(results)

    # -- sending

    def _has_room(self, units: Sequence[_Unit]) -> bool:
        if not units:
            return True
        if sum(one.size for one in units) >= MAX_PAYLOADS:
            return False
        return len(units) < _AHEAD * self._width(units[-1].needs)

    def _packed(self, work: Work[Any, Any], request: Any) -> _Unit:
        """Put a request into the object store."""
        travel = work.travel
        assert travel is not None
        common, files = travel.common(request), travel.files(request)
        order = unit.packed(unit.Order(work, request, unit.same_here(work, request)), common, list(files))
        name, shared = self._shared(common)
        shipped = [
            (path.name, [(inner, [self._put(unit.read_file(path.parent / inner))]) for inner in (path.name, *beside)])
            for path, beside in files.items()
        ]
        return _Unit(self._put(order), len(order), name, shared, shipped, travel.needs(request), travel.reader(request))

    def _shared(self, common: object) -> tuple[str, Any]:
        if common is None:
            return "", None
        if id(common) not in self._common:
            data = unit.packed_common(common)
            self._common[id(common)] = common, blake3(data).hexdigest(), self._put(data)
        return self._common[id(common)][1:]

    def _put(self, data: bytes) -> Any:
        try:
            return self._ray.put(data)
        except self._ray.exceptions.RayError as error:
            raise Unavailable(
                f"the object store of Ray on this machine takes no more: {_words(error)}",
                remedy="start the node with a larger --object-store-memory, or free space for its files",
            ) from error

    def _send(self, one: _Unit, under_way: dict[Any, _Unit]) -> None:
        wanted = node.demands(one.needs)
        self._require_node(wanted)
        one.tries += 1
        one.ready = False
        task = self._task.options(
            num_gpus=1 if one.needs.provider in node.GPU_PROVIDERS else 0,
            resources=wanted,
            scheduling_strategy="SPREAD",
        )
        # In lists, so that Ray passes the references on and a node fetches what it lacks.
        one.ref = task.remote(one.payload, one.name, [one.common], one.files)
        under_way[one.ref] = one

    def _again(self, one: _Unit, lost: Lost, under_way: dict[Any, _Unit]) -> None:
        self._tally.lost += 1
        if one.tries >= MAX_TRIES:
            raise Unavailable(
                f"a unit of work was lost {one.tries} times, the last time with {lost}",
                remedy="look at the nodes with `flightbag nodes`, at their memory, and at the logs of Ray; then build "
                "again: what was finished is not made again",
                kind="lost",
            )
        self._tally.repeated += 1
        self._send(one, under_way)

    # -- receiving

    def _wait(self, units: Sequence[_Unit], under_way: dict[Any, _Unit]) -> None:
        """Wait until some reply is there, for some time."""
        ready, _ = self._ray.wait(list(under_way), num_returns=1, timeout=_POLL_S, fetch_local=True)
        for ref in ready:
            under_way.pop(ref).ready = True
        if not ready:
            self._require_node(node.demands(units[0].needs))
            if units[0].needs.waits:
                getting_on()

    def _reply(self, one: _Unit) -> tuple[parcel.Reply, str]:
        """Return the reply to a unit, and the name of the node that sent it. Raise what it holds, or Lost."""
        data = self.bytes_of(one.ref)
        one.ref = None
        try:
            length = data[0]
            sender = self.name(data[1 : 1 + length].decode("ascii"))
        except (IndexError, ValueError) as wrong:
            raise bad_reply("a node", wrong) from wrong
        return parcel.opened(data[1 + length :], sender), sender

    def bytes_of(self, ref: Any) -> bytes:
        """Return the bytes of an object that is there. Raise Lost, and Corrupt for an object of another kind."""
        core = self._ray._private.worker.global_worker.core_worker
        kinds = import_extra("ray.core.generated.common_pb2", "ray").ErrorType
        try:
            ((data, about, *_),) = core.get_objects([ref], round(_ANSWER_S * 1000))
        except self._ray.exceptions.GetTimeoutError as error:
            raise Lost("no answer") from error
        kind = bytes(about or b"").split(b",")[0]
        if kind == _RAW:
            return bytes(data.to_pybytes()) if data is not None else b""
        name = kinds.Name(int(kind)) if kind.isdigit() and int(kind) in kinds.values() else "an object"
        if name in _LOST:
            raise Lost(name)
        if name == "TASK_EXECUTION_EXCEPTION":
            raise Unavailable(
                "a node cannot run units of work: it failed before it began one",
                remedy="install flightbag there with the extra `build`, in this version and in the Python that runs "
                "Ray; the log of its worker says more",
                kind="failed",
            )
        raise Unavailable(
            f"Ray gave {name} in place of a reply", remedy="look at the logs of Ray, then build again", kind="failed"
        )

    # -- the nodes

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes that are alive, as Ray described them within the last second."""
        if time.monotonic() - self._nodes_at > _POLL_S:
            self._nodes = [one for one in self._ray.nodes() if one["Alive"]]
            self._nodes_at = time.monotonic()
        return self._nodes

    def name(self, id_: str) -> str:
        """Return what people call a node: its host, and where several are on one the start of its id."""
        if id_ not in self._names:
            hosts = Counter(one["NodeManagerHostname"] for one in self._ray.nodes())
            for one in self._ray.nodes():
                host = str(one["NodeManagerHostname"])
                self._names[one["NodeID"]] = host if hosts[host] == 1 else f"{host}/{one['NodeID'][:8]}"
        return self._names.get(id_, f"an unknown node {id_[:8]!r}")

    def _fitting(self, wanted: Iterable[str]) -> list[dict[str, Any]]:
        names = set(wanted)
        return [one for one in self.nodes() if names <= one["Resources"].keys() and one["Resources"].get("CPU", 0) >= 1]

    def _width(self, needs: Needs) -> int:
        return max(sum(int(one["Resources"]["CPU"]) for one in self._fitting(node.demands(needs))), 1)

    def _require_node(self, wanted: dict[str, float]) -> None:
        """Wait for a node that has this, for some time. Raise Unavailable where none comes: Ray itself would wait for
        ever."""
        until = time.monotonic() + self._patience
        while not self._fitting(wanted):
            if time.monotonic() >= until:
                raise Unavailable(self._why_none(wanted), remedy=f"start one with `{_START}`", kind="no-node")
            time.sleep(min(_POLL_S, self._patience))

    def _why_none(self, wanted: Iterable[str]) -> str:
        nodes = self.nodes()
        declared = [one for one in nodes if any(name.startswith(node.PREFIX) for name in one["Resources"])]
        what = f"no node of the cluster has a CPU and {' and '.join(node.lacking((), wanted)) or 'nothing else'}"
        if not declared:
            return f"{what}: none of its {len(nodes)} nodes was started with the resources of flightbag"
        return f"{what}; {len(declared)} of its {len(nodes)} nodes have resources of flightbag"


def _remote(order: bytes, name: str, common: list[Any], files: list[tuple[str, list[tuple[str, list[Any]]]]]) -> bytes:
    """What Ray runs on a node: a unit. Returns the id of the node, and the reply."""
    import ray

    def fetched(refs: list[Any]) -> Callable[[], bytes]:
        return lambda: bytes(ray.get(refs[0]))

    shipped = [(one, [(inner, fetched(refs)) for inner, refs in parts]) for one, parts in files]
    reply = unit.run(order, name, fetched(common), shipped)
    id_ = ray.get_runtime_context().get_node_id().encode("ascii")
    return b"".join((bytes([len(id_)]), id_, reply))


def _describe() -> bytes:
    """What Ray runs on a node for `flightbag nodes`."""
    return node.Facts.of_this_machine().render()


# -- connecting

LOCAL, RAY = "local", "ray"
_SCHEME = "ray://"


def address_of(executor: str) -> str | None:
    """Return the address of the cluster that an `--executor` names: None for this machine, "auto" for the cluster that
    it is a node of. Raise Invalid for a text that names no executor."""
    if executor == LOCAL:
        return None
    if executor == RAY:
        return "auto"
    host, colon, port = executor.removeprefix(_SCHEME).rpartition(":")
    if executor.startswith(_SCHEME) and host and colon and port.isdecimal() and "/" not in host:
        return f"{host}:{port}"
    raise Invalid(
        f"{executor[:80]!r} names no executor",
        remedy=f"{instead_of(executor, (LOCAL, RAY))}; local is this machine, ray the cluster that it is a node of, "
        "and ray://HOST:PORT another one by its head",
    )


@contextmanager
def connected(address: str, progress: Progress = silent) -> Iterator[RayExecutor]:
    """Connect this process to a cluster of which this machine is a node, and give its executor."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = import_extra("ray", "ray")
    where = "a cluster that runs here" if address == "auto" else f"the cluster {address}"
    try:
        ray.init(
            address=address,
            configure_logging=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            include_dashboard=False,
            namespace="flightbag",
        )
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise Unavailable(
            f"this machine cannot join {where}: {_words(error)}",
            remedy="make this machine a node of it, with `ray start --address=HOST:PORT --num-cpus=0`, in the versions "
            "of Ray and Python that the cluster has; where it wants a token, see docs/cluster.md",
            kind="no-cluster",
        ) from error
    try:
        yield RayExecutor(progress)
    finally:
        ray.shutdown()


@contextmanager
def executor_of(text: str, progress: Progress = silent) -> Iterator[LocalExecutor | RayExecutor]:
    """Give the executor that an `--executor` names. `progress` gets the units of each node."""
    address = address_of(text)
    if address is None:
        yield LocalExecutor()
    else:
        with connected(address, progress) as executor:
            yield executor


def described(executor: RayExecutor) -> list[NodeReport]:
    """Return what each node of a cluster can build."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = sorted(executor.nodes(), key=lambda one: (one["NodeManagerHostname"], one["NodeID"]))
    task = ray.remote(num_cpus=0, max_retries=0)(_describe)
    refs = [
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=one["NodeID"], soft=False)).remote()
        for one in nodes
    ]
    ray.wait(refs, num_returns=len(refs), timeout=_ANSWER_S)
    return [_report(executor, one, ref) for one, ref in zip(nodes, refs, strict=True)]


def _report(executor: RayExecutor, one: dict[str, Any], ref: Any) -> NodeReport:
    resources = one["Resources"]
    name, cpus, gpus = executor.name(one["NodeID"]), int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    why = "" if cpus else "it lends no CPU"
    facts: node.Facts | None = None
    try:
        facts = node.Facts.parse(executor.bytes_of(ref))
    except Lost as lost:
        why = f"it went away ({lost})"
    except Unavailable as error:
        why = error.message
    except (KeyError, TypeError, ValueError, AttributeError, Corrupt):
        why = "it gave something else than what it can build"
    if facts is None:
        return NodeReport(name, str(one["NodeManagerAddress"]), cpus, gpus, why)
    here = metadata.version("flightbag")
    if facts.flightbag != here:
        why = why or f"it has flightbag {facts.flightbag}, and this machine {here}"
    if undeclared := node.lacking(resources, facts.resources):
        why = why or f"it was not started with the resources for {', '.join(undeclared)}"
    return NodeReport(
        name,
        str(one["NodeManagerAddress"]),
        cpus,
        gpus,
        why,
        facts.host,
        facts.providers,
        tuple(sorted(facts.backends.items())),
        facts.flightbag,
        facts.python,
    )


def _words(error: BaseException) -> str:
    return " ".join("".join(one for one in str(error) if one.isprintable() or one.isspace()).split())[:300]
