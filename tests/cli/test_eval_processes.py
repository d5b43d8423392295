"""`eval` and `guard` in several processes: the records, scores and files of one process."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.cli.app import main
from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.cli.test_processes import ENVIRONMENT, ROOT, kill_second, torchrun
from tests.program import Program
from tests.prompts.tiny_guards import save_gemma2
from tests.scoring.dpg_tables import row, write_table
from tests.scoring.tiny_models import save_clip

# Several commands in one start of the processes, each into a file of its own.
SEVERAL = """
import json, sys
from sanactl.cli.app import main
from sanactl.cli.frame.process import end
for command in json.loads(sys.argv[1]):
    if code := main(command):
        end(code)
end(0)
"""
SLOW = """
import sys, time
from sanactl.cli.app import main
from sanactl.cli.frame.process import end
from sanactl.scoring.detectors import shapes

detect = shapes.ShapesDetector.detect

def slowly(self, images, classes):
    time.sleep(0.4)
    return detect(self, images, classes)

shapes.ShapesDetector.detect = slowly
end(main(sys.argv[1:]))
"""


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """46 pictures of the built-in world in r.jsonl, the first ones in reference/ as well, with questions, and tiny models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent))  # a check that has passed is not made again
    rng = np.random.default_rng(5)
    lines = []
    for i in range(46):
        prompt = load_eval_prompts()[8 * (i // 2)]
        write_png(render(scene_for(prompt, rng)), Path(f"{i}.png"))
        record = {"kind": "image", "path": f"{i}.png", "prompt_id": str(i // 2), "samples": 2, "index": i % 2}
        lines.append(json.dumps({**prompt, **record}) + "\n")
    Path("r.jsonl").write_text("".join(lines))
    Path("reference").mkdir()
    for i in range(9):
        shutil.copy(f"{i}.png", "reference")
    save_clip(tmp_path / "clip")
    save_gemma2(tmp_path / "gemma")
    asked = ["Is there a red circle?", "Are there two stars?", "Is there a blue square?"]
    write_table(
        Path("table.csv"),
        [row(str(i), n, "0", "entity - whole", q) for i in range(23) for n, q in enumerate(asked, 1)],
    )
    prompts = {json.loads(line)["prompt"] for line in lines}
    atoms = [{"question": q, "answer": "Yes", "skill": "object"} for q in asked]
    Path("q.jsonl").write_text(
        "".join(json.dumps({"prompt": p, "atoms": atoms}) + "\n" for p in sorted(prompts))
    )
    Path("p.txt").write_text("\n".join(sorted(prompts)))
    return tmp_path


def commands(folder: str) -> list[list[str]]:
    """One command of each way to divide the work, and one that is arithmetic alone."""
    few = ["r.jsonl", "-b", "3"]
    found = [
        ["eval", "geneval", *few, "--detections", f"{folder}/kept.jsonl"],
        ["eval", "clip", *few, "-m", "clip"],
        ["eval", "cmmd", *few, "-m", "clip", "-r", "reference", "--small"],
        ["eval", "judge", f"{folder}/judged.jsonl"],
        ["eval", "dpg", *few, "--questions", "table.csv", "-m", "shapes", "--answers", f"{folder}/dpg"],
        ["eval", "vqa", "r.jsonl", "-b", "2", "--questions", "q.jsonl", "-m", "shapes"],
        ["guard", "p.txt", "-m", "gemma", "-b", "3", "--threshold", "0.65", "--no-cache", "--blocked", f"{folder}/blocked"],
    ]  # fmt: skip
    return [[*command, "-o", f"{folder}/{number}.jsonl"] for number, command in enumerate(found)]


def launched(
    processes: int, script: str, *arguments: str, environment: dict[str, str], stdin: str = ""
) -> subprocess.Popen[str]:
    """A Python program in several processes on this machine, by gloo."""
    Path("program.py").write_text(script)
    process = subprocess.Popen(
        [*torchrun(processes), "program.py", *arguments], env={**ENVIRONMENT, **environment, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def prepared(folder: Path) -> Path:
    """A folder for outputs, with verdicts of a judge for `eval judge`."""
    folder.mkdir()
    with (folder / "judged.jsonl").open("w") as file:
        for number, line in enumerate(Path("r.jsonl").read_text().splitlines()):
            verdict = {"judge": "j", "verdict": "yes", "yes_logprob": -0.1, "no_logprob": -2.4}
            record: dict[str, Any] = {**json.loads(line), **verdict, "correct": number % 3 > 0}
            file.write(json.dumps(record) + "\n")
    return folder


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_score_as_one(
    pictures: Path, processes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    one, several = prepared(pictures / "one"), prepared(pictures / "several")
    for command in commands("one"):
        assert main(command) == 0
    alone = capfd.readouterr().out.replace("one/", "several/")
    environment = {"XDG_CACHE_HOME": str(pictures.parent)}
    process = launched(processes, SEVERAL, json.dumps(commands("several")), environment=environment)
    out, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert out == alone
    files = [*(f"{number}.jsonl" for number in range(7)), "kept.jsonl", "dpg", "blocked"]
    for name in files:
        assert (several / name).read_bytes() == (one / name).read_bytes(), name
    assert 0 < len((one / "blocked").read_bytes().splitlines()) < 23
    assert said.count("eval judge needs one process") == 1
    assert not list(pictures.rglob("*.partial"))
    assert len((pictures / ".sanactl/journal.jsonl").read_text().splitlines()) == 14


@pytest.mark.slow
def test_a_process_that_is_killed(pictures: Path, sanactl: Program) -> None:
    """One line; the verdicts so far are kept, and one process goes on from them. Then a damaged image."""
    command = ("eval", "geneval", "r.jsonl", "-b", "3")
    process = launched(2, SLOW, *command, environment={})
    until = time.monotonic() + 200
    while not list(pictures.glob(".*.partial")) and time.monotonic() < until:
        time.sleep(0.005)
    kill_second(pictures)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    own = [line for line in said.splitlines() if line.startswith("sanactl")]
    assert (
        len([line for line in own if "another process of this run ended" in line or "interrupted;" in line])
        == 1
    )
    assert "unexpected" not in said and not Path("geneval.jsonl").exists(), said
    records = sanactl(*command)
    (line,) = [line for line in sanactl.said.splitlines() if "taken over" in line]
    assert int(line.split()[1]) >= 6
    assert records == sanactl(*command, "-o", "whole.jsonl")
    Path("20.png").write_bytes(Path("20.png").read_bytes()[:60])
    process = launched(2, SEVERAL, json.dumps([[*command, "-o", "x.jsonl"]]), environment={})
    _, said = process.communicate(timeout=100)
    own = [line for line in said.splitlines() if line.startswith("sanactl")]
    assert len(own) == 1 and "20.png: not a readable image" in own[0], said
    assert not Path("x.jsonl").exists() and list(pictures.glob(".*.partial"))
