"""A server that writes prompts and cannot be used: one line each."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from sanactl.errors import InputError
from sanactl.files import http
from sanactl.files.server_address import address_hint
from tests.chat_server import Handler
from tests.program import Program
from tests.prompts.llm_server import LlmServer, asked, completion
from tests.prompts.twelve_prompts import PROMPTS, ZH, prompts, relabel

pytestmark = pytest.mark.usefixtures("twelve_prompts")

FOREVER = {
    "500": ("500 oh, 2 times", lambda h: h.say(500, {"error": "oh"})),
    "429": ("429 slow down, 2 times", lambda h: h.say(429, {"error": {"message": "slow down"}})),
    "401": ("401 no key; put the server's key into the environment variable OPENAI_API_KEY (--llm-option", lambda h: h.say(401, {"error": "no key"})),
    "html": ("its reply is not JSON (text/html: '<html> Log in')\n", lambda h: h.send(200, b"<html>\n\x1b Log in", Content_Type="text/html; charset=utf-8")),
    "half": ("its reply is not JSON ('{\"choices\": [')\n", lambda h: h.send(200, b'{"choices": [')),
    "long": (f"its reply is not JSON ('{'x' * 60}'...)\n", lambda h: h.send(200, b"x" * 100_000)),
    "nothing": ("its reply is not JSON (it is empty)\n", lambda h: h.send(200, b"", Content_Type="text/html")),
    "json": ("""its reply is no chat completion: '{"hello": 1}'\n""", lambda h: h.say(200, {"hello": 1})),
    "left": ("the connection broke", lambda h: h.leave() or True),
    "400": ("400 no such field", lambda h: h.say(400, {"error": "no such field"})),
}  # fmt: skip


@pytest.mark.parametrize("manner", FOREVER)
def test_a_server_that_cannot_be_used(server: LlmServer, sanactl: Program, manner: str) -> None:
    said, act = FOREVER[manner]
    server.trouble = lambda handler, number: act(handler)
    line = sanactl.fails(*relabel(server, "--llm-option", "retries=1", "--llm-option", "concurrency=1"))
    assert said in f"{line}\n"
    assert "127.0.0.1" in line


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (429, b"", "429 Too Many Requests; try later, or with fewer requests at a time (--llm-option concurrency=N);"),
        (429, b'{"error": null}', "429 Too Many Requests; try later"),
        (429, b'{"error": {"message": ""}}', "429 Too Many Requests; try later"),
        (429, b'{"detail": "Slow down."}', "429 Slow down; try later"),
        (502, b"<p>nginx", "502 Bad Gateway; see whether the server runs and what it logs;"),
        (400, b'{"error": "a must be < 3"}', "400 a must be < 3; see the server's own messages"),
        (400, b"[" * 60_000, "400 [[[["),
    ],
)  # fmt: skip
def test_what_is_said_of_a_status(server: LlmServer, code: int, body: bytes, said: str) -> None:
    server.trouble = lambda handler, number: handler.send(code, body)
    client = http.Client(server.address, kept="answers", option="--llm-option")
    with pytest.raises(InputError) as error:
        client.post("chat/completions", {}, retries=0)
    assert str(error.value).startswith(f"{server.address}: {said}")


def test_an_address_without_v1_is_hinted_at(server: LlmServer) -> None:
    server.trouble = lambda handler, number: handler.send(200, b"<html>")
    for base, hinted in ((server.address, False), (f"{server.address}/chat", True)):
        assert (address_hint(base) is not None) == hinted
    with pytest.raises(InputError) as error:
        http.Client(server.address.removesuffix("/v1")).post("v1/chat/completions", {})
    assert str(error.value).endswith("('<html>'); the address ends in /v1 on most servers")


def test_no_server(sanactl: Program) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1#m"
    line = sanactl.fails("relabel", "p.txt", "--to", "zh", "--llm", address)
    assert "no connection (Connection refused), 2 times" in line and "the answers that are kept" in line


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"choices": []}, "the answer is empty, 2 times"),
        ({"choices": [None]}, "the answer is empty, 2 times"),
        ({"choices": [{"message": {"content": None, "refusal": "No."}}]}, "content filter, 2 times"),
        (completion("半", "content_filter"), "content filter, 2 times"),
        (completion("一张照片", "length"), "the answer was cut at 10 tokens, 2 times"),
        (completion("\ud800一"), "the answer has broken characters"),
    ],
)
def test_replies_without_a_good_answer(server: LlmServer, sanactl: Program, reply: Any, said: str) -> None:
    server.trouble = lambda handler, number: number == 0 and handler.say(200, reply)
    command = relabel(server, "--tries", "1", "--llm-option", "concurrency=1")
    assert prompts(sanactl(*command, code=1)) == ZH[1:]
    assert said.removesuffix(", 2 times") in sanactl.said


def test_one_message_that_the_server_refuses(server: LlmServer, sanactl: Program) -> None:
    """It is asked once; the others go on."""

    def trouble(handler: Handler, number: int) -> bool:
        prompt = asked(server.requests[number]["messages"][0]["content"])[0]
        return prompt == PROMPTS[2] and handler.say(400, {"error": {"message": "content management policy"}})

    server.trouble = trouble
    assert prompts(sanactl(*relabel(server, "--llm-option", "concurrency=1"), code=1)) == ZH[:2] + ZH[3:]
    assert "the server refuses it: 400 content management policy" in sanactl.said
    assert len(server.requests) == 12
