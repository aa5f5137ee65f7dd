"""A small web server on loopback that keeps a log, slows down, fails and cuts connections as it is told."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """What it serves, and how; may be changed while it runs.

    `log` has (name, first byte, bytes) of each answer to a GET; `failures` is how many requests are refused next, `cuts` how many
    answers end half-way; `delay` seconds pass before each GET is answered.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    delay: float = 0.0
    failures: int = 0
    status: int = 503
    cuts: int = 0
    log: list[tuple[str, int, int]] = field(default_factory=list)
    port: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def gets(self) -> Counter[str]:
        return Counter(name for name, _, _ in self.log)

    def take(self, what: str) -> bool:
        with self.lock:
            left = getattr(self, what)
            setattr(self, what, max(0, left - 1))
            return bool(left)


@contextlib.contextmanager
def serve(web: Web) -> Iterator[Web]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else each answer waits 40 ms for the other side to have acknowledged its head

        def do_HEAD(self) -> None:
            self.answer(b"", len(web.files.get(self.path[1:], b"")))

        def do_GET(self) -> None:
            content = web.files.get(self.path[1:], b"")
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if web.ranges else None
            start = int(found[1]) if found else 0
            part = content[start : int(found[2]) + 1 if found and found[2] else None]
            time.sleep(web.delay)
            self.answer(part, len(part), partial=bool(found), start=start)

        def answer(self, body: bytes, length: int, *, partial: bool = False, start: int = 0) -> None:
            there = self.path[1:] in web.files
            refused = web.take("failures")
            status = web.status if refused else 404 if not there else 206 if partial else 200
            if status >= 400:
                body, length = b"", 0
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command == "GET" and status < 400:
                with web.lock:
                    web.log.append((self.path[1:], start, length))
                if web.take("cuts"):
                    self.wfile.write(body[: length // 2])
                    self.close_connection = True
                    return
            with contextlib.suppress(ConnectionError):  # killed clients
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    web.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
