"""A judge behind a server: the built-in judge's own numbers, whatever order and trouble they come in."""

from __future__ import annotations

import json
import math
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.files import http
from sanactl.files.images import write_png
from sanactl.judging.registry import open_judge
from sanactl.shapes.dataset import batch
from tests.judging.server import Handler, Server, certain, running, top_tokens
from tests.program import Program


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed request is repeated at once."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)


@pytest.fixture(scope="module")
def builtin() -> Any:
    return open_judge(device="cpu")


@pytest.fixture(scope="module")
def pairs() -> tuple[list[np.ndarray], list[dict[str, Any]]]:
    images, records = batch(range(12))
    return list(images), [{"prompt": r["prompt"]} for r in records]


@pytest.fixture
def server(builtin: Any) -> Iterator[Server]:
    with running(top_tokens(builtin)) as server:
        yield server


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: Any) -> list[dict[str, Any]]:
    """Twelve pictures in the working folder with their records, four a prompt."""
    monkeypatch.chdir(tmp_path)
    records = []
    for number, (image, record) in enumerate(zip(*pairs, strict=True)):
        write_png(image, tmp_path / f"{number}.png")
        records.append({"kind": "image", "path": f"{number}.png", **record})
    Path("images.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return records


def delayed(handler: Handler, number: int) -> bool:
    time.sleep(random.Random(number).random() * 0.05)
    return False


def failing(handler: Handler, number: int) -> bool:
    """Every second request fails, in a way of its own, and the others come late."""
    if number % 2 == 0:
        return delayed(handler, number)
    if number % 8 == 1:
        handler.say(429, {"error": {"message": "slow down"}}, Retry_After="0.01")
    elif number % 8 == 3:
        handler.say(503, {"detail": "overloaded"})
    elif number % 8 == 5:
        handler.leave()
    else:
        handler.say(500, "no object")
    return True


@pytest.mark.parametrize("trouble", [delayed, failing])
def test_the_server_says_what_the_judge_itself_says(
    builtin: Any, server: Server, pairs: Any, trouble: Any
) -> None:
    images, records = pairs
    judge = open_judge(f"{server.address}#any", concurrency=5, retries=12)
    alone = [builtin.judge([i], [r])[0] for i, r in zip(images, records, strict=True)]
    server.requests.clear()
    server.trouble = trouble
    found = judge.judge(images, records)
    assert len({round(v.yes_logprob, 5) for v in alone}) == len(alone), "no two answers are alike"
    for a, b in zip(alone, found, strict=True):
        assert a.verdict == b.verdict
        assert b.yes_logprob == pytest.approx(a.yes_logprob, abs=1e-6)
        assert b.no_logprob == pytest.approx(a.no_logprob, abs=1e-6)
        assert b.answer_mass == pytest.approx(a.answer_mass, abs=1e-6)
    assert 1 < server.most_at_once <= 5
    assert len(server.requests) > len(images) if trouble is failing else len(server.requests) == len(images)


def test_what_is_asked(server: Server, pairs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sesame")
    judge = open_judge(
        f"{server.address}#some/model", key_env="MY_KEY", max_pixels=1000, extra='{"top_k": 1}'
    )
    judge.judge([pairs[0][0]], [pairs[1][0]])
    body, headers = server.requests[-1], server.headers[-1]
    assert {k: v for k, v in body.items() if k != "messages"} == {
        "model": "some/model", "max_tokens": 1, "temperature": 0, "logprobs": True, "top_logprobs": 20, "top_k": 1,
    }  # fmt: skip
    assert [part["type"] for part in body["messages"][0]["content"]] == ["text", "image_url", "text"]
    assert headers["Authorization"] == "Bearer sesame"
    assert "sesame" not in json.dumps([judge.identity, judge.name])
    seen: list[Any] = []

    def look(image: np.ndarray, text: str) -> list[tuple[str, float]]:
        seen.append(image.shape)
        return [("yes", -0.1), ("no", -3.0)]

    server.answer = look
    judge.judge([pairs[0][0]], [{"prompt": "a heart"}])
    assert seen == [(31, 31, 3)]


def few_likely(judge: Any) -> Any:
    """The likeliest token and one that is no answer, so that one answer is not listed."""
    top = top_tokens(judge)
    return lambda image, text: [max(top(image, text), key=lambda t: t[1]), ("maybe", -12.0)]


@pytest.mark.parametrize("manner", ["taken", "refused", "ignored", "no ids"])
def test_answers_by_their_token_ids(builtin: Any, pairs: Any, manner: str) -> None:
    """Named tokens have exact numbers, likely or not; a server that does not take them is asked for the likeliest."""
    images, records = pairs
    with running(few_likely(builtin)) as server:
        if manner != "no ids":
            server.tokenize = lambda text: builtin.processor.tokenizer.encode(text, add_special_tokens=False)
        if manner == "taken":
            server.answer_ids = top_tokens(builtin)
        if manner == "refused":
            server.trouble = lambda handler, number: (
                "logprob_token_ids" in server.requests[number]
                and handler.say(400, {"error": {"message": "extra fields not permitted"}})
            )
        judge = open_judge(f"{server.address}#any")
        opening, tokenized = len(server.requests), server.tokenized
        found = judge.judge(images, records)
        assert server.tokenized == tokenized == (1 if manner == "no ids" else 12)
        asked = server.requests[opening:]
        assert opening == (1 if manner == "no ids" else 2) and len(asked) == 12
        named = sorted({*builtin.yes, *builtin.no})
        assert {tuple(b.get("logprob_token_ids", ())) for b in asked} == {tuple(named * (manner == "taken"))}
    alone = [builtin.judge([i], [r])[0] for i, r in zip(images, records, strict=True)]
    exact = [
        a.yes_logprob == pytest.approx(b.yes_logprob, abs=1e-6)
        and a.no_logprob == pytest.approx(b.no_logprob, abs=1e-6)
        and a.answer_mass == pytest.approx(b.answer_mass, abs=1e-6)
        for a, b in zip(alone, found, strict=True)
    ]
    assert all(exact) == (manner == "taken")
    assert ("logprob_token_ids" in judge.identity) == (manner == "taken")


def test_through_the_command_line(server: Server, images: Any, sanactl: Program, builtin: Any) -> None:
    here = sanactl("judge", "images.jsonl", "--all", "-b", "1")
    there = sanactl("judge", "images.jsonl", "--all", "--model", f"{server.address}#m", "-o", "there.jsonl")
    assert [r["path"] for r in here] == [r["path"] for r in there]
    for a, b in zip(here, there, strict=True):
        assert b["judge"] == f"{server.address}#m"
        assert [b[k] for k in ("yes_logprob", "no_logprob", "judge_score", "answer_mass")] == pytest.approx(
            [a[k] for k in ("yes_logprob", "no_logprob", "judge_score", "answer_mass")], abs=1e-6
        )


def test_a_server_that_dies_midway(server: Server, images: Any, sanactl: Program) -> None:
    """One line, exit code 1; the same command goes on from the verdicts of whole batches."""
    address = f"{server.address}#m"
    command = (
        "judge",
        "images.jsonl",
        "--all",
        "--model",
        address,
        "-b",
        "4",
        "--judge-option",
        "retries=1",
    )

    def dies(handler: Handler, number: int) -> bool:
        if number > 6:  # the first question, a batch, and two of the next
            handler.leave()
        return number > 6

    server.trouble = dies
    assert sanactl(*command, code=1) == []
    (line,) = [line for line in sanactl.said.splitlines() if line.startswith("sanactl: ") and "127.0" in line]
    assert f"{server.address}: " in line and "2 times; see whether the server runs" in line
    assert not Path("judge.jsonl").exists()
    server.requests.clear()
    server.trouble = lambda handler, number: False
    found = sanactl(*command)
    assert len(found) == 12
    assert len(server.requests) == 1 + 8
    assert "4 verdicts are taken over" in sanactl.said
    whole = sanactl(*command, "-o", "whole.jsonl")
    assert found == whole


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ({"choices": [{"message": {"content": "yes"}}]}, "no log-probabilities, so it cannot be a judge"),
        ({"choices": [{"logprobs": None}]}, "no log-probabilities, so it cannot be a judge"),
        ({"choices": [{"logprobs": {"content": []}}]}, "no log-probabilities"),
        (
            {"choices": [{"logprobs": {"content": [{"token": "yes", "logprob": -0.1, "top_logprobs": []}]}}]},
            "no log-probabilities",
        ),
        ({"choices": []}, "no chat completion"),
        ([], "no chat completion"),
        ("text", "no chat completion"),
        (
            {"choices": [{"logprobs": {"content": [
                {"token": "yes", "logprob": float("nan"), "top_logprobs": [{"token": "no", "logprob": -1.0}]}]}}]},
            "as the log-probability of 'yes'",
        ),
    ],
)  # fmt: skip
def test_a_server_that_cannot_judge_is_refused_in_one_line(
    server: Server, images: Any, sanactl: Program, reply: Any, said: str
) -> None:
    server.trouble = lambda handler, number: handler.say(200, reply)
    line = sanactl.fails("judge", "images.jsonl", "--model", f"{server.address}#m")
    assert said in line


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (401, {"error": {"message": "bad\nkey"}}, "401 bad key; put the server's key into the environment variable"),
        (404, {"error": {"message": "no model m"}}, "404 no model m; #model is one that GET /v1/models lists"),
        (400, {"message": "too large"}, "400 too large"),
        (302, "", "redirects"),
        (503, "<html>busy</html>", "503 Service Unavailable, 2 times; see whether the server runs and what it logs"),
    ],
)  # fmt: skip
def test_what_a_server_refuses(
    server: Server, images: Any, sanactl: Program, code: int, body: Any, said: str
) -> None:
    def refuse(handler: Handler, number: int) -> bool:
        return handler.say(code, body, Location="http://127.0.0.1:1/")

    server.trouble = refuse
    line = sanactl.fails("judge", "images.jsonl", "--model", f"{server.address}#m")
    assert said in line
    assert len(server.requests) == (2 if code == 503 else 1)


def test_no_server_and_no_reply(server: Server, images: Any, sanactl: Program) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1#m"
    line = sanactl.fails("judge", "images.jsonl", "--model", address)
    assert "no connection (Connection refused), 2 times" in line
    held = threading.Event()
    server.trouble = lambda handler, number: held.wait(5)
    slow = ("--judge-option", "timeout=0.1")
    line = sanactl.fails("judge", "images.jsonl", "--model", f"{server.address}#m", *slow)
    held.set()
    assert "no reply in 0.1 s, 2 times" in line


@pytest.mark.parametrize(
    ("address", "options", "said"),
    [
        ("http://127.0.0.1:1/v1", [], "names no model; give http(s)://host[:port]/v1#model"),
        ("http:///v1#m", [], "is not the address of a server"),
        ("http://h:99999/v1#m", [], "Port out of range"),
        ("https://me:secret@h/v1#m", [], "has a user or password in it"),
        ("http://h/v1#m", ["concurrency=0"], "concurrency is 0; it takes a number from 1"),
        ("http://h/v1#m", ["dialogue=moon"], "no dialogue 'moon'; there are: paper, reference, vqascore"),
        ("http://h/v1#m", ["max_pixels=-1"], "max_pixels is -1"),
        ("http://h/v1#m", ["extra={"], "extra is '{', and no JSON"),
        ("http://h/v1#m", ["extra=[1]"], "extra is '[1]'; it takes a JSON object"),
        ("http://h/v1#m", ['extra={"model": "x"}'], "extra sets the model or the messages"),
    ],
)
def test_wrong_addresses_and_options(
    images: Any, sanactl: Program, address: str, options: list[str], said: str
) -> None:
    given = [part for option in options for part in ("--judge-option", option)]
    line = sanactl.fails("judge", "images.jsonl", "--model", address, *given, code=2)
    assert said in line and "secret" not in line


def test_a_judge_that_answers_something_else_is_warned_of(
    server: Server, images: Any, sanactl: Program
) -> None:
    server.answer = lambda image, text: [
        ("A", math.log(0.6)),
        ("The", math.log(0.2)),
        ("yes", math.log(0.05)),
    ]
    found = sanactl("judge", "images.jsonl", "--all", "--model", f"{server.address}#m")
    assert {r["answer_mass"] for r in found} == {0.05}
    (line,) = [line for line in sanactl.said.splitlines() if "warning" in line]
    assert "puts less than half of its probability on yes and no for 12 of 12 images" in line
    server.answer = certain(0.8)
    found = sanactl("judge", "images.jsonl", "--all", "--model", f"{server.address}#other", "-o", "b.jsonl")
    assert {r["answer_mass"] for r in found} == {1.0}
    assert "warning" not in sanactl.said
