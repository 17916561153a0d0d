"""A real Ray cluster on loopback: each node is a group of processes of its own, which can be killed.

The head lends no CPU: it is the node of the machine that plans. Ray's own retries, statistics and dashboard are off.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pytest

from builders.cluster.node import Facts
from tests.support.commands import BIN

_STORE = 80_000_000  # the least that Ray takes is 75 MB
_START_S = 60.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_memory_monitor_refresh_ms": "0",
    "PYTHONWARNINGS": "ignore",
}


def require_ray() -> None:
    """Skip where Ray is not installed, as where it has no wheel for this Python."""
    pytest.importorskip("ray", reason="Ray is not installed: it has no wheel for every Python and machine")


class Cluster:
    """A cluster with a head. Leaving the block ends every process of it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # a socket's path has at most 107 characters
        self._environment = {**os.environ, **_ENVIRONMENT, **(environment or {})}
        self._nodes: list[subprocess.Popen[bytes]] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Cluster:
        try:
            self._start("--head", f"--port={self.port}", f"--temp-dir={self._folder}", "--include-dashboard=false",
                        "--disable-usage-stats", "--num-cpus=0")  # fmt: skip
            self._await_head()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in self._nodes:
            self.kill(node)
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, cpus: int = 1, resources: Mapping[str, float] | None = None) -> subprocess.Popen[bytes]:
        """Start a node, by default with the resources of this machine. It is there some seconds later."""
        declared = Facts.of_this_machine().resources if resources is None else resources
        return self._start(f"--address={self.address}", f"--num-cpus={cpus}", f"--resources={json.dumps(declared)}")

    def _start(self, *args: str) -> subprocess.Popen[bytes]:
        with (self._folder / f"node-{len(self._nodes)}.log").open("wb") as log:
            node = subprocess.Popen(
                [BIN / "ray", "start", "--block", "--num-gpus=0", "--node-ip-address=127.0.0.1",
                 f"--object-store-memory={_STORE}", "--disable-usage-stats", *args],
                env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        self._nodes.append(node)
        return node

    def _await_head(self) -> None:
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            assert self._nodes[0].poll() is None, (self._folder / "node-0.log").read_text()
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.1)
        raise AssertionError("the head of the cluster did not start")

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Kill every process of a node at once, as a power cut does."""
        with suppress(ProcessLookupError):
            os.killpg(node.pid, signal.SIGKILL)
        node.wait(timeout=30)


@contextmanager
def cluster(nodes: int, cpus: int = 1) -> Iterator[Cluster]:
    """A cluster with so many nodes beside the head."""
    with Cluster() as one:
        for _ in range(nodes):
            one.add(cpus)
        yield one
