"""`finetune`: a run that was stopped, shared out or fed in parts is the run that was not."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import ShapesSource, TableSource, open_training_data
from sanactl.errors import InputError, OutputExistsError, TrainingError
from sanactl.files.images import write_png
from sanactl.files.progress import Progress
from sanactl.training.finetune import FinetuneSettings, finetune
from sanactl.training.settings import average_decay, learning_rate_factor
from tests.program import Program, snapshot

SETTINGS = FinetuneSettings(
    steps=6, batch_size=4, learning_rate=1e-3, warmup=2, clip=1.0, max_sequence_length=16,
    complex_human_instruction=False, text_dropout=0.3,
)  # fmt: skip


def train(
    target: str, settings: FinetuneSettings = SETTINGS, data: Any = None, **options: Any
) -> dict[str, Any]:
    source = data or ShapesSource(0)
    return finetune(open_checkpoint("tiny.st"), source, settings, target=Path(target), **options)


def weights(path: str | Path) -> dict[str, np.ndarray]:
    return load_file(path)


class Stopper(Progress):
    """Sends this process a signal once a step is done, and keeps the notes."""

    def __init__(self, after: int = 0, sent: signal.Signals | None = None) -> None:
        self.after, self.sent, self.notes = after, sent, ""

    def advance(self, count: int = 1, **fields: str) -> None:
        self.after -= 1
        if self.after == 0 and self.sent is not None:
            os.kill(os.getpid(), self.sent)

    def note(self, line: str) -> None:
        self.notes += line + "\n"

    def keeps(self, what: str | None) -> None:
        self.note(f"a stop leaves: {what}")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("optimizer", ["came8bit", "adamw"])
def test_a_stopped_run_ends_as_an_undisturbed_one(place: Path, sent: signal.Signals, optimizer: str) -> None:
    settings = replace(SETTINGS, optimizer=optimizer, ema=0.9, schedule="cosine")
    curve: list[dict] = []
    whole = train("whole.st", settings, on_step=curve.append)
    again: list[dict] = []
    for after in (2, 3):  # stopped after step 2, and once more after step 5
        stopper = Stopper(after, sent)
        if sent == signal.SIGTERM:
            stopped = train("parts.st", settings, progress=stopper)
            assert (stopped["finished"], stopped["of"]) == (False, 6)
        else:
            with pytest.raises(KeyboardInterrupt):
                train("parts.st", settings, progress=stopper)
        assert not Path("parts.st").exists()
    assert "resuming at step 2" in stopper.notes
    assert "the state after step 5 is saved" in stopper.notes
    parts = train("parts.st", settings, on_step=again.append)
    assert Path("whole.st").read_bytes() == Path("parts.st").read_bytes()
    assert [p["step"] for p in again] == [1, 2, 3, 4, 5, 6]
    assert [{k: p[k] for k in ("loss", "lr", "grad_norm")} for p in again] == [
        {k: p[k] for k in ("loss", "lr", "grad_norm")} for p in curve
    ]
    assert parts["loss"] == whole["loss"]
    assert not list(place.glob(".*.training"))


def test_saving_on_the_way_changes_nothing(place: Path) -> None:
    train("whole.st")
    train("saved.st", replace(SETTINGS, save_every=2))
    assert all(
        (a == b).all() for a, b in zip(*(weights(f).values() for f in ("whole.st", "saved.st")), strict=True)
    )


def test_a_second_signal_is_not_kept_waiting(place: Path) -> None:
    class Twice(Stopper):
        def advance(self, count: int = 1, **fields: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train("out.st", progress=Twice())
    assert not list(place.glob(".out.st.training/*"))


def test_other_settings_or_data_start_anew(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train("out.st", progress=Stopper(3, signal.SIGINT))
    notes = Stopper()
    train("out.st", replace(SETTINGS, learning_rate=2e-3), progress=notes)
    assert "resuming" not in notes.notes
    with pytest.raises(KeyboardInterrupt):
        train("other.st", progress=Stopper(3, signal.SIGINT))
    notes = Stopper()
    train("other.st", replace(SETTINGS, resume=False), progress=notes)
    assert "resuming" not in notes.notes


def test_a_damaged_state_is_named(place: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train("out.st", progress=Stopper(2, signal.SIGINT))
    (state,) = place.glob(".out.st.training/step-*/optimizer.pt")
    state.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="--restart"):
        train("out.st")
    train("out.st", replace(SETTINGS, resume=False))


def test_parts_of_a_batch_make_the_same_gradient(place: Path) -> None:
    train("whole.st", replace(SETTINGS, optimizer="adamw", learning_rate=1e-4))
    train("parts.st", replace(SETTINGS, optimizer="adamw", learning_rate=1e-4, accumulate=2))
    start, whole, parts = (weights(f) for f in ("tiny.st", "whole.st", "parts.st"))
    moved = max(np.abs(whole[k].astype(float) - start[k]).max() for k in start)
    apart = max(np.abs(whole[k].astype(float) - parts[k]).max() for k in start)
    assert moved > 1e-4
    # Adam's first steps are all of size lr: where a gradient is rounding noise, so is the sign of its step.
    assert np.mean([np.abs(whole[k].astype(float) - parts[k]).mean() for k in start]) < 0.05 * moved
    assert apart <= 12 * 1e-4


@pytest.mark.parametrize("kept", [0, 2])
def test_not_a_number_stops_before_the_update(place: Path, kept: int) -> None:
    """A learning rate beyond all reason, from the first step on or after two that were good."""
    settings = replace(SETTINGS, learning_rate=1e30, optimizer="adamw", warmup=1)
    if kept:
        # The first `kept` steps are made with a rate of 0, so that their state is the checkpoint's own.
        settings = replace(settings, warmup=1, learning_rate=0.0)
        poison = Poison(ShapesSource(0), after=kept * settings.batch_size)
        with pytest.raises(TrainingError, match=r"step 3.*\.out\.st\.training/step-00000002"):
            train("out.st", settings, data=poison)
        saved = open_checkpoint(".out.st.training/step-00000002/model.safetensors")
        assert saved.num_blocks == 3
        assert saved.components == open_checkpoint("tiny.st").components
        before = weights("tiny.st")
        assert all((v == before[k]).all() for k, v in weights(saved.path).items())
    else:
        with pytest.raises(TrainingError, match="lower the learning rate"):
            train("out.st", settings)
    assert not Path("out.st").exists()


class Poison(ShapesSource):
    """The built-in stream, with pictures after some number that a float cannot hold."""

    def __init__(self, source: ShapesSource, after: int) -> None:
        super().__init__(source.seed)
        self.after = after

    def batch(self, positions: Any) -> tuple[Any, list[str]]:
        images, captions = super().batch(positions)
        return (images.astype(np.float32) * np.inf if min(positions) >= self.after else images), captions


def test_a_damaged_picture_keeps_what_is_done(place: Path) -> None:
    records = []
    for i in range(8):
        write_png(np.full((64, 64, 3), 30 * i, np.uint8), place / f"{i}.png")
        records.append({"kind": "image", "path": f"{i}.png", "prompt": f"shade {i}"})
    source = open_training_data(None, records=records, seed=0, height=64, width=64)
    assert isinstance(source, TableSource)
    last = [records[source.order.row(p)]["path"] for p in range(8)][-1]
    good = (place / last).read_bytes()
    (place / last).write_bytes(good[:40])
    with pytest.raises(InputError, match=last):
        train("out.st", replace(SETTINGS, batch_size=2), data=source)
    assert [p.name for p in place.glob(".out.st.training/*")] == ["step-00000003"]
    (place / last).write_bytes(good)
    notes = Stopper()
    train("out.st", replace(SETTINGS, batch_size=2), data=source, progress=notes)
    assert "resuming at step 3" in notes.notes


def test_a_result_that_cannot_be_written_is_not_lost(place: Path) -> None:
    class Meanwhile(Stopper):
        def advance(self, count: int = 1, **fields: str) -> None:
            Path("out.st").write_text("another's")

    with pytest.raises(OutputExistsError):
        train("out.st", progress=Meanwhile())
    Path("out.st").unlink()
    notes = Stopper()
    train("out.st", progress=notes)
    assert "resuming at step 6 of 6" in notes.notes
    train("whole.st")
    assert Path("whole.st").read_bytes() == Path("out.st").read_bytes()


def test_an_output_that_is_there_is_found_before_training(place: Path) -> None:
    Path("out.st").write_text("mine")
    with pytest.raises(OutputExistsError):
        train("out.st", progress=Stopper(1, signal.SIGKILL))
    assert Path("out.st").read_text() == "mine"


def test_what_is_written_is_a_checkpoint_with_its_history(place: Path, sanactl: Program) -> None:
    (record,) = sanactl("finetune", "tiny.st", "--steps", "3", "-b", "2", "--lr", "1e-3")
    assert record["path"] == "tiny-ft3.st"
    made, tiny = open_checkpoint("tiny-ft3.st"), open_checkpoint("tiny.st")
    assert made.dtypes == tiny.dtypes
    assert (made.components, made.sampling, made.config) == (tiny.components, tiny.sampling, tiny.config)
    *before, last = made.lineage
    assert before == tiny.lineage
    assert (last["command"], last["seed"], last["blocks"]) == ("finetune", 0, 3)
    assert last["parents"] == [{"name": "tiny.st", "digest": tiny.digest}]
    assert (last["arguments"]["data"], last["arguments"]["learning_rate"]) == ("builtin:shapes", 1e-3)
    curve = [json.loads(line) for line in Path("tiny-ft3.train.jsonl").read_text().splitlines()]
    assert [(p["kind"], p["metric"], p["step"]) for p in curve] == [
        ("score", "train_loss", i) for i in (1, 2, 3)
    ]
    before_again = snapshot(place)
    sanactl("finetune", "tiny.st", "--steps", "3", "-b", "2", "--lr", "1e-3")
    assert "there already" in sanactl.said
    assert snapshot(place) == before_again
    assert "already exists" in sanactl.fails("finetune", "tiny.st", "--steps", "3", "-b", "3", code=2)


def test_training_lowers_the_loss(place: Path) -> None:
    losses: list[float] = []
    settings = replace(SETTINGS, steps=30, batch_size=8, learning_rate=2e-3, cache=32, text_dropout=0.0)
    train("out.st", settings, on_step=lambda point: losses.append(point["loss"]))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])


def test_a_cache_has_no_images_that_the_steps_do_not_reach(place: Path) -> None:
    class Totals(Progress):
        def __init__(self) -> None:
            self.of: dict[str, int | None] = {}

        def start(self, total: int | None, what: str, *, done: int = 0) -> None:
            self.of[what] = total

    for target, cache in (("large.st", 400), ("exact.st", 8)):
        totals = Totals()
        train(target, replace(SETTINGS, steps=2, cache=cache), progress=totals)
        assert totals.of["encoding images"] == 8
    large, exact = weights("large.st"), weights("exact.st")
    assert large.keys() == exact.keys()
    assert all(np.array_equal(large[name], exact[name]) for name in large)


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize(("steps", "warmup"), [(100, 50), (100, 1), (7, 3), (5, 9)])
def test_the_learning_rate_is_that_of_diffusers_one_step_on(schedule: str, steps: int, warmup: int) -> None:
    from diffusers.optimization import get_scheduler

    settings = replace(SETTINGS, steps=steps, warmup=warmup, schedule=schedule)
    ours = [learning_rate_factor(settings, i) for i in range(steps)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
    rates = []
    for _ in range(steps):
        optimizer.step()
        theirs.step()
        rates.append(theirs.get_last_lr()[0])
    assert ours == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 50])
def test_warm_up_precedes_the_decay_to_zero(schedule: str, warmup: int) -> None:
    settings = replace(SETTINGS, steps=100, warmup=warmup, schedule=schedule)
    rates = [learning_rate_factor(settings, i) for i in range(100)]
    peak = max(warmup, 1) - 1
    assert rates[peak] == max(rates) == 1
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a > b for a, b in pairwise(rates[peak:]))


def test_one_step_has_the_whole_rate() -> None:
    assert learning_rate_factor(replace(SETTINGS, steps=1, warmup=0, schedule="cosine"), 0) == 1


def test_the_average_is_that_of_diffusers_and_its_decay_is_told(place: Path, sanactl: Program) -> None:
    """Against the weights of every step: a = d a + (1 - d) w with d = min(ema, (1 + n) / (10 + n)), at first 0."""
    sanactl("convert", "tiny.st", "--dtype", "fp32", "-o", "wide.st")
    few = ("finetune", "wide.st", "-b", "2", "--lr", "1e-3", "--warmup", "1", "--optimizer", "adamw")
    for steps in range(1, 5):  # a constant rate: the first steps of a longer run are a shorter run's
        sanactl(*few, "--steps", str(steps), "-o", f"w{steps}.st")
    sanactl(*few, "--steps", "4", "--ema", "0.2", "-o", "mean.st")
    assert "decay rises with the steps, to 0.2 at the last" in sanactl.said
    expected = {k: v.astype(np.float64) for k, v in weights("w1.st").items()}
    for step in range(2, 5):
        n = step - 1
        decay = min(0.2, (1 + n) / (10 + n))
        for name, value in weights(f"w{step}.st").items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    found = weights("mean.st")
    start = weights("wide.st")
    for name, value in expected.items():
        apart, moved = np.abs(value - found[name]).max(), np.abs(value - start[name]).max()
        assert moved == 0 or apart < 1e-3 * moved, name
    assert average_decay(replace(SETTINGS, steps=100, ema=0.9999)) == pytest.approx(100 / 109)


def test_half_precision_is_refused(place: Path, sanactl: Program) -> None:
    assert "issue 65" in sanactl.fails("finetune", "tiny.st", "--precision", "fp16", code=2)


def test_bfloat16_trains(place: Path) -> None:
    result = train("out.st", replace(SETTINGS, steps=2, precision="bf16", gradient_checkpointing=True))
    assert np.isfinite(result["loss"])
    # The weights are kept in fp32 beside the autocast, and written in the parent's dtype.
    assert open_checkpoint("out.st").dtypes == open_checkpoint("tiny.st").dtypes
