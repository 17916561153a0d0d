"""Workers that start warm: forked from a process that has loaded the libraries, which is most of what a worker does.

`run_worker` starts Python on `builders.engines.keeper`. Here the *server* forks instead, and the fork runs the same
keeper: as a child of the process that asked, with the arguments, the folder, the environment, the descriptors and the
session that were asked for. The server has imported the modules of a build, and done nothing else. A worker that was
forked so has a server of its own, for the workers that it starts. Whatever Python or a library reads when it starts
must be as it was for the server; otherwise, and for tests with the marker `cold`, the process starts as it does for
users.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib
import inspect
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from builders.engines import isolation, keeper

MODULES = ("builders.confined", "builders.orchestrator", "builders.artifacts.plan", "builders.operator_check")
MODULES += ("builders.engines.worker", "onnx", "onnxruntime")
_CLONE, _CLONE_PARENT = 56, 0x8000  # linux/sched.h; the number of the call on x86_64
# Starts a server as `isolation` starts a worker.
_START = (
    "import sys; sys.path[:1] = filter(None, sys.path[:1]); from tests.support import warm; warm.main(int(sys.argv[1]))"
)
# A process may find these different each time.
_OWN = ("FLIGHTBAG_STORE", "PYTEST_", "TMPDIR", "XDG_")
_READY = b"+"
# Above every descriptor that a test has open.
_HIGH = 10_000


class Starter:
    """Starts the workers of this process. `cold`: as users start them. `asks` is the socket of a server for processes
    with this environment; the first start makes one. `forked` counts the workers that it started."""

    def __init__(self, asks: socket.socket | None = None, environment: Mapping[str, str] | None = None) -> None:
        self.cold = sys.platform != "linux" or os.uname().machine != "x86_64"
        self.forked = 0
        self._asks = asks
        self._fixed = _fixed(environment or {})
        self._server: subprocess.Popen[bytes] | None = None

    def close(self) -> None:
        """End the server that this process started."""
        if self._asks is not None:
            self._asks.close()
        if self._server is not None:
            self._server.wait()

    def _begin(self, environment: Mapping[str, str]) -> None:
        self._asks, theirs = socket.socketpair()
        command = [sys.executable, "-X", "faulthandler", "-c", _START, str(theirs.fileno())]
        self._server = subprocess.Popen(
            command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
        )
        theirs.close()
        self._fixed = _fixed(environment)
        self.cold = self._asks.recv(1) != _READY

    def server(self, environment: Mapping[str, str]) -> socket.socket | None:
        """Return the socket of the server, None if a process with this environment has to start cold."""
        if self._asks is None and not self.cold:
            self._begin(environment)
        return None if self.cold or self._fixed != _fixed(environment) else self._asks

    def installed(self) -> SimpleNamespace:
        """Return the module `subprocess` as `isolation` uses it."""
        starter = self

        class Popen(subprocess.Popen[bytes]):
            def _execute_child(self, *given: Any) -> None:
                usual: Any = super()._execute_child  # type: ignore[misc]
                asked = inspect.signature(usual).bind(*given).arguments
                warm = starter.server(asked["env"]) if isolation._START in asked["args"] else None
                if warm is None:
                    usual(*given)
                    return
                streams = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
                text = json.dumps([asked["args"], os.fspath(asked["cwd"]), asked["env"], asked["pass_fds"]]).encode()
                socket.send_fds(warm, [len(text).to_bytes(4, "big")], [*streams, *asked["pass_fds"]])
                warm.sendall(text)
                if len(answer := warm.recv(4, socket.MSG_WAITALL)) != 4:
                    raise RuntimeError("the process that starts workers ended")
                self.pid = int.from_bytes(answer, "big")
                starter.forked += 1
                self._child_created = True
                ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
                self._close_pipe_fds(*(asked[end] for end in ends))  # type: ignore[attr-defined]

        return SimpleNamespace(**{**vars(subprocess), "Popen": Popen})


def _fixed(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_OWN)}


def load(asks: socket.socket) -> None:
    """Load the modules, and tell whether this process can be cloned: not where a library keeps a thread."""
    for module in MODULES:
        importlib.import_module(module)
    # Libraries end their threads at a fork, and start them again when they need them.
    if (child := os.fork()) == 0:
        os._exit(0)
    os.waitpid(child, 0)
    if len(os.listdir("/proc/self/task")) == 1:
        asks.sendall(_READY)


def serve(asks: socket.socket) -> None:
    """Fork for each request until the socket closes."""
    while True:
        size, fds, _, _ = socket.recv_fds(asks, 4, 16)
        if not size:
            return
        text = b""
        while len(text) < int.from_bytes(size, "big"):
            text += asks.recv(2**20)
        pid = _clone()
        if pid == 0:
            asks.close()
            _run(*json.loads(text), fds)
        asks.sendall(pid.to_bytes(4, "big"))
        for fd in fds:
            os.close(fd)


def _clone() -> int:
    """Fork a child of the parent of this process. The keeper forks again, which sets what the C library missed here."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid = int(ctypes.PyDLL(None).syscall(_CLONE, _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0))
    python.PyOS_AfterFork_Child() if pid == 0 else python.PyOS_AfterFork_Parent()
    return pid


def _run(arguments: list[str], folder: str, environment: dict[str, str], passed: list[int], fds: list[int]) -> NoReturn:
    """Become what `arguments` ask for: `… -c _START PARENT MODULE ARGUMENT…`."""
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, _HIGH) for fd in fds]
    os.closerange(3, _HIGH)
    for fd, wanted in zip(fds, [0, 1, 2, *passed], strict=True):
        os.dup2(fd, wanted, inheritable=wanted <= 2)
        os.close(fd)
    parent, module, *rest = arguments[arguments.index(isolation._START) + 1 :]
    sys.modules.pop(module, None)  # it runs as __main__
    keeper._begin(int(parent))
    isolation.subprocess = _nested().installed()  # type: ignore[assignment]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit(0)


def _nested() -> Starter:
    """Return a starter for the workers of this worker, while it has one thread. Its server ends with the worker."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        os.dup2(theirs.fileno(), 3)
        os.closerange(4, _HIGH)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        serve(socket.socket(fileno=3))
        os._exit(0)
    theirs.close()
    return Starter(ours, isolation._environment(Path()))


def main(fd: int) -> None:
    """Serve the requests that come over the socket `fd`."""
    with socket.socket(fileno=fd) as asks:
        load(asks)
        serve(asks)
