"""More jobs than work: a job without any ends well, its output is empty and complete, and `merge` takes it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.program import Program, snapshot
from tests.scoring.dpg_tables import row, write_table
from tests.scoring.tiny_models import save_clip

ONE = ("-p", "p.jsonl", "--steps", "1")
# A command with one piece of work, and what joins the outputs of its jobs; None is the command itself without --shard.
COMMANDS: dict[str, tuple[tuple[str, ...], str | None]] = {
    "sample": (("sample", "tiny.st", *ONE, "-n", "1", "-o", "images"), "images"),
    "scale": (("scale", "tiny.st", *ONE, "-n", "1", "-k", "1", "-m", "oracle", "-o", "images"), "scale.*-of-3.jsonl"),
    "judge": (("judge", "r.jsonl", "-m", "oracle"), "judge.*-of-3.jsonl"),
    "guard": (("guard", "p.jsonl", "-m", "builtin:words"), "guard.*-of-3.jsonl"),
    "relabel": (("relabel", "p.jsonl", "--to", "zh"), "relabel.*-of-3.jsonl"),
    "rewrite": (("rewrite", "p.jsonl"), "rewrite.*-of-3.jsonl"),
    "encode": (("encode", "tiny.st", "--count", "1", "-o", "latents"), "latents"),
    "eval geneval": (("eval", "geneval", "r.jsonl"), None),
    "eval clip": (("eval", "clip", "r.jsonl", "-m", "clip"), None),
    "eval dpg": (("eval", "dpg", "r.jsonl", "--questions", "table.csv", "-m", "shapes"), None),
    "eval vqa": (("eval", "vqa", "r.jsonl", "--questions", "q.jsonl", "-m", "shapes"), None),
}  # fmt: skip
# Letters, digits, and signs that every file system has.
NAME = re.compile(r"[A-Za-z0-9._-]+")


@pytest.fixture
def work(place: Path) -> Path:
    """A prompt and its one image, with questions about it."""
    prompt = load_eval_prompts()[0]
    Path("p.jsonl").write_text(json.dumps({**prompt, "kind": "prompt"}) + "\n")
    write_png(render(scene_for(prompt, np.random.default_rng(5))), Path("0.png"))
    image = {**prompt, "kind": "image", "path": "0.png", "prompt_id": "0", "index": 0, "samples": 1}
    Path("r.jsonl").write_text(json.dumps(image) + "\n")
    asked = "Is there a red circle?"
    write_table(Path("table.csv"), [row("0", 1, "0", "entity - whole", asked)])
    atom = {"question": asked, "answer": "Yes", "skill": "object"}
    Path("q.jsonl").write_text(json.dumps({"prompt": prompt["prompt"], "atoms": [atom]}) + "\n")
    return place


@pytest.mark.parametrize("name", COMMANDS)
def test_a_job_without_work(work: Path, sanactl: Program, name: str) -> None:
    command, joined = COMMANDS[name]
    if name == "eval clip":
        save_clip(work / "clip")
    before = {*snapshot(work)}
    written = {part: sanactl(*command, "--shard", f"{part}/3") for part in (2, 0, 1)}
    for part in (1, 2):
        assert all(record["kind"] == "shard" and record["records"] == 0 for record in written[part])
        assert name in ("encode",) or name.startswith("eval") or len(written[part]) == 1
    assert "no work for this job" in sanactl.said or name in ("encode", "sample"), sanactl.said
    made = [p for p in work.rglob("*") if str(p.relative_to(work)) not in before and "clip" not in p.parts]
    assert made and all(NAME.fullmatch(part) for p in made for part in p.relative_to(work).parts)
    if joined is None:
        assert written[0] == []
        assert [record["kind"] for record in sanactl(*command)][:2] == ["image", "score"]
        assert not [p for p in work.iterdir() if p.name.endswith(".partial")]
        return
    merged = sanactl("merge", *(sorted(map(str, Path().glob(joined)))))
    if name == "encode":
        assert json.loads(Path("latents/index.json").read_text())["examples"] == 1
    else:
        assert len(merged) == 1 and [*merged, written[0][-1]] == written[0]
    if name == "guard":
        assert sanactl("merge", *sorted(map(str, Path().glob("guard-blocked.*-of-3.jsonl")))) == []
