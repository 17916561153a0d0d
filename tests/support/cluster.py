"""A real Ray cluster on this machine: each node is a group of processes of its own, which can be killed.

The head is the node of the machine that plans. Ray's statistics and dashboard are off, and it demands a token.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from builders.artifacts.executor import Packed, Travel, Work
from builders.artifacts.task import Progress
from builders.cluster.node import Facts
from tests.support.stores import REPOSITORY_ROOT

_STORE = 80_000_000  # the least that Ray takes is 75 MB
_START_S = 60.0
# What a node and its helpers may take to start; of what Ray does not let itself be told, several tries.
_PATIENCE_S = 600
_STARTS = 4
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    # A node that was killed refuses at once; one that lives may be slow beside much other work.
    "RAY_health_check_timeout_ms": "60000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_agent_register_timeout_ms": str(_PATIENCE_S * 1000),
    "RAY_worker_register_timeout_seconds": str(_PATIENCE_S),
    "RAY_gcs_server_port_wait_time_s": str(_PATIENCE_S),
    "PYTHONWARNINGS": "ignore",
}


def require_ray() -> None:
    """Skip where Ray is not installed. It is not imported here: it reads whether there is a token when it is."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("the extra ray is not installed")


class Cluster:
    """A cluster with a head that lends so many CPUs. Leaving the block ends every process of it; in the block this
    process and those that it starts have its token in the environment."""

    def __init__(self, cpus: int = 0) -> None:
        self._cpus = cpus
        self._outside = os.environ.copy()
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has at most 107 characters
        self.address = ""

    def __enter__(self) -> Cluster:
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)})
        with (self._folder / "host.log").open("wb") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "tests.support.cluster"],
                cwd=REPOSITORY_ROOT,
                env={**os.environ, **_ENVIRONMENT, "RAY_TMPDIR": str(self._folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                text=True,
            )
        try:
            self.address = self._ask("head", self._cpus, None)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        with suppress(OSError):
            self._host.stdin.close()  # it ends its nodes
        with suppress(subprocess.TimeoutExpired):
            self._host.wait(timeout=_START_S)
        with suppress(ProcessLookupError):
            os.killpg(self._host.pid, signal.SIGKILL)
        self._host.wait()
        self._host.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
        os.environ.update(self._outside)

    def add(self, cpus: int = 1, resources: Mapping[str, float] | None = None) -> str:
        """Start a node, by default with the resources of this machine. Return its id."""
        return self._ask("add", cpus, resources)

    def kill(self, id_: str) -> None:
        """Kill a node at once, as a power cut does."""
        self._ask("kill", id_)

    def _ask(self, *question: object) -> str:
        assert self._host.stdin is not None
        assert self._host.stdout is not None
        self._host.stdin.write(json.dumps(question) + "\n")
        self._host.stdin.flush()
        answer = self._host.stdout.readline().strip()
        assert answer, (self._folder / "host.log").read_text()[-4000:]
        return answer


def _ports() -> dict[str, int]:
    """Ports for the helpers of a node. A node that has to learn them from its helpers ends where they start slowly."""
    names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port", "dashboard_agent_listen_port")
    with ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in names]
        for one in free:
            one.bind(("", 0))
        return {name: int(one.getsockname()[1]) for name, one in zip(names, free, strict=True)}


def _host() -> None:
    """Keep the nodes of a cluster: a question on each line of standard input, an answer on each of standard output."""
    from ray.cluster_utils import Cluster as Nodes

    class PatientNodes(Nodes):  # type: ignore[misc]
        def _wait_for_node(self, node: Any, timeout: float = _PATIENCE_S) -> None:
            super()._wait_for_node(node, timeout)

    answers, sys.stdout = sys.stdout, sys.stderr
    nodes: dict[str, Any] = {}
    cluster = PatientNodes()
    for line in sys.stdin:
        what, *args = json.loads(line)
        if what == "kill":
            cluster.remove_node(nodes.pop(args[0]), allow_graceful=False)
            answer = "killed"
        else:
            declared = Facts.of_this_machine().resources if args[1] is None else args[1]
            for attempt in range(_STARTS):
                try:
                    node = cluster.add_node(
                        num_cpus=args[0],
                        resources=declared,
                        object_store_memory=_STORE,
                        include_dashboard=False,
                        include_log_monitor=False,
                        no_monitor=True,
                        **_ports(),
                    )
                    break
                except Exception:
                    if attempt == _STARTS - 1:
                        raise
                    if what == "head":
                        cluster.shutdown()
                        cluster = PatientNodes()
            answer = cluster.address if what == "head" else node.node_id
            nodes[answer] = node
        print(answer, file=answers, flush=True)
    cluster.shutdown()


# -- units for tests: they need nothing


def pack(result: int) -> Packed:
    return result, []


def reader(_request: Any) -> Callable[[Any, Sequence[bytes]], int]:
    return int_of


def int_of(value: Any, _parts: Sequence[bytes]) -> int:
    if type(value) is not int:
        raise TypeError("expected a number")
    return value


def same(_request: Any) -> Mapping[str, Any]:
    return {}


def nap(request: tuple[Any, ...], progress: Progress) -> int:
    """Wait for request[1] seconds, as a unit whose network runs elsewhere, and return the number of the request."""
    time.sleep(request[1])
    progress("", 1, 0)
    return int(request[0])


NAP = Work(nap, travel=Travel(pack, reader, same))


if __name__ == "__main__":
    _host()
