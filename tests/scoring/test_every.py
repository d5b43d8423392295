"""`eval all`: what can be run is run, what cannot is said, and all scores stand in one table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.files.images import write_png
from sanactl.scoring.table_one import HEADINGS, as_markdown, table_one
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.program import Program
from tests.scoring.tiny_models import save_clip


def speed(checkpoint: str, value: float, metric: str = "speed", **more: Any) -> dict[str, Any]:
    return {"kind": "score", "metric": metric, "value": value, "checkpoint": checkpoint, **more}


def test_the_table_has_a_row_for_each_checkpoint() -> None:
    whole = {"benchmark": "GenEval's 553 prompts", "images": 2212, "detector": "m2f"}
    scores = [
        speed("a/big.st", 0.26, latency=4.2, parameters=4.8e9, digest="x"),
        speed("a/big.st", 0.13, "speed_diffusers", latency=8.0, parameters=4.8e9, digest="x"),
        speed("big.st", 0.5, "geneval", digest="x", benchmark="12 of GenEval's 553 prompts"),
        speed("big.st", 0.81, "geneval", digest="x", **whole),
        speed("small.st", 5.99, "fid", protocol="sana", images=30000),
        speed("small.st", 84.7, "dpg_official", note="not comparable with mPLUG scores"),
        speed("small.st", 0.9, "judge_auc"),
        speed("none.st", None, "clip"),  # type: ignore[arg-type]
    ]
    table = table_one(scores)
    cells = [dict(zip(HEADINGS, row, strict=True)) for row in table.rows]
    assert [c["model"] for c in cells] == ["big.st", "SanaPipeline, big.st", "small.st"]
    assert cells[0] | {"speedup": "2.00x", "GenEval": "0.810", "params": "4.8B", "FID": ""} == cells[0]
    assert cells[1]["speedup"] == "1.00x" and cells[1]["latency"] == "8 s"
    assert cells[2] | {"FID": "5.99", "DPG": "84.70", "throughput": ""} == cells[2]
    assert any(n.startswith("GenEval: 2,212 images") for n in table.notes)
    assert any("official rules" in n and "not comparable" in n for n in table.notes)
    text = as_markdown(table)
    assert text.count("\n|") == 4 and "| - |" in text


def test_images_that_a_judge_chose_have_a_row_of_their_own() -> None:
    every, best = (
        speed("a.st", v, "geneval", selection=s) for v, s in [(0.5, "single"), (0.9, "best-of-4 by j")]
    )
    assert [(row[0], row[7]) for row in table_one([every, best]).rows] == [
        ("a.st", "0.500"),
        ("a.st, best-of-4 by j", "0.900"),
    ]


def test_the_report_has_the_table(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scores = [
        speed("a.st", 2.0, latency=0.5, parameters=2e9, unit="images/s"),
        speed("a.st", 5.99, "fid", protocol="sana", model="inception-2015-12-05", images=30000),
        speed("a.st", 0.7, "cmmd", protocol="MMD", model="clip"),
    ]
    Path("s.jsonl").write_text("".join(json.dumps(s) + "\n" for s in scores))
    sanactl("report", "s.jsonl", "-o", "r.html")
    page = Path("r.html").read_text()
    for text in ("As the paper&#39;s table 1", "5.99", "2.0B", "CMMD", "protocol sana", "0.5 s"):
        assert text in page, text


def test_one_speed_has_no_speedup() -> None:
    (row,) = table_one([speed("a.st", 2.0)]).rows
    assert row[HEADINGS.index("speedup")] == ""


def test_all_that_can_be_run(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    save_clip(tmp_path / "clip")
    lines = []
    for number, prompt in enumerate(load_eval_prompts()[::60]):
        write_png(render(scene_for(prompt, np.random.default_rng(number))), Path(f"{number}.png"))
        record = {**prompt, "kind": "image", "path": f"{number}.png", "checkpoint": "a.st"}
        lines.append(json.dumps(record) + "\n")
    lines.append(json.dumps(speed("a.st", 2.0, latency=0.5, parameters=2e9)) + "\n")
    Path("r.jsonl").write_text("".join(lines))
    out = sanactl("eval", "all", "r.jsonl", "--clip", "clip", "--device", "cpu", "--table", "t.md")
    images, scores = out[:6], out[6:]
    assert all(r["correct"] is True and isinstance(r["clip_score"], float) for r in images)
    assert [s["metric"] for s in scores] == ["geneval", "clip", "speed"]
    assert "left out fid: " in sanactl.said and "left out dpg: no image is of its prompts" in sanactl.said
    assert "1.000" in sanactl.said and "not GenEval: 6 images" in sanactl.said
    assert Path("t.md").read_text().count("| a.st |") == 1
    # Scores that came in are not measured again, and without a CLIP its line says so.
    again = sanactl("eval", "all", "-", stdin="".join(json.dumps(r) + "\n" for r in [*images, scores[0]]))
    assert [s["metric"] for s in again[6:]] == ["geneval"]
    assert "geneval: its score came in" in sanactl.said
    (line,) = [line for line in sanactl.said.splitlines() if "left out clip" in line]
    assert "is not on this machine" in line and len(line) < 140
    assert [json.loads(line) for line in Path("all-2.jsonl").read_text().splitlines()] == again


def test_nothing_to_do_is_one_line(sanactl: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no image or score records" in sanactl.fails("eval", "all", "-", stdin="")
    Path("x.jsonl").write_text('{"kind": "image", "path": "gone.png", "prompt": "a cat"}\n')
    assert sanactl("eval", "all", "x.jsonl", code=1) == []
    assert "no metric could be run" in sanactl.said
    assert not list(tmp_path.glob("*all*"))
