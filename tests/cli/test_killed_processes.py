"""One of 1, 2 or 3 processes is killed on the way: one line of each other one, and any number of them goes on from there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from sanactl.cli.app import main
from sanactl.shapes.prompts import load_eval_prompts
from tests.cli.test_eval_processes import SEVERAL, launched
from tests.cli.test_processes import ENVIRONMENT, ROOT, kill_second
from tests.fork_server import kill, python_command
from tests.program import snapshot
from tests.prompts.test_chat import save_model

# Each piece of work takes longer, so that there is a time between the first and the last.
SLOW = """
import sys, time
from pathlib import Path
from sanactl.cli.app import main
from sanactl.cli.frame.process import end
from sanactl.data.shard_folder import ShardFolder
from sanactl.model.conditioning import Sana
from sanactl.prompts.llm.chat import ChatModel
from sanactl.sampling.sample_folder import SampleFolder

for kind, name in ((SampleFolder, "write"), (ShardFolder, "write"), (ChatModel, "reply"), (Sana, "denoise")):
    def slowly(*arguments, kind=kind, before=getattr(kind, name), **keywords):
        Path("begun").touch()
        time.sleep(2 if kind is Sana and sys.argv[1] == "importance" else 0.2)
        return before(*arguments, **keywords)
    setattr(kind, name, slowly)
end(main(sys.argv[1:]))
"""
COMMANDS = {
    "sample": ["sample", "tiny.st", "-p", "p.jsonl", "-n", "3", "--steps", "1", "-b", "8", "-o", "out"],
    "scale": ["scale", "tiny.st", "-p", "p.jsonl", "-n", "4", "--round", "2", "-k", "1", "--steps", "1", "-o", "out"],
    "encode": ["encode", "tiny.st", "--count", "40", "--shard-size", "20KB", "-o", "out"],
    "relabel": ["relabel", "p.txt", "--llm", "hf:chat", "--llm-option", "answer_tokens=8", "--llm-option", "batch_size=2",
                "--allow-failed", "--tries", "1"],
    "importance": ["importance", "tiny.st", "-p", "p.txt", "--steps", "1", "-o", "importance.jsonl"],
}  # fmt: skip
# What is there when the work has begun.
FIRST = {
    "sample": "out/*/samples/*.png",
    "scale": "out/*/samples/*.png",
    "encode": "out/0*.safetensors",
    "relabel": ".sanactl/answers/*.jsonl",
    "importance": "begun",
}


def results(folder: Path) -> dict[str, object]:
    """Everything that a command leaves, without the folder's memory."""
    left = ("tiny.st", "p.txt", "p.jsonl", "chat", "program.py", ".sanactl", "one", "begun")
    return {name: content for name, content in snapshot(folder).items() if Path(name).parts[0] not in left}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_process(place: Path, name: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [{**record, "kind": "prompt"} for record in load_eval_prompts()[::30]]
    Path("p.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    Path("p.txt").write_text("\n".join(f"a photo of {n} red stars" for n in range(40)))
    save_model(place / "chat")
    one = place / "one"
    one.mkdir()
    for needed in ("tiny.st", "p.jsonl", "p.txt", "chat"):
        os.symlink(place / needed, one / needed)
    monkeypatch.chdir(one)
    assert main(COMMANDS[name]) == 0
    monkeypatch.chdir(place)
    whole = results(one)
    if processes > 1:
        process = launched(processes, SLOW, *COMMANDS[name], environment={})
    else:
        Path("program.py").write_text(SLOW)
        process = subprocess.Popen(
            [*python_command(), "program.py", *COMMANDS[name]], env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    until = time.monotonic() + 200
    while not list(place.glob(FIRST[name])) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    assert process.poll() is None
    kill_second(place) if processes > 1 else kill(process)
    _, said = process.communicate(timeout=100)
    assert process.returncode != 0 and "unexpected" not in said, said
    # The launcher ends the others, or they notice that one is gone; the first says in any case that it stopped.
    words = ("another process of this run ended", "interrupted")
    ends = [
        line for line in said.splitlines() if line.startswith("sanactl") and any(w in line for w in words)
    ]
    assert (processes == 1) == (not ends), said
    assert sum(line.startswith("sanactl:") for line in ends) <= 2 and len(ends) <= processes, said
    assert not {*results(place)} & {"relabel.jsonl", "scale.jsonl", "importance.jsonl", "out/images.jsonl"}
    others = processes % 3 + 1
    done = launched(others, SEVERAL, json.dumps([COMMANDS[name]]), environment={})
    _, said = done.communicate(timeout=200)
    assert done.returncode == 0, said
    assert results(place) == whole
    shutil.rmtree(one)
