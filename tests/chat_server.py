"""A local server that speaks OpenAI's protocol, and misbehaves where a test asks for it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What a test does with the request of this number (from 0): an answer of its own, or None for the usual one.
Trouble = Callable[["Handler", int], bool]


class ChatServer(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions` with what `complete` says of a request's body."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.trouble: Trouble = lambda handler, number: False
        # As vLLM: text -> ids.
        self.tokenize: Callable[[str], list[int]] | None = None
        self.tokenized = 0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def complete(self, body: dict[str, Any]) -> Any:
        raise NotImplementedError

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            with server.lock:
                server.tokenized += 1
                server.at_once += 1
            if server.tokenize is None:
                self.say(404, {"detail": "Not Found"})
            else:
                assert body["add_special_tokens"] is False
                tokens = server.tokenize(body["prompt"])
                self.say(200, {"count": len(tokens), "max_model_len": 4096, "tokens": tokens})
            return
        with server.lock:
            number = len(server.requests)
            server.requests.append(body)
            server.headers.append(dict(self.headers))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        if self.path != "/v1/chat/completions":
            self.say(404, {"error": {"message": "no such path"}})
        elif not server.trouble(self, number):
            self.say(200, server.complete(body))

    def leave(self) -> None:
        """Breaks the connection without an answer."""
        self.done()
        self.connection.shutdown(socket.SHUT_RDWR)

    def done(self) -> None:
        """Counted before the client knows, which may send its next request at once."""
        with self.server.lock:
            self.server.at_once -= 1

    def say(self, code: int, body: Any, **headers: str) -> bool:
        """Answers, and says that it did."""
        return self.send(code, json.dumps(body).encode(), **headers)

    def send(self, code: int, data: bytes, **headers: str) -> bool:
        """As `say`, with bytes that may be no JSON."""
        self.done()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        return True

    def log_message(self, *arguments: Any) -> None:
        """Not on the test's stderr."""


@contextmanager
def serving(server: Any) -> Iterator[Any]:
    """The server, which runs during the body."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
