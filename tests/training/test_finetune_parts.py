"""`finetune` of parts: new blocks, adapters; learning rates, memory, trackers."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import UsageError
from sanactl.training.ancestry import new_blocks
from sanactl.training.finetune import FinetuneSettings
from sanactl.training.memory_plan import plan_memory
from tests.program import Program
from tests.training.test_finetune import SETTINGS, Stopper, train

SHORT = ("--steps", "2", "-b", "2", "--lr", "1e-2", "--warmup", "1")


def changed(before: str, after: str) -> set[str]:
    one, two = load_file(before), load_file(after)
    assert one.keys() == two.keys()
    return {name for name in one if not np.array_equal(one[name], two[name])}


@pytest.mark.parametrize(
    ("options", "new"),
    [
        (("--to", "5", "--drop-last", "1"), [2, 3, 4]),
        (("--to", "6", "--init", "replicate"), [1, 3, 5]),
        (("--to", "5", "--drop-last", "0", "--position", "1"), [1, 2]),
    ],
)
def test_new_blocks_are_those_that_growth_added(
    place: Path, sanactl: Program, options: tuple[str, ...], new: list[int]
) -> None:
    sanactl("grow", "tiny.st", *options, "-o", "grown.st")
    assert new_blocks(open_checkpoint("grown.st")) == new
    sanactl("prune", "grown.st", "--blocks", f"0,{new[-1]}", "-o", "cut.st")
    assert new_blocks(open_checkpoint("cut.st")) == [1]


def test_only_new_blocks_train(place: Path, sanactl: Program) -> None:
    sanactl("grow", "tiny.st", "--to", "4", "--drop-last", "1", "-o", "grown.st")
    sanactl("finetune", "grown.st", *SHORT, "--train-new-blocks-only", "--ema", "0.5", "-o", "out.st")
    moved = changed("grown.st", "out.st")
    assert moved
    assert {name.split(".")[1] for name in moved} == {"2", "3"}
    assert all(name.startswith("transformer_blocks.") for name in moved)
    assert "does not tell which blocks are new" in sanactl.fails(
        "finetune", "tiny.st", *SHORT, "--train-new-blocks-only", code=2
    )


def test_adapters_are_merged_into_an_ordinary_checkpoint(place: Path, sanactl: Program) -> None:
    pytest.importorskip("peft")
    sanactl("finetune", "tiny.st", *SHORT, "--lora", "4", "-o", "out.st")
    moved = changed("tiny.st", "out.st")
    assert moved
    assert all(".attn" in name and name.endswith(".weight") and ".to_" in name for name in moved)
    before, after = load_file("tiny.st"), load_file("out.st")
    for name in moved:
        difference = after[name].astype(np.float64) - before[name]
        assert np.linalg.matrix_rank(difference, tol=1e-3 * np.linalg.norm(difference)) <= 4
    sanactl("grow", "tiny.st", "--to", "4", "--drop-last", "1", "-o", "grown.st")
    both = ("--lora", "4", "--train-new-blocks-only")
    assert "exclude each other" in sanactl.fails("finetune", "grown.st", *SHORT, *both, code=2)


@pytest.mark.parametrize(("scale", "expected"), [("none", 1e-4), ("sqrt", 5e-5), ("linear", 2.5e-5)])
def test_the_rate_is_scaled_by_the_batch(scale: str, expected: float) -> None:
    settings = FinetuneSettings(batch_size=64, learning_rate=1e-4, scale_lr=scale)
    assert settings.effective_learning_rate == pytest.approx(expected)


def test_the_effective_rate_is_told(place: Path, sanactl: Program) -> None:
    sanactl(
        "finetune",
        "tiny.st",
        "--steps",
        "1",
        "-b",
        "4",
        "--lr",
        "8e-4",
        "--warmup",
        "1",
        "--scale-lr",
        "sqrt",
    )
    assert "learning rate 0.0001 (0.0008, scaled by sqrt)" in sanactl.said
    (point,) = [json.loads(line) for line in Path("tiny-ft1.train.jsonl").read_text().splitlines()]
    assert point["lr"] == pytest.approx(1e-4)
    assert "--scale-lr" in sanactl.fails("finetune", "tiny.st", "--scale-lr", "cubic", code=2)


def test_linear_attention_stays_fp32_under_autocast(place: Path) -> None:
    from sanactl.model.loading import load_transformer
    from sanactl.training.precision import keep_attention_fp32

    plain, kept = (load_transformer(open_checkpoint("tiny.st")) for _ in range(2))
    keep_attention_fp32(kept)
    x = torch.randn(2, 64, plain.transformer_blocks[0].attn1.to_q.in_features, generator=torch.Generator())
    ours, theirs = kept.transformer_blocks[0].attn1, plain.transformer_blocks[0].attn1
    with torch.no_grad():
        assert torch.allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
        exact = theirs(x)
        with torch.autocast("cpu", torch.bfloat16):
            assert (ours(x) - exact).abs().mean() < (theirs(x) - exact).abs().mean()


def test_the_plan_says_what_would_help(
    place: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    sanactl("finetune", "tiny.st", *SHORT)
    (line,) = [line for line in sanactl.said.splitlines() if "training needs about" in line]
    assert all(
        part in line for part in ("weights", "gradients", "optimizer", "activations", "encoders", "free")
    )

    def plan(available: int, **changes: Any) -> Any:
        settings = replace(FinetuneSettings(batch_size=8, max_sequence_length=16), **changes)
        made = plan_memory(open_checkpoint("tiny.st"), settings, device=torch.device("cpu"))
        return replace(made, available=available)

    with pytest.raises(UsageError, match=r"in all.*should fit with --accumulate 8 "):
        replace(plan(10**12), capacity=plan(1).total // 2, available=plan(10**12).total - 1).check()
    near = replace(plan(1), capacity=int(plan(1).total / 1.4), stays=0)
    near.check()
    assert near.advice
    whole = plan(10**12)
    assert whole.advice is None
    assert "--accumulate 8" in plan(whole.total - 1).advice
    assert "--gradient-checkpointing" in plan(whole.savers["--accumulate 8"] - 1).advice
    assert plan(1).advice.endswith("--lora")
    assert plan(1, optimizer="adamw").parts["optimizer"] == 2 * whole.parts["weights"]
    assert whole.parts["weights"] == 4 * open_checkpoint("tiny.st").num_parameters
    assert "buckets" not in whole.parts
    # On one thread one part is computed at a time, and its gradients are made while activations are given back.
    assert 0 <= whole.parts.get("part gradients", 0) <= whole.parts["gradients"]


def test_settings_of_a_later_diffusers_are_left_out_and_kept(place: Path, sanactl: Program) -> None:
    """A config with keys that this diffusers does not know trains as one without, and the result has them still."""
    from safetensors.numpy import save_file

    tiny = open_checkpoint("tiny.st")
    later = {"rope_scale": 2.0, "windows": [1, 2], "router": {"experts": 4}}
    config = {**dict(tiny.config), **later, "_class_name": "SanaTransformer2DModel"}
    save_file(load_file("tiny.st"), "later.st", metadata={**tiny.metadata, "config": json.dumps(config)})
    sanactl("finetune", "tiny.st", *SHORT, "-o", "a.st")
    sanactl("finetune", "later.st", *SHORT, "-o", "b.st", "--teacher", "later.st", "--teacher-weight", "0",
            "--feature-weight", "0")  # fmt: skip
    assert "training needs about" in sanactl.said
    one, two = load_file("a.st"), load_file("b.st")
    assert all((one[name] == two[name]).all() for name in one)
    assert {key: open_checkpoint("b.st").config[key] for key in later} == later


def test_what_cannot_fit_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program) -> None:
    monkeypatch.setattr("sanactl.training.memory_plan._device_memory", lambda device: (10_000, 20_000))
    said = sanactl.fails("finetune", "tiny.st", *SHORT, code=2)
    assert "the device has 20 kB in all" in said


def test_a_tracker_has_every_step_once(place: Path, sanactl: Program) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    command = ("finetune", "tiny.st", "--steps", "4", "-b", "2", "--tracker", "tensorboard", "-o", "out.st")
    sanactl(*command)
    events = EventAccumulator("out.tensorboard").Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4]
    points = [json.loads(line) for line in Path("out.train.jsonl").read_text().splitlines()]
    assert [e.value for e in events.Scalars("loss")] == pytest.approx([p["loss"] for p in points])
    assert "choose one of" in sanactl.fails(*command[:-1], "x.st", "--tracker", "paper", code=2)


def test_a_tracker_goes_on_where_it_was(place: Path) -> None:
    """After a SIGTERM, and with steps that a killed process had logged and not saved."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from sanactl.training.tracking import open_tracker

    tracked = replace(SETTINGS, tracker="tensorboard")
    assert train("out.st", tracked, progress=Stopper(3, signal.SIGTERM))["step"] == 3
    lost = open_tracker("tensorboard", Path("out.st"), {}, key="", first=3)
    lost.log({"loss": 1e9}, step=4)
    lost.finish()
    points: list[dict[str, Any]] = []
    train("out.st", tracked, on_step=points.append)
    events = EventAccumulator("out.tensorboard").Reload().Scalars("loss")
    assert [e.step for e in events] == [1, 2, 3, 4, 5, 6]
    assert [e.value for e in events] == pytest.approx([p["loss"] for p in points])


def test_named_data_win_over_the_pipes_images(place: Path, sanactl: Program) -> None:
    line = json.dumps({"kind": "image", "path": "gone.png", "prompt": "a"}) + "\n"
    checkpoint = json.dumps({"kind": "checkpoint", "path": "tiny.st"}) + "\n"
    sanactl("finetune", "--data", "builtin:shapes", *SHORT, "-o", "out.st", stdin=checkpoint + line)
    assert "the pipe's 1 image records are left" in sanactl.said
