"""An OpenAI-compatible endpoint on loopback for the tests: real HTTP, answers that are other ones each time, trouble on demand.

What it answers is no model's: the words of the passage in sentences of its own, behind the line that the prompt asks for.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREAMBLE = re.compile(r"exactly as it stands[^\n]*\n([^\n]+)\n")
LENGTH_S = 20.0  # for which a slow answer waits


class ChatServer:
    """What a test sees and says.

    `trouble`: a word → what happens to the first requests whose passage has it, one after the other; a number is an HTTP status,
    `429 0.2` one that asks to wait, other words are methods of the handler. `always`: a word → what always happens. `texts`: a
    word → the whole answer. `down`: what happens to all. `bodies` and `headers`: of all requests so far.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.trouble: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.finishes: dict[str, str] = {}
        self.down: str | None = None
        self.usage = True
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.under_way = 0
        self.most_at_once = 0
        self.delay = 0.0
        self.lock = threading.Lock()

    def passages(self) -> Counter[str]:
        """Return how often there was an answer about each passage."""
        return Counter(passage_of(body) for body in self.bodies)

    def fate(self, passage: str) -> str:
        """Return what is to happen to a request."""
        with self.lock:
            if self.down is not None:
                return self.down
            for word, fates in self.trouble.items():
                if word in passage and fates:
                    return fates.pop(0)
            return next((fate for word, fate in self.always.items() if word in passage), "answer")


def passage_of(body: Mapping[str, Any]) -> str:
    """Return the passage that a request is about: what stands behind the prompt's words."""
    content: str = body["messages"][0]["content"]
    return content.rpartition("The passage:")[2].strip()


def answer_about(content: str) -> str:
    """Return an answer that is another one each time, in English."""
    found = PREAMBLE.search(content)
    words = sorted(set(re.findall(r"\w+", content.rpartition("The passage:")[2])))
    told = " ".join(f"One thing that the writer of this text tells us about is called {word}." for word in words)
    return (f"{found[1]}\n\n" if found else "") + f"This is the answer with the number {uuid.uuid4().int % 10**9}. {told}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        chat = self.server.chat
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with chat.lock:
            chat.headers.append(dict(self.headers))
            chat.under_way += 1
            chat.most_at_once = max(chat.most_at_once, chat.under_way)
        try:
            time.sleep(chat.delay)
            fate = chat.fate(passage_of(body))
            status, _, wait = fate.partition(" ")
            if self.path != "/v1/chat/completions":
                self.send(404, {"error": {"message": f"no {self.path}"}})
            elif status.isdecimal():
                said = f"status {status}; you sent {self.headers.get('Authorization', 'no key')}"
                self.send(int(status), {"error": {"message": said}}, {"Retry-After": wait} if wait else {})
            else:
                getattr(self, fate)(body)
        finally:
            with chat.lock:
                chat.under_way -= 1

    def answer(self, body: dict[str, Any]) -> None:
        chat, content = self.server.chat, body["messages"][0]["content"]
        passage = passage_of(body)
        text = next((text for word, text in chat.texts.items() if word in passage), None) or answer_about(content)
        finish = next((finish for word, finish in chat.finishes.items() if word in passage), "stop")
        with chat.lock:
            chat.bodies.append(body)
        usage = {"usage": {"prompt_tokens": len(content) // 4, "completion_tokens": len(text) // 4}} if chat.usage else {}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.send(200, {"id": uuid.uuid4().hex, "model": f"{body['model']}-served", "choices": [choice], **usage})

    def slow(self, body: dict[str, Any]) -> None:
        time.sleep(LENGTH_S)

    def nonsense(self, body: dict[str, Any]) -> None:
        self.raw(b"<html>502 but in its own way</html>")

    def empty(self, body: dict[str, Any]) -> None:
        self.raw(b"")

    def choiceless(self, body: dict[str, Any]) -> None:
        self.send(200, {"choices": []})

    def cut(self, body: dict[str, Any]) -> None:
        """End the stream in the middle of what was promised."""
        self.send_response(200)
        self.send_header("Content-Length", "10000")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"message": {"content": "Here')
        self.wfile.flush()
        self.close_connection = True

    def reset(self, body: dict[str, Any]) -> None:
        """Break the connection without a word."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def moved(self, body: dict[str, Any]) -> None:
        self.send(301, {}, {"Location": "http://elsewhere.test/v1"})

    def raw(self, data: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        self.raw(json.dumps(content).encode(), status, headers)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    chat: ChatServer
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that went."""


@contextlib.contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Run the server."""
    with Server(("127.0.0.1", 0), Handler) as server:
        server.chat = ChatServer(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.chat
        finally:
            server.shutdown()
            thread.join()
