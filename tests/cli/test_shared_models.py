"""`importance`, `relabel` and `filter` in several processes: the records and files of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sanactl.cli.app import main
from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.cli.test_eval_processes import SEVERAL, launched
from tests.prompts.test_chat import save_model
from tests.scoring.tiny_models import save_clip


def commands(folder: str) -> list[list[str]]:
    """One command of each way to divide the work."""
    found = [
        ["importance", "tiny.st", "-p", "p.txt", "--steps", "1"],
        ["relabel", "p.txt", "--llm", "hf:chat", "--llm-option", "answer_tokens=8", "--llm-option", "batch_size=4",
         "--allow-failed", "--failed", f"{folder}/failed.jsonl", "--no-cache"],
        ["rewrite", "shapes"],
        ["filter", "r.jsonl", "--dedup", "clip:clip:0.9", "--max-bad", "2"],
        ["filter", "r.jsonl", "--dedup", "phash", "--max-bad", "2"],
    ]  # fmt: skip
    return [[*command, "-o", f"{folder}/{number}.jsonl"] for number, command in enumerate(found)]


@pytest.fixture
def inputs(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """9 prompts, 34 pictures of which two are damaged, tiny models."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(place.parent))  # a check that has passed is not made again
    rng = np.random.default_rng(5)
    lines = []
    for i in range(34):
        prompt = load_eval_prompts()[10 * i]
        write_png(render(scene_for(prompt, rng)), Path(f"{i}.png"))
        lines.append(json.dumps({**prompt, "kind": "image", "path": f"{i}.png", "prompt_id": str(i)}) + "\n")
    for i in (3, 22):
        Path(f"{i}.png").write_bytes(Path(f"{i}.png").read_bytes()[:60])
    Path("r.jsonl").write_text("".join(lines))
    Path("p.txt").write_text("\n".join(f"a photo of {n} red stars" for n in range(9)))
    save_model(place / "chat")
    save_clip(place / "clip")
    return place


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_give_what_one_gives(
    inputs: Path, processes: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """`importance` to the last bit, a chat model's messages, a server's place taken by rules, CLIP's vectors."""
    one, several = inputs / "one", inputs / "several"
    one.mkdir()
    several.mkdir()
    for command in commands("one"):
        assert main(command) == 0
    alone = capfd.readouterr().out
    environment = {"XDG_CACHE_HOME": str(inputs.parent)}
    process = launched(processes, SEVERAL, json.dumps(commands("several")), environment=environment)
    out, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert out == alone
    for name in sorted(path.name for path in one.iterdir()):
        assert (several / name).read_bytes() == (one / name).read_bytes(), name
    assert len((one / "0.jsonl").read_text().splitlines()) == 3
    assert 0 < len((one / "3.jsonl").read_text().splitlines()) < 32
    assert (one / "failed.jsonl").exists()
    assert said.count("left out: 3.png") == 2  # each of both filters says it once
    assert len((inputs / ".sanactl/journal.jsonl").read_text().splitlines()) == 10
