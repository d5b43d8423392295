"""`relabel` and `rewrite` against a real server: order, trouble, limits, and that nothing is paid for twice."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.chat_server import Handler
from tests.program import Program
from tests.prompts.llm_server import LlmServer, asked, by_rules, completion, running
from tests.prompts.twelve_prompts import PROMPTS, ZH, prompts, relabel

pytestmark = pytest.mark.usefixtures("twelve_prompts")


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
