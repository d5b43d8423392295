"""`importance` against equation 3 written out, and what it feeds."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sanactl.checkpoint.open import open_checkpoint
from sanactl.model.conditioning import Sana, sampling_settings
from sanactl.sampling.importance import block_importance
from tests.program import Program, snapshot

PROMPTS = ["a photo of a star", "two blue circles", "a red square and a green cross"]
CPU: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32}


def by_hand(checkpoint: Any, settings: Any) -> tuple[list[list[float]], list[list[float]]]:
    """1 - cos of each block's input and output: of each prompt (mean over steps), and of each step."""
    from sanactl.model.sampler import denoise, image_seed, initial_noise

    sana = Sana(checkpoint, settings, decode=False, **CPU)
    cosines: list[list[list[float]]] = []  # block, prompt, step
    for prompt in PROMPTS:
        seen: dict[int, list[float]] = {}
        hooks = []
        for number, block in enumerate(sana.transformer.transformer_blocks):

            def hook(module: Any, inputs: Any, output: Any, number: int = number, seen: dict = seen) -> None:
                x, y = inputs[0][1].double(), output[1].double()  # the prompt's half of a guided batch of one
                cosine = (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))
                seen.setdefault(number, []).append(cosine.mean().item())

            hooks.append(block.register_forward_hook(hook))
        noise = initial_noise([image_seed(0, prompt, 0)], sana.latent_shape())
        denoise(
            sana.transformer,
            sana.components.scheduler,
            noise,
            sana.texts.guidance([prompt]),
            steps=settings.steps,
        )
        for handle in hooks:
            handle.remove()
        cosines.append([seen[i] for i in range(len(seen))])
    values = 1 - torch.tensor(cosines)  # prompt, block, step
    return values.mean(2).T.tolist(), values.mean(0).tolist()


def test_neither_threads_nor_the_batch_change_a_bit(place: Path) -> None:
    """Eleven prompts are a fixed batch of eight and one that is filled up."""
    tiny, before = open_checkpoint("tiny.st"), torch.get_num_threads()
    settings = sampling_settings(tiny, steps=2)
    prompts = [
        *PROMPTS,
        *(f"a photo of {n} hearts" for n in ("two", "three", "four", "five")),
        *PROMPTS,
        "a star",
    ]
    found = []
    try:
        for threads, batch_size in ((1, 1), (2, 4), (3, 25)):
            torch.set_num_threads(threads)
            found.append(list(block_importance(tiny, prompts, settings, batch_size=batch_size, **CPU)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1] == found[2]
    # The same prompts, whoever is beside them.
    alone = list(block_importance(tiny, PROMPTS, settings, **CPU))
    thrice = list(block_importance(tiny, [*PROMPTS] * 3, settings, **CPU))
    assert [r["importance"] for r in alone] == pytest.approx([r["importance"] for r in thrice], rel=1e-6)


def test_equation_3(place: Path) -> None:
    tiny = open_checkpoint("tiny.st")
    settings = sampling_settings(tiny, steps=3)
    records = list(block_importance(tiny, PROMPTS, settings, batch_size=2, **CPU))
    by_prompt, by_step = by_hand(tiny, settings)
    assert [r["block"] for r in records] == [0, 1, 2]
    for record, prompts, steps in zip(records, by_prompt, by_step, strict=True):
        assert record["importance"] == pytest.approx(sum(prompts) / 3, rel=1e-4)
        assert record["by_timestep"] == pytest.approx(steps, rel=1e-4)
        spread = torch.tensor(prompts, dtype=torch.float64).std().item() / math.sqrt(3)
        assert record["stderr"] == pytest.approx(spread, rel=1e-3)
        assert record["digest"] == tiny.digest
        assert record["blocks"] == record["prompts"] == len(record["timesteps"]) == 3
    assert records[0]["timesteps"] == sorted(records[0]["timesteps"], reverse=True)


def test_one_prompt_has_no_spread(place: Path) -> None:
    tiny = open_checkpoint("tiny.st")
    records = list(block_importance(tiny, PROMPTS[:1], sampling_settings(tiny, steps=1), **CPU))
    assert [r["stderr"] for r in records] == [None] * 3


def test_new_blocks_that_are_the_identity_have_none(place: Path, sanactl: Program) -> None:
    sanactl("grow", "tiny.st", "--to", "5")  # one block stays of three less two, and four are new
    (place / "calib.txt").write_text("\n".join(PROMPTS))
    records = sanactl("importance", "--prompts", "calib.txt", "--steps", "2")
    assert "using tiny-d5.st, the newest checkpoint" in sanactl.said
    assert [r["importance"] > 1e-4 for r in records] == [True, False, False, False, False]
    assert [json.loads(x) for x in (place / "tiny-d5.importance.jsonl").read_text().splitlines()] == records
    # The identity goes first.
    (pruned,) = sanactl("prune", "--keep", "1")
    assert "keeping 1 of 5 blocks; blocks 1-4 go, with 0.0 % of the importance" in sanactl.said
    assert open_checkpoint(pruned["path"]).lineage[-1]["arguments"] == {"blocks": [0]}


def test_what_is_measured_is_not_measured_again(place: Path, sanactl: Program) -> None:
    (place / "calib.txt").write_text("\n".join(PROMPTS))
    run = ("importance", "tiny.st", "-p", "calib.txt", "--steps", "1", "--plot", "i.svg")
    first = sanactl(*run)
    assert "<svg" in (place / "i.svg").read_text()
    before = snapshot(place)
    (place / "i.svg").unlink()
    assert sanactl(*run) == first
    assert "there already" in sanactl.said
    assert set(snapshot(place)) == set(before)
    assert "already exists" in sanactl.fails(
        "importance", "tiny.st", "-p", "calib.txt", "--steps", "2", code=2
    )


def test_prompts_by_pipe(place: Path, sanactl: Program) -> None:
    lines = "".join(json.dumps({"kind": "prompt", "prompt": p}) + "\n" for p in PROMPTS)
    records = sanactl("importance", "tiny.st", "--steps", "1", "-o", "i.jsonl", stdin=lines)
    assert records[0]["prompts"] == 3
    # Block records name their checkpoint: prune needs nothing more.
    piped = "".join(json.dumps(r) + "\n" for r in records)
    (made,) = sanactl("prune", "--keep", "2", stdin=piped)
    assert made["path"] == "tiny-d2.st"


def test_a_chart_that_cannot_be_drawn_costs_no_measurement(place: Path, sanactl: Program) -> None:
    run = ("importance", "tiny.st", "-p", "-", "--steps", "1", "--plot")
    for name in ("i.gif", "i.pdf", "i"):
        assert ".png or .svg" in sanactl.fails(*run, name, stdin="a star\n", code=2)
    (place / "i.svg").write_text("mine")
    assert "already exists" in sanactl.fails(*run, "i.svg", stdin="a star\n", code=2)
    assert not (place / ".sanactl").exists()
    sanactl(*run, "i.svg", "--force", stdin="a star\n")
    assert "<svg" in (place / "i.svg").read_text()


def test_records_outlive_a_chart_that_fails(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say, when the chart is drawn: what was measured is there and in the journal."""
    from sanactl.errors import SanactlError
    from sanactl.report import plots

    def full(*_: Any, **__: Any) -> None:
        raise SanactlError("no space left")

    monkeypatch.setattr(plots, "save_figure", full)
    run = ("importance", "tiny.st", "-p", "-", "--steps", "1", "--plot", "i.svg")
    assert len(sanactl(*run, stdin="a star\n", code=1)) == 3
    monkeypatch.undo()
    monkeypatch.chdir(place)
    assert len(sanactl(*run, stdin="a star\n")) == 3
    assert "there already" in sanactl.said
