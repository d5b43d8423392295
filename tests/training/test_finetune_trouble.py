"""`finetune` when it goes wrong: NaN and its layer, divergence, kept states."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import ShapesSource
from sanactl.errors import TrainingError
from sanactl.records.records import load_records
from sanactl.training.figures import FiguresFile, figures_path
from sanactl.training.finetune import FinetuneSettings, finetune
from sanactl.training.health import Divergence, bad_gradient, first_bad_layer
from tests.program import Program
from tests.training.test_finetune import Poison, Stopper, train
from tests.training.test_finetune_data import shots

SETTINGS = FinetuneSettings(
    steps=6, batch_size=2, learning_rate=1e-4, warmup=1, max_sequence_length=16, complex_human_instruction=False,
)  # fmt: skip


def test_the_layer_of_a_nan_is_named(place: Path) -> None:
    """A weight that is finite, and too large for its product to be."""
    with safe_open("tiny.st", "pt") as file:
        metadata = file.metadata()
    tensors = load_file("tiny.st")
    name = "transformer_blocks.1.ff.conv_inverted.weight"
    tensors[name] = torch.full_like(tensors[name], 3e38, dtype=torch.float32)
    save_file(tensors, "tiny.st", metadata)
    layer = "transformer_blocks.1.ff.conv_inverted"
    with pytest.raises(TrainingError, match=f"step 1.*the output of {layer}"):
        finetune(open_checkpoint("tiny.st"), ShapesSource(0), SETTINGS, target=Path("out.st"))
    assert not list(place.glob(".out.st.training/*"))


def test_poisoned_data_are_told_from_a_poisoned_layer(place: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"step 3.*the input of patch_embed.*are in \.out\.st\.training/step-00000002"
    ):
        train("out.st", SETTINGS, data=Poison(ShapesSource(0), after=4))


def test_the_gradient_that_broke_first() -> None:
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            return grad * float("inf")

    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    output = model[2](Steep.apply(model[1](model[0](torch.ones(1, 2)))))
    output.sum().backward()
    assert bad_gradient(list(model.named_parameters())) == "1.bias"
    assert first_bad_layer(model, lambda: model(torch.ones(1, 2))) is None


@pytest.mark.parametrize("clip", [0.1, 0.0])
def test_the_parameter_of_a_bad_gradient_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, clip: float
) -> None:
    """The forward pass is sound, and one parameter's gradient is not: clipping must not spread it before it is found."""
    from sanactl.model.loading import load_transformer

    name = "transformer_blocks.1.attn1.to_v.weight"

    def poisoned(*arguments: Any, **options: Any) -> Any:
        model = load_transformer(*arguments, **options)
        model.get_parameter(name).register_hook(
            lambda gradient: gradient.index_fill(0, torch.tensor(0), torch.nan)
        )
        return model

    monkeypatch.setattr("sanactl.training.models.load_transformer", poisoned)
    with pytest.raises(TrainingError, match=f"step 1.*first not finite: the gradient of {name};"):
        train("out.st", replace(SETTINGS, clip=clip))


def test_divergence_is_a_loss_that_stays_high() -> None:
    watch = Divergence()
    assert not any(watch.diverged(loss) for loss in [1.0] * 30 + [50.0] * 4 + [1.0] + [50.0] * 4)
    assert watch.suspicious == 4
    assert watch.diverged(50.0)
    resumed = Divergence([1.0] * 30 + [50.0] * 4)
    assert resumed.diverged(50.0)
    assert not any(Divergence().diverged(10.0**n) for n in range(20))  # too short to know


def test_a_run_that_diverges_stops_and_keeps_what_was_good(place: Path) -> None:
    class Brighter(ShapesSource):
        """The built-in stream, with values far outside its own after some examples: the loss rises and is finite."""

        def batch(self, positions: Any) -> tuple[Any, list[str]]:
            images, captions = super().batch(positions)
            return (images.astype(np.float32) * 300 if min(positions) >= 44 else images), captions

    settings = replace(SETTINGS, steps=40, learning_rate=0.0, save_every=5)
    with pytest.raises(TrainingError, match=r"diverged by step 27.*step-00000020"):
        train("out.st", settings, data=Brighter(0))
    assert sorted(p.name for p in place.glob(".out.st.training/*")) == ["step-00000015", "step-00000020"]


@pytest.mark.parametrize("kept", [1, 3])
def test_so_many_states_stay(place: Path, kept: int) -> None:
    settings = replace(SETTINGS, save_every=1, keep_last=kept)
    assert train("out.st", settings, progress=Stopper(5, signal.SIGTERM))["step"] == 5
    assert len(list(place.glob(".out.st.training/step-*"))) == kept
    train("out.st", replace(settings, keep_last=2, save_every=0))


@pytest.mark.parametrize("lora", [0, 2])
def test_adapters_and_accumulation_resume(place: Path, lora: int) -> None:
    if lora:
        pytest.importorskip("peft")
    settings = replace(SETTINGS, lora=lora, ema=0.9, accumulate=2, learning_rate=1e-3)
    train("whole.st", settings)
    assert not train("parts.st", settings, progress=Stopper(3, signal.SIGTERM))["finished"]
    saved = open_checkpoint(next(place.glob(".parts.st.training/step-*/model.safetensors")))
    assert saved.tensors.keys() == open_checkpoint("tiny.st").tensors.keys()
    assert train("parts.st", settings)["finished"]
    assert Path("whole.st").read_bytes() == Path("parts.st").read_bytes()


def test_an_older_state_stands_in_for_a_damaged_one(place: Path, sanactl: Program) -> None:
    whole = replace(SETTINGS, save_every=2)
    train("whole.st", whole)
    with pytest.raises(KeyboardInterrupt):
        train("out.st", whole, progress=Stopper(5, signal.SIGINT))
    newest = sorted(place.glob(".out.st.training/step-*"))[-1]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    train("out.st", whole)
    assert Path("out.st").read_bytes() == Path("whole.st").read_bytes()


SHORT_RUN = ("finetune", "tiny.st", "--steps", "3", "-b", "2", "-o", "out.st")


def test_a_result_whose_books_are_missing_is_not_made_again(place: Path, sanactl: Program) -> None:
    """Killed between the checkpoint's last write and the journal's line: its own lineage tells which run made it."""
    sanactl(*SHORT_RUN)
    before = Path("out.st").stat().st_mtime_ns
    (place / ".sanactl/journal.jsonl").unlink()
    (record,) = sanactl(*SHORT_RUN)
    assert record["path"] == "out.st"
    assert "training:" not in sanactl.said
    assert Path("out.st").stat().st_mtime_ns == before
    assert "is there already" in (sanactl(*SHORT_RUN), sanactl.said)[1]
    assert "already exists" in sanactl.fails(*SHORT_RUN, "--seed", "1", code=2)


@pytest.mark.parametrize(
    ("target", "figures"), [("a.st", "a.train.jsonl"), ("sana-1.5", "sana-1.5.train.jsonl")]
)
def test_figures_are_there_while_it_runs(place: Path, target: str, figures: str) -> None:
    file = FiguresFile(figures_path(place / target), Path(target))
    with file:
        assert not (place / figures).exists()
        for step in (1, 2):
            file.add({"step": step, "loss": 0.5})
            assert [r["step"] for r in load_records(place / figures)] == list(range(1, step + 1))


def test_damaged_images_are_named_and_counted(place: Path, sanactl: Program) -> None:
    folder = shots(place / "shots", 4)
    (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    command = ("finetune", "tiny.st", "--data", "shots", "--steps", "2", "-b", "4")
    (record,) = sanactl(*command, "--max-bad", "1")
    assert record["skipped"] == 1
    (line,) = [line for line in sanactl.said.splitlines() if "skipped" in line]
    assert "1.png" in line
