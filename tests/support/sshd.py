"""A real sshd on loopback, as a process of the test, and an `ssh` on the path that finds it under the name `hangar`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
WITHOUT = next(
    (
        f"{name} is absent"
        for name, path in (("sshd", SSHD), *((name, shutil.which(name)) for name in ("ssh", "ssh-keygen", "rsync")))
        if not path
    ),
    "" if os.geteuid() == 0 else "sshd here needs the folder /run/sshd, which only root makes",
)
needs_sshd = pytest.mark.skipif(bool(WITHOUT), reason=WITHOUT)


class Sshd:
    """The server: `bin` is first on the path of what it runs, so that a program put there replaces the one of the
    system; what it runs for a connection is of its process group."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "there"
        self.bin.mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "user", "other"):
            key = str(folder / name)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True, timeout=30)
        shutil.copy(folder / "user.pub", folder / "authorized")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
            f"KbdInteractiveAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
            # So deep a shell of bash reads no ~/.bashrc.
            f"SetEnv PATH={self.bin}:{os.environ['PATH']} SHLVL=5\n"
        )
        self.know("host")
        here = folder / "here"
        here.mkdir()
        (here / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
        (here / "ssh").chmod(0o755)
        self.path = f"{here}:{os.environ['PATH']}"
        self.let_in("user")

    def know(self, key: str) -> None:
        """Let the client know this key as the host's; "" for none."""
        text = f"hangar {(self.folder / f'{key}.pub').read_text()}" if key else ""
        (self.folder / "known").write_text(text)

    def let_in(self, key: str, **more: str) -> None:
        """Let the client use this key."""
        options = {
            "HostName": "127.0.0.1",
            "Port": str(self.port),
            "HostKeyAlias": "hangar",
            "UserKnownHostsFile": f"{self.folder}/known",
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": f"{self.folder}/{key}",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            **more,
        }
        lines = "".join(f"  {name} {value}\n" for name, value in options.items())
        (self.folder / "ssh_config").write_text(f"Host hangar\n{lines}")

    def put(self, name: str, script: str) -> None:
        """Put a program on the path there."""
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def count_rsync(self, log: Path, limit: int = 2**40) -> None:
        """Let rsync there note in `log` how many bytes it takes and gives, and die after so many."""
        relay = _RELAY.format(rsync=shutil.which("rsync"), log=str(log), limit=limit)
        (self.bin / "relay.py").write_text(relay)
        self.put("rsync", f'exec {sys.executable} -S {self.bin}/relay.py "$@"')

    def start(self) -> None:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        log = open(self.folder / "log", "ab")  # noqa: SIM115 - of the process
        command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        log.close()
        for _ in range(200):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """Pull the cable: the server and all its connections end at once."""
        process, self.process = self.process, None
        if process is not None:
            for pid in _below(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(10)


_RELAY = """
import os, subprocess, sys, threading
process = subprocess.Popen(["{rsync}", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
total, lock, log = 0, threading.Lock(), os.open("{log}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def relay(source, target):
    global total
    while data := os.read(source, 65536):
        with lock:
            total += len(data)
            if total > {limit}:
                process.kill()
                os._exit(1)
        while data:
            data = data[os.write(target, data):]
    os.close(target)
threading.Thread(target=relay, args=(0, process.stdin.fileno()), daemon=True).start()
relay(process.stdout.fileno(), 1)
os.write(log, b"%d\\n" % total)
os._exit(process.wait())
"""


def _below(top: int) -> list[int]:
    """The process and its descendants: each connection is a session of its own."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                stat = Path("/proc", name, "stat").read_text()
                parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(name))
    found = [top]
    for pid in found:
        found += parents.get(pid, [])
    return found


@contextmanager
def running(folder: Path) -> Iterator[Sshd]:
    server = Sshd(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
