"""`relabel` and `rewrite` against a real server: order, trouble, limits, and that nothing is paid for twice."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sanactl.errors import InputError
from sanactl.files import http
from sanactl.files.server_address import address_hint
from sanactl.shapes.languages import translate
from sanactl.shapes.prompts import load_eval_prompts
from tests.chat_server import Handler
from tests.program import Program
from tests.prompts.llm_server import LlmServer, asked, by_rules, completion, running

PROMPTS = [r["prompt"] for r in load_eval_prompts()[:12]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder with twelve prompts; a failed request is repeated at once."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.001)
    monkeypatch.chdir(tmp_path)
    Path("p.txt").write_text("".join(f"{p}\n" for p in PROMPTS))


@pytest.fixture
def server() -> Iterator[LlmServer]:
    with running() as server:
        yield server


def relabel(server: LlmServer, *more: str) -> list[str]:
    return ["relabel", "p.txt", "--to", "zh", "--llm", f"{server.address}#m", *more]


def prompts(records: list[Any]) -> list[str]:
    return [r["prompt"] for r in records]


ZH = [translate(p, "zh") for p in PROMPTS]


def test_in_order_several_at_once_and_never_twice(server: LlmServer, sanactl: Program) -> None:
    def late(handler: Handler, number: int) -> bool:
        time.sleep(0.002 * ((number * 7) % 5))
        return False

    server.trouble = late
    found = sanactl(*relabel(server, "--llm-option", "concurrency=4", "--price", "1,10"))
    assert prompts(found) == ZH
    assert [r["prompt_original"] for r in found] == PROMPTS
    assert {(r["prompt_form"], r["prompt_llm"]) for r in found} == {("zh", f"{server.address}#m")}
    assert 1 < server.most_at_once <= 4
    assert "12 requests with 1,200 tokens, answers of 120, $0.0024" in sanactl.said
    assert [json.loads(line) for line in Path("relabel.jsonl").read_text().splitlines()] == found
    assert len(server.requests) == 12
    again = sanactl(*relabel(server, "-o", "again.jsonl"))
    assert again == found and len(server.requests) == 12
    assert "12 answers of earlier runs" in sanactl.said
    # Another template, other options of the model and other words are other questions; --no-cache asks, too.
    sanactl(*relabel(server, "-o", "c.jsonl", "--llm-option", "temperature=0.5"))
    sanactl(*relabel(server, "-o", "d.jsonl", "--no-cache"))
    assert len(server.requests) == 36


def test_images_with_one_prompt_are_asked_about_once(server: LlmServer, sanactl: Program) -> None:
    records = [{"kind": "image", "path": f"{n}.png", "prompt": PROMPTS[n // 6], "prompt_id": str(n // 6), "seed": n}
               for n in range(12)]  # fmt: skip
    text = "".join(json.dumps(r) + "\n" for r in records)
    found = sanactl("relabel", "-", "--to", "zh,emoji", "--llm", f"{server.address}#m", stdin=text)
    assert len(server.requests) == 4
    assert [(r["path"], r["seed"], r["prompt_id"]) for r in found] == [
        (f"{n}.png", n, f"{n // 6}-{form}") for n in range(12) for form in ("zh", "emoji")
    ]


def test_first_records_leave_before_the_last_prompt_comes(server: LlmServer) -> None:
    command = [sys.executable, "-m", "sanactl", "relabel", "-", "--to", "zh", "--llm", f"{server.address}#m"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for prompt, zh in zip(PROMPTS[:2], ZH[:2], strict=True):
            process.stdin.write(prompt + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["prompt"] == zh
        process.stdin.close()
        assert process.wait(30) == 0


BAD = {
    "preamble": "Sure, here is the translation: {}",
    "fence": "```\n{}\n```",
    "lines": "{}\n\nLet me know!",
    "english": "a photo of a circle",
    "refusal": "I'm sorry, but I cannot help with that.",
    "empty": "",
}


@pytest.mark.parametrize("manner", BAD)
def test_a_bad_answer_is_asked_for_again_with_the_reason(manner: str, sanactl: Program) -> None:
    def answer(message: str, seed: int) -> str:
        good = by_rules(message)
        return BAD[manner].format(good) if seed == 0 else good

    with running(answer) as server:
        assert prompts(sanactl(*relabel(server))) == ZH
        assert len(server.requests) == 24
        (first, second) = [r for r in server.requests if asked(r["messages"][0]["content"])[0] == PROMPTS[0]]
        assert first["seed"] != second["seed"]
        assert "An earlier answer was refused: the" in second["messages"][0]["content"]
        # What failed is kept, too.
        sanactl(*relabel(server, "-o", "again.jsonl"))
        assert len(server.requests) == 24


def test_what_fails_for_good_is_a_record_with_a_reason(sanactl: Program) -> None:
    def answer(message: str, seed: int) -> str:
        prompt = asked(message)[0]
        return "I cannot do that." if prompt == PROMPTS[3] else by_rules(message)

    with running(answer) as server:
        found = sanactl(*relabel(server), code=1)
        assert prompts(found) == ZH[:3] + ZH[4:]
        (line,) = [x for x in sanactl.said.splitlines() if "1 record failed" in x]
        assert "the model refused" in line and "relabel.failed.jsonl" in line
        (failed,) = [json.loads(x) for x in Path("relabel.failed.jsonl").read_text().splitlines()]
        assert failed["prompt"] == PROMPTS[3] and failed["prompt_form"] == "zh"
        assert failed["rewrite_error"] == "the model refused: 'I cannot do that.', 3 times"
        assert failed["rewrite_answer"] == "I cannot do that."
        assert len(server.requests) == 11 + 3
        sanactl(*relabel(server, "-o", "again.jsonl", "--failed", "f.jsonl", "--allow-failed"))
        assert Path("f.jsonl").read_bytes() == Path("relabel.failed.jsonl").read_bytes()
        assert len(server.requests) == 14
        # The failed records are prompts, which another model can be asked about.
        (good,) = sanactl("relabel", "relabel.failed.jsonl", "--to", "zh", "-o", "rest.jsonl")
        assert good["prompt"] == ZH[3] and "rewrite_error" not in good


@pytest.mark.parametrize("manner", ["429", "500", "half", "html", "left", "slow"])
def test_trouble_that_passes_is_waited_out(server: LlmServer, sanactl: Program, manner: str) -> None:
    def trouble(handler: Handler, number: int) -> bool:
        if number == 0 or number % 2:  # the first reply tells that this is a server
            return False
        if manner == "429":
            return handler.say(429, {"error": {"message": "slow down"}}, Retry_After="0.01")
        if manner == "500":
            return handler.say(500, "oh")
        if manner == "half":
            return handler.send(200, json.dumps(completion("一")).encode()[:-20])
        if manner == "html":
            return handler.send(200, b"<html>Bad gateway</html>")
        if manner == "slow":
            time.sleep(0.3)
            return handler.say(200, completion("too late"))
        handler.leave()
        return True

    server.trouble = trouble
    few = ("concurrency=1", "timeout=0.2")
    found = sanactl(*relabel(server, *(part for x in few for part in ("--llm-option", x))))
    assert prompts(found) == ZH
    assert len(server.requests) == 12 + 10


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


def test_a_server_that_dies_midway(server: LlmServer, sanactl: Program) -> None:
    server.trouble = lambda handler, number: number > 4 and handler.say(500, {"error": "oh"})
    command = relabel(server, "--llm-option", "retries=1", "--llm-option", "concurrency=2")
    out = sanactl(*command, code=1)
    assert prompts(out) == ZH[: len(out)] and len(out) >= 4  # all that came, in order
    assert not Path("relabel.jsonl").exists()
    assert "the same command goes on from the answers that are kept" in sanactl.said
    server.requests.clear()
    server.trouble = lambda handler, number: False
    assert prompts(sanactl(*command)) == ZH
    assert len(server.requests) == 12 - 5


@pytest.mark.parametrize(("option", "first"), [("--max-requests=5", 5), ("--max-tokens=500", 5)])
def test_limits_end_a_run_cleanly(server: LlmServer, sanactl: Program, option: str, first: int) -> None:
    command = relabel(server, option, "--llm-option", "concurrency=1")
    assert prompts(sanactl(*command, code=1)) == ZH[:first]
    assert f"stopped at {option.split('=')[0]}" in sanactl.said and "goes on from the answers" in sanactl.said
    assert not Path("relabel.jsonl").exists()
    assert prompts(sanactl(*command, code=1)) == ZH[: 2 * first]
    assert prompts(sanactl(*command)) == ZH
    assert len(server.requests) == 12


def test_a_kill_pays_for_nothing_twice(server: LlmServer, sanactl: Program) -> None:
    """Killed at several places; only the two that were under way can be asked for again."""
    enough = threading.Event()

    def trouble(handler: Handler, number: int) -> bool:
        if len(server.requests) % 4 == 0:
            enough.set()
            time.sleep(0.5)
        return False

    server.trouble = trouble
    command = [sys.executable, "-m", "sanactl", *relabel(server, "--llm-option", "concurrency=2")]
    kills = 0
    for _ in range(2):
        enough.clear()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert enough.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    server.trouble = lambda handler, number: False
    assert prompts(sanactl(*relabel(server))) == ZH
    assert len(server.requests) <= 12 + 2 * kills
    # Each answer that was kept before a kill was not asked for after it.
    questions = [asked(r["messages"][0]["content"])[0] for r in server.requests]
    assert len(questions) - len(set(questions)) <= 2 * kills


def test_two_runs_at_once_share_their_answers(server: LlmServer, sanactl: Program) -> None:
    """Prompt by prompt at the same time: each is asked for once, and both have all answers."""
    begun = threading.Event()

    def slowly(handler: Handler, number: int) -> bool:
        begun.set()
        time.sleep(0.1)
        return False

    server.trouble = slowly
    command = relabel(server, "--llm-option", "concurrency=2")
    other = subprocess.Popen([sys.executable, "-m", "sanactl", *command], stdout=subprocess.PIPE, text=True)
    assert begun.wait(30)
    mine = sanactl(*command, "-o", "mine.jsonl")
    theirs = [json.loads(line) for line in other.communicate(timeout=30)[0].splitlines()]
    assert prompts(mine) == prompts(theirs) == ZH
    assert len(server.requests) == 12
    assert "answers of earlier runs" in sanactl.said


def test_a_full_disk_stops_the_paying(server: LlmServer, sanactl: Program) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limit[1]))
    try:
        sanactl(*relabel(server, "--llm-option", "concurrency=1"), code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert "answers cannot be kept (file too large)" in sanactl.said
    paid = len(server.requests)
    assert paid < 12
    assert prompts(sanactl(*relabel(server))) == ZH
    assert len(server.requests) == 13  # the one whose answer had no room


def test_a_file_in_place_of_the_kept_answers(server: LlmServer, sanactl: Program) -> None:
    Path(".sanactl").write_text("")
    assert ".sanactl/answers: answers cannot be kept" in sanactl.fails(*relabel(server))
    assert not server.requests


def test_long_and_empty_prompts_are_not_sent(server: LlmServer, sanactl: Program) -> None:
    lines = [{"prompt": "x " * 50_000}, {"prompt": "  "}, {"prompt": PROMPTS[0]}]
    text = "".join(json.dumps(x) + "\n" for x in lines)
    found = sanactl("relabel", "-", "--to", "zh", "--llm", f"{server.address}#m", stdin=text, code=1)
    assert prompts(found) == ZH[:1] and len(server.requests) == 1
    assert "the prompt has 100,000 characters, more than 8,000; the prompt is empty" in sanactl.said


def test_a_bad_line_comes_after_the_good_ones(server: LlmServer, sanactl: Program) -> None:
    text = f'{{"prompt": "{PROMPTS[0]}"}}\n{{"kind": "prompt"}}\n'
    found = sanactl("relabel", "-", "--to", "zh", "--llm", f"{server.address}#m", stdin=text, code=1)
    assert prompts(found) == ZH[:1]
    assert "stdin, line 2: a prompt record without 'prompt'" in sanactl.said
    # In a file it is found before anything is paid for.
    Path("p.jsonl").write_text(text)
    server.requests.clear()
    line = sanactl.fails("relabel", "p.jsonl", "--llm", f"{server.address}#m")
    assert "p.jsonl, line 2" in line and not server.requests
