"""The model card: what the Hub reads in it is what the records say, and nothing that they say becomes markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from sanactl.checkpoint.open import open_checkpoint
from sanactl.files.images import write_png
from tests.program import Program

HOSTILE = "a *star* | <script>alert(1)</script> [x](y) --- \"'"


def told(checkpoint: str) -> list[dict[str, Any]]:
    """Records about a checkpoint, and some about another."""
    digest = open_checkpoint(Path(checkpoint)).digest
    mine = {"checkpoint": checkpoint, "digest": digest}
    records: list[dict[str, Any]] = []
    for number in range(3):
        write_png(np.full((64, 64, 3), 60 * number, np.uint8), Path(f"{number}.png"))
        judged = {"judge": "x", "rank": 2 - number, "samples": 3}
        records.append({"kind": "image", "path": f"{number}.png", "prompt": HOSTILE, **mine, **judged})
    score = {
        "kind": "score",
        "metric": "geneval",
        "ci": [0.5, 0.9],
        "detector": "shapes-1",
        "selection": "single",
    }
    tasks = {"colors": {"value": 0.5, "ci": None, "images": 4}}
    records.append({**score, **mine, "value": 0.75, "tasks": tasks, "prompts": 40, "images": 40})
    records.append({**score, **mine, "value": 0.625, "tasks": tasks, "prompts": 8, "images": 64})
    records.append({**score, "value": 0.11, "checkpoint": "other.st", "digest": "sha256:other"})
    records.append({"kind": "score", "metric": "train_loss", **mine, "step": 1, "loss": 0.5})
    return records


@pytest.fixture
def folder(place: Path, sanactl: Program) -> Path:
    sanactl("convert", "tiny.st", "--pipeline", "-o", "pipe")
    (place / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in told("tiny.st")))
    return place / "pipe"


def test_the_hub_reads_the_card(folder: Path, sanactl: Program) -> None:
    """Scores and images of the file that the folder was converted from are the folder's."""
    sanactl(
        "report", "--card", "records.jsonl", "-o", "pipe", "--base-model", "owner/sana", "--license", "mit"
    )
    assert "wrote pipe/README.md" in sanactl.said
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "mit",
        "diffusers",
        "text-to-image",
    )
    assert card.data.base_model == "owner/sana"
    # `load` takes the results out of the model-index.
    found = card.data.eval_results
    assert [(r.metric_type, r.metric_value, r.dataset_config) for r in found] == [
        ("geneval", 0.75, "40 prompts"),
        ("geneval", 0.625, "8 prompts"),
    ]
    name, again = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == "pipe" and again == found
    # The judge's winner of the prompt, under its name.
    assert card.data.widget == [{"text": HOSTILE, "output": {"url": "images/0.png"}}]
    assert (folder / "images/0.png").read_bytes() == Path("2.png").read_bytes()
    assert "3 blocks" in card.text and "prune blocks=0,4,9" in card.text.replace("\\", "")
    assert "0.750 | 0.500 to 0.900 | 40 prompts, 40 images, shapes-1" in card.text
    assert "0.11" not in card.text
    body = card.text.replace("\\", "")
    assert "<script>" not in body and "&lt;script&gt;" in body
    assert "| a \\*star\\* \\| &lt;" in card.text
    lines = [line for line in card.text.splitlines() if line.startswith("| a ")]
    assert len(lines) == 1


def test_what_is_there_is_not_replaced(folder: Path, sanactl: Program) -> None:
    sanactl("report", "--card", "records.jsonl", "pipe")
    assert "--base-model" in sanactl.said
    assert ModelCard.load(folder / "README.md").data.license == "apache-2.0"
    written = (folder / "README.md").read_bytes()
    assert "already exists" in sanactl.fails(
        "report", "--card", "records.jsonl", "-o", "pipe/README.md", code=2
    )
    assert (folder / "README.md").read_bytes() == written
    (folder / "README.md").unlink()
    assert "images/0.png already exists" in sanactl.fails("report", "--card", "records.jsonl", "pipe", code=2)
    sanactl("report", "--card", "records.jsonl", "pipe", "--title", "Tiny: a test", "--force")
    card = ModelCard.load(folder / "README.md")
    assert card.text.strip().startswith("# Tiny: a test")
    assert card.data.model_name == "Tiny: a test"


def test_without_records_there_are_no_metrics(folder: Path, sanactl: Program) -> None:
    Path("records.jsonl").write_text("")
    sanactl("report", "--card", "records.jsonl", "pipe")
    assert "the card has no metrics" in sanactl.said
    card = ModelCard.load(folder / "README.md")
    assert card.data.eval_results is None
    assert not (folder / "images").exists()


def test_bad_use_is_one_line(folder: Path, sanactl: Program) -> None:
    assert "OWNER/NAME" in sanactl.fails(
        "report", "--card", "records.jsonl", "pipe", "--base-model", "sana", code=2
    )
    assert "add --card" in sanactl.fails("report", "records.jsonl", "--license", "mit", code=2)
    Path("empty").mkdir()
    assert "empty" in sanactl.fails("report", "--card", "records.jsonl", "empty")
    assert "more than one folder" in sanactl.fails("report", "--card", "empty", "pipe", code=2)
    # -o of any other command names a file.
    for name in ("gone", "card.md", "records.jsonl", "gone/README.md"):
        said = sanactl.fails("report", "--card", "records.jsonl", "-o", name)
        assert f"-o {name}: no such folder" in said and "names the pipeline's folder" in said
    assert "no such folder" in sanactl.fails("report", "--card", "records.jsonl", "pipe", "-o", "card.md")


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "this folder's journal knows no files of records"),
        (1, "using the file of records that"),
        (2, "using the 2 files of records that"),
    ],
)
def test_it_says_which_records_it_reads(place: Path, sanactl: Program, count: int, words: str) -> None:
    sanactl("convert", "tiny.st", "--pipeline", "-o", "pipe")
    for number in range(count):
        sanactl("sample", "tiny.st", "--prompt", "a star", "-n", "1", "--steps", "1", "-o", f"images{number}")
    sanactl("report", "--card", "pipe")
    assert words in sanactl.said


def test_the_code_on_the_card_draws_what_sample_draws(
    folder: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from diffusers import SanaPipeline

    from sanactl.files.images import read_image
    from sanactl.model.sampler import image_seed, initial_noise

    sanactl("report", "--card", "records.jsonl", "pipe")
    card = (folder / "README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0]
    (ours,) = sanactl("sample", "tiny.st", "--prompt", "a prompt", "-n", "1", "-o", "images")
    noise = initial_noise([image_seed(0, "a prompt", 0)], (8, 8, 8))
    monkeypatch.setattr(SanaPipeline, "prepare_latents", lambda *_: noise.to(torch.float32))
    names: dict[str, Any] = {}
    exec(code, names)
    theirs = np.asarray(names["image"]).astype(int)
    assert np.abs(theirs - read_image(Path(ours["path"]))).max() <= 1


@pytest.mark.parametrize(
    ("sampling", "sample_size", "lines", "absent"),
    [
        ({}, 32, ["height=1024", "max_sequence_length=300"], ["binning", "instruction", "from_config"]),
        ({"height": 768, "width": 768}, 32, ["height=768", "width=768", "use_resolution_binning=False"], []),
        (
            {"steps": 7, "guidance_scale": 3.5, "flow_shift": 2.0, "negative_prompt": "a 'red' ```\n"},
            32,
            ["num_inference_steps=7", "guidance_scale=3.5", "flow_shift=2.0)", "negative_prompt="],
            ["binning"],
        ),
        (
            {"complex_human_instruction": False},
            16,
            ["complex_human_instruction=None", "width=512"],
            ["binning"],
        ),
    ],
)
def test_the_code_has_the_checkpoints_settings(
    folder: Path,
    sanactl: Program,
    sampling: dict[str, Any],
    sample_size: int,
    lines: list[str],
    absent: list[str],
) -> None:
    set_header(folder, sampling, sample_size)
    sanactl("report", "--card", "records.jsonl", "pipe")
    code = (folder / "README.md").read_text().partition("```python\n")[2].partition("\n```")[0]
    compile(code, "card", "exec")
    assert all(line in code for line in lines), code
    assert not any(line in code for line in absent), code


def set_header(folder: Path, sampling: dict[str, Any], sample_size: int) -> None:
    """Replaces the sampling settings and the sample size of a pipeline's transformer."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    (path,) = (folder / "transformer").glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    config = {**json.loads(metadata["config"]), "sample_size": sample_size}
    save_file(
        load_file(path),
        path,
        {**metadata, "config": json.dumps(config), "sanactl.sampling": json.dumps(sampling)},
    )
    listed = json.loads((folder / "transformer/config.json").read_text())
    (folder / "transformer/config.json").write_text(json.dumps({**listed, "sample_size": sample_size}))
