"""Records, prompts, journals and metadata as strangers and accidents make them: one clear line, or the work is done.

Seeded, so that a failure comes again: `FUZZ_SEED=7 FUZZ_CASES=5000 pytest tests/test_fuzz_streams.py` tries others.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sanactl.cli.app import main
from tests.program import stdin_of

SEED = int(os.environ.get("FUZZ_SEED", "0"))
CASES = int(os.environ.get("FUZZ_CASES", "130"))
PATIENCE = 30  # seconds for one command, on a machine that does other work

IMAGE = {
    "kind": "image", "path": "0.png", "prompt": "a photo of a red circle", "prompt_id": "p0", "tag": "colors",
    "include": [{"class": "circle", "count": 1, "color": "red"}, {"class": "star", "count": 1, "position": ["above", 0]}],
    "exclude": [{"class": "star", "count": 2}], "index": 0, "samples": 2, "seed": 5, "checkpoint": "tiny.st",
    "digest": "sha256:0", "steps": 4, "guidance_scale": 4.5, "height": 64, "width": 64, "judge": "oracle",
    "verdict": "yes", "yes_logprob": -0.1, "no_logprob": -2.4, "judge_score": 0.9, "rank": 0, "correct": True,
    "reason": "", "detector": "shapes-1", "settings": {"steps": 4},
    "detections": [{"class": "circle", "color": "red", "score": 0.9, "box": [1, 2, 3, 4]}],
}  # fmt: skip
SCORE = {
    "kind": "score", "metric": "geneval", "detector": "shapes-1", "overall": 0.75, "ci": [0.5, 1.0],
    "tasks": {"colors": {"score": 0.5, "ci": [0.0, 1.0], "images": 4}}, "images": 8, "prompts": 4,
    "checkpoint": "tiny.st", "digest": "sha256:0", "selection": "single", "judge": "oracle",
}  # fmt: skip
SCALING = {
    **SCORE, "metric": "scaling", "single": 0.5, "single_ci": [0.3, 0.7],
    "points": [{"n": n, "judge": 0.6, "judge_ci": [0.5, 0.7], "oracle": 0.7, "oracle_ci": [0.6, 0.8]} for n in (1, 2)],
}  # fmt: skip
LOSS = {"kind": "score", "metric": "train_loss", "checkpoint": "tiny.st", "step": 3, "loss": 1.2, "lr": 1e-4,
        "grad_norm": 1.0, "images_per_second": 2.0}  # fmt: skip
BLOCK = {"kind": "block", "checkpoint": "tiny.st", "digest": "sha256:0", "block": 1, "blocks": 3, "importance": 0.2,
         "stderr": 0.1, "prompts": 2, "timesteps": [999.0, 1.0], "by_timestep": [0.1, 0.3]}  # fmt: skip
CHECKPOINT = {
    "kind": "checkpoint", "path": "tiny.st", "digest": "sha256:0", "blocks": 3, "parameters": 9, "bytes": 18,
    "lineage": [{"command": "prune", "arguments": {"blocks": [0, 1]}, "seed": 0, "blocks": 3, "version": "0",
                 "parents": [{"name": "base", "digest": "sha256:1"}]}],
}  # fmt: skip
PROMPT = {"kind": "prompt", "id": "a", "prompt": "a photo of a star", "tag": "single_object",
          "include": [{"class": "star", "count": 1}]}  # fmt: skip
RUN = {
    "time": "2026-01-01T00:00:00Z", "command": "grow", "argv": ["grow", "tiny.st", "--to", "5"], "version": "0.1.0",
    "seconds": 1.5, "seed": 0, "key": "k", "inputs": [{"path": "tiny.st", "digest": "sha256:0"}],
    "outputs": [{"path": "r.jsonl", "kind": "image"}, {"path": "tiny.st", "kind": "checkpoint", "digest": "sha256:1"}],
}  # fmt: skip

# As JSON text, for not all of it can be written by json.dumps.
JUNK = [
    "null", "true", "false", "0", "-1", "1", "3", "1.5", "-0.0", "1e308", "1e-320", "1e999", "-1e999", "NaN", "Infinity",
    "9" * 20, "9" * 400, "9" * 5000, "123456789012345678901234567890", '""', '"x"', '"0.png"', '"\\ud800"', '"\\udce9"',
    '"a\\u0000b"', '"\\u001b[2J\\u0007"', '"[/bold] [red]"', f'"{"x" * 5000}"', f'"{"../" * 40}etc"', '"é★\\ud83d\\ude00"',
    "[]", "{}", "[null]", "[[]]", '["a"]', "[1, 2]", '[1, "2"]', '{"a": 1}', '{"class": "circle"}', '[{"class": "circle"}]',
    '[{"class": "star", "count": 1, "position": ["above", 5]}]', '[{"class": ["star"], "count": 1}]', '["above", 0]',
    '[{"class": "circle", "count": 1, "color": "mauve"}]', '{"x": {"score": 1, "ci": [0, 1]}}', '{"x": {"score": null}}',
    "[" * 100 + "]" * 100, "[" * 100_000, '{"a":' * 70 + "1" + "}" * 70, '"/dev/zero"', '"fifo"', '"~"', '"."', '"/"',
    '"file:caf%E9.png"', '"file:%00"', '"file:///dev/zero"', '"image"', '"checkpoint"', '"score"', '"geneval"', '"scaling"', '"train_loss"', "-9223372036854775809", "4294967296",
]  # fmt: skip
LINES = [
    b"", b"\n", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"[1]", b"null", b'"x"', b"{}", b'{"kind": 5}', b'{"kind": "thing"}',
    b"\x00" * 40, b"a photo of a star", b"[" * 100_000, b'{"kind": "image"}', b"x" * 70_000, b'{"kind":"image",}',
    b'{"kind": "prompt", "prompt": "a", "prompt": 5}', b"\r\r\n", b"{'kind': 'image'}",
]  # fmt: skip


def mutated(rng: random.Random, thing: dict[str, Any], depth: int = 0) -> str:
    """An object as JSON text, with some of it replaced, left out, added or doubled, at any depth."""
    members: list[tuple[str, str]] = []
    for name, value in thing.items():
        roll = rng.random()
        if roll < 0.04:
            members.append((name, rng.choice(JUNK)))
        elif roll < 0.06:
            continue
        elif isinstance(value, dict) and roll < 0.3 and depth < 3:
            members.append((name, mutated(rng, value, depth + 1)))
        elif isinstance(value, list) and value and isinstance(value[0], dict) and roll < 0.3 and depth < 3:
            members.append((name, f"[{', '.join(mutated(rng, v, depth + 1) for v in value)}]"))
        else:
            members.append((name, json.dumps(value)))
    if rng.random() < 0.05:
        names = [*thing, "", "new", "\x1b[31m", "kind", "lineage", "settings"]
        members.append((rng.choice(names), rng.choice(JUNK)))
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members) + "}"


def lines_of(rng: random.Random, things: list[dict[str, Any]], most: int = 5) -> bytes:
    """A file of such objects, with lines of other things among them."""
    lines: list[bytes] = []
    for _ in range(rng.randint(1, most)):
        thing = dict(rng.choice(things))
        if thing.get("kind") == "image":
            thing["path"] = f"{rng.randrange(4)}.png"
        if rng.random() < 0.07:
            lines.append(rng.choice(LINES))
        elif rng.random() < 0.5:
            lines.append(json.dumps(thing).encode())
        else:
            lines.append(mutated(rng, thing).encode())
    data = b"\n".join(lines) + b"\n"
    return data[: rng.randrange(len(data))] if rng.random() < 0.05 else data


class Terminal(io.StringIO):
    """A terminal, as far as rich looks."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def write_records(rng: random.Random, *things: dict[str, Any]) -> None:
    Path("r.jsonl").write_bytes(lines_of(rng, list(things)))


def images(command: str) -> Callable[[random.Random], list[str]]:
    def case(rng: random.Random) -> list[str]:
        write_records(rng, IMAGE)
        return [*command.split(), "r.jsonl"]

    return case


def filtered(rng: random.Random) -> list[str]:
    write_records(rng, IMAGE, SCORE)
    options = ["--correct", "--top=1", "--per-prompt=1", "--top=2 --by=rank", "--top=1 --by=tag", "--where=rank<1",
               "--where=judge_score>=0.5 and not correct", "--where=settings.steps==4", "--where='a' in tag",
               "--where=include==null or samples!=2"]  # fmt: skip
    chosen = rng.choice(options)
    return ["filter", "r.jsonl", *(chosen.split() if chosen.startswith("--top") else [chosen])]


def report(rng: random.Random) -> list[str]:
    write_records(rng, IMAGE, SCORE, SCALING, LOSS, BLOCK, CHECKPOINT)
    return ["report", "r.jsonl"]


def journal(rng: random.Random) -> list[str]:
    Path(".sanactl").mkdir()
    Path(".sanactl/journal.jsonl").write_bytes(lines_of(rng, [RUN]))
    write_records(rng, IMAGE)
    commands = [
        "log",
        "log --json",
        "report",
        "inspect",
        "filter --correct",
        "grow --to 5 --dry-run",
        "prune --keep 2",
    ]
    return rng.choice(commands).split()


def pruned(rng: random.Random) -> list[str]:
    Path("r.jsonl").write_bytes(lines_of(rng, [{**BLOCK, "block": i} for i in range(3)], 9))
    return ["prune", "tiny.st", "--importance", "r.jsonl", "--keep", "2", "--dry-run"]


def piped(rng: random.Random) -> list[str]:
    write_records(rng, CHECKPOINT, BLOCK)
    return [*rng.choice(["inspect -", "grow - --to 5 --dry-run", "prune - --blocks 0 --dry-run"]).split()]


def prompted(rng: random.Random) -> list[str]:
    Path("r.jsonl").write_bytes(lines_of(rng, [PROMPT, {"prompt": "a star"}]))
    # The device is looked at once the prompts are read: nothing is drawn here.
    return ["sample", "tiny.st", "--prompts", "r.jsonl", "--device", "nonsense"]


def foldered(rng: random.Random) -> list[str]:
    for number in range(2):
        place = Path(f"folder/{rng.choice(['0000', '0', '²', '٣', '1' * 40])}{number}")
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_bytes(lines_of(rng, [{**PROMPT, "samples": 3, "path": "x"}], 1))
        for index in range(2):
            os.link("0.png", place / "samples" / f"{rng.choice(['000', '²', '٣'])}{index}.png")
    return ["eval", "geneval", "folder"]


KINDS = [
    images("judge --model oracle --all"), images("judge --model oracle"), images("eval geneval"), filtered, report, journal,
    journal, pruned, piped, prompted, foldered,
]  # fmt: skip


class _Late(BaseException):
    pass


def _late(*_: object) -> None:
    raise _Late


def run(
    arguments: list[str], stdin: str | None = None, terminal: bool = False, patience: int = PATIENCE
) -> tuple[Any, str, str]:
    """The exit code (or what is wrong with it), stdout and stderr."""
    out, err = (Terminal() if terminal else io.StringIO()), io.StringIO()
    before = sys.stdout, sys.stderr
    handler = signal.signal(signal.SIGALRM, _late)
    signal.alarm(patience)
    try:
        sys.stdout, sys.stderr = out, err
        if stdin is None:
            return main(arguments), out.getvalue(), err.getvalue()
        with stdin_of(stdin):
            return main(arguments), out.getvalue(), err.getvalue()
    except _Late:
        return "it hangs", out.getvalue(), err.getvalue()
    except BaseException as error:
        return repr(error), out.getvalue(), err.getvalue()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        sys.stdout, sys.stderr = before


def fault(code: Any, out: str, err: str, terminal: bool) -> str:
    """What is wrong with how a command ended, or nothing."""
    if code not in (0, 1, 2):
        return f"exit code {code}"
    if "unexpected" in err or "Traceback" in err or "--debug" in err:
        return "an error that nobody expected"
    notes = (
        "using",
        "wrote",
        "keeping",
        "leaving",
        "the overall",
        "scoring",
        "judging",
        "warning",
        "and ",
        "prompt id",
        "prompt text",
    )
    lines = [line.removeprefix("sanactl: ") for line in err.splitlines()]
    said = [line for line in lines if not line.startswith(notes) and "images passed" not in line]
    if code and len(said) != 1:
        return f"{len(said)} lines"
    if any(len(line) > 700 for line in said):
        return "a line that is too long"
    if any(ord(c) < 32 and c != "\n" for c in err):
        return "a control character"
    if not code and not terminal:
        for line in out.splitlines():
            if line.startswith("{"):
                json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
                line.encode()
    return ""


def test_no_records_prompts_or_journals_surprise_us(
    tiny_file: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    os.link(tiny_file, source / "tiny.st")
    for i in range(4):
        Image.new("RGB", (64, 64), (60 * i, 0, 0)).save(source / f"{i}.png")
    monkeypatch.chdir(source)
    Path("p.txt").write_text("a star")
    for warm in (prompted(random.Random(0)), ["report", "p.txt"], ["eval", "geneval", "p.txt"]):
        run(warm, patience=300)  # imports of torch and others count for none of the cases
    rng = random.Random(SEED)
    for number in range(CASES):
        case = random.Random(rng.randrange(2**60))
        folder = tmp_path / f"case-{number}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        os.mkfifo("fifo")
        for file in (source / "tiny.st", *source.glob("*.png")):
            os.link(file, folder / file.name)
        arguments = KINDS[number % len(KINDS)](case)
        stdin, terminal = None, case.random() < 0.3
        records = Path("r.jsonl").read_bytes() if Path("r.jsonl").exists() else b""
        if "-" in arguments or (arguments[-1] == "r.jsonl" and case.random() < 0.3):
            arguments = [a for a in arguments if a != "r.jsonl"]
            stdin = records.decode(errors="replace")
        code, out, err = run(arguments, stdin, terminal)
        wrong = fault(code, out, err, terminal)
        content = {p.name: p.read_bytes()[:1500] for p in folder.rglob("*.jsonl")}
        assert not wrong, f"case {number} of seed {SEED}: {wrong}\n{arguments}\n{err[-3000:]}\n{content}"
        left = [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]
        assert not left, f"case {number} of seed {SEED} left {left}"
