"""A local server that speaks OpenAI's protocol, and misbehaves where a test asks for it."""

from __future__ import annotations

import base64
import io
import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch
from PIL import Image

# What a test does with the request of this number (from 0): an answer of its own, or None for the usual one.
Trouble = Callable[["Handler", int], bool]


class Server(ThreadingHTTPServer):
    """Answers `POST /v1/chat/completions` with what `answer` says of (image, text before it, text after it)."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer: Callable[[np.ndarray, str], Sequence[tuple[str, float]]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.trouble: Trouble = lambda handler, number: False
        # As vLLM: text -> ids, and what is said of (image, text, ids).
        self.tokenize: Callable[[str], list[int]] | None = None
        self.answer_ids: Callable[[np.ndarray, str, list[int]], Sequence[tuple[str, float]]] | None = None
        self.tokenized = 0
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    server: Server

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
            self.say(200, self.completion(body))

    def leave(self) -> None:
        """Breaks the connection without an answer."""
        self.done()
        self.connection.shutdown(socket.SHUT_RDWR)

    def done(self) -> None:
        """Counted before the client knows, which may send its next request at once."""
        with self.server.lock:
            self.server.at_once -= 1

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        (turn,) = body["messages"]
        (image,) = (p["image_url"]["url"] for p in turn["content"] if p["type"] == "image_url")
        kind, _, data = image.partition(",")
        assert kind == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        text = "\n".join(p["text"] for p in turn["content"] if p["type"] == "text")
        likely = list(self.server.answer(pixels, text))
        token, logprob = max(likely, key=lambda answer: answer[1])
        ids: list[int] = body.get("logprob_token_ids", [])
        named = self.server.answer_ids if ids else None
        answers = likely if named is None else list(named(pixels, text, ids))
        listed = [{"token": t, "logprob": p} for t, p in answers]
        first = {"token": token, "logprob": logprob, "top_logprobs": listed}
        message = {"role": "assistant", "content": token}
        return {"choices": [{"index": 0, "message": message, "logprobs": {"content": [first]}}]}

    def say(self, code: int, body: Any, **headers: str) -> bool:
        """Answers, and says that it did."""
        data = json.dumps(body).encode()
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
def running(answer: Callable[[np.ndarray, str], Sequence[tuple[str, float]]]) -> Iterator[Server]:
    server = Server(answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def top_tokens(judge: Any) -> Callable[..., list[tuple[str, float]]]:
    """A vision-language judge's 20 likeliest tokens for an image and the paper's dialogue, or the tokens of these ids."""
    lock = threading.Lock()

    def answer(image: np.ndarray, text: str, ids: list[int] | None = None) -> list[tuple[str, float]]:
        prompt = text.split("The given prompt is: ")[1].split(". Please consider")[0]
        with lock, torch.inference_mode():
            inputs = judge._inputs([image], [prompt])
            output = judge.model.generate(
                **inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True
            )
            every = output.logits[0][0].double().log_softmax(-1)
            if ids is not None:
                values = every[ids].tolist()
                return list(zip(judge.processor.tokenizer.convert_ids_to_tokens(ids), values, strict=True))
            top = every.topk(20)
        tokens = judge.processor.tokenizer.convert_ids_to_tokens(top.indices.tolist())
        return list(zip(tokens, top.values.tolist(), strict=True))

    return answer


def certain(yes: float) -> Callable[[np.ndarray, str], list[tuple[str, float]]]:
    """Always the same answer."""
    return lambda image, text: [("yes", math.log(yes)), ("no", math.log(1 - yes))]
