"""`finetune` on a CPU: the same bits on any number of threads, from parts of the batch that are computed side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import ShapesSource
from sanactl.model.cpu import Workers
from sanactl.model.loading import load_transformer
from sanactl.training.conditions import Conditions
from sanactl.training.gradient import BatchGradient
from sanactl.training.parts import PART_TOKENS, cut
from sanactl.training.trainable import Trainable, choose_trained
from tests.program import Program
from tests.training.test_finetune import SETTINGS, Stopper, train, weights

SHORT = replace(SETTINGS, steps=3, batch_size=5)


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained_on(threads: int, settings: Any = SHORT, **options: Any) -> dict[str, bytes]:
    """The weights that a run on so many threads writes."""
    torch.set_num_threads(threads)
    train("trained.st", settings, **options)
    found = {name: tensor.tobytes() for name, tensor in weights("trained.st").items()}
    Path("trained.st").unlink()
    return found


@given(st.integers(1, 300), st.integers(1, 5000), st.integers(1, 40))
def test_parts_are_equal_and_a_function_of_the_batch(count: int, tokens: int, accumulate: int) -> None:
    parts = cut(count, tokens, accumulate)
    assert [place for part in parts for place in part] == list(range(count))
    sizes = {len(part) for part in parts}
    assert max(sizes) - min(sizes) <= 1
    assert len(parts) >= min(count, 2, accumulate)
    assert len(parts) > 1 or count == 1
    # No smaller than is worth a thread, unless two threads or --accumulate ask for it.
    assert len(parts) <= max(2, accumulate) or count * tokens // len(parts) >= PART_TOKENS


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": "adamw", "ema": 0.9, "precision": "bf16"},
        {"lora": 2, "gradient_checkpointing": True},
        {"cache": 10, "optimizer": "adamw"},
    ],
    ids=["plain", "bf16", "lora", "cache"],
)
def test_the_number_of_threads_changes_no_bit(place: Path, changes: dict[str, Any]) -> None:
    settings = replace(SHORT, **changes)
    one = trained_on(1, settings)
    for threads in (2,) if changes else (2, 3):
        assert trained_on(threads, settings) == one


def test_nor_does_it_with_a_teacher(place: Path) -> None:
    """Whose hidden states are compared: each thread has to find those of its own part."""
    teacher = open_checkpoint("tiny.st")
    one = trained_on(1, teacher=teacher)
    for gradient_checkpointing in (False, True):
        settings = replace(SHORT, gradient_checkpointing=gradient_checkpointing)
        assert trained_on(2, settings, teacher=teacher) == one


@pytest.mark.slow  # the tests above show it within one process
def test_nor_does_the_environment(place: Path, sanactl: Program) -> None:
    """As a user starts it: this process has one thread, the other two."""
    command = ["finetune", "tiny.st", "--steps", "2", "-b", "4", "-o"]
    sanactl(*command, "one.st")
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    started = [sys.executable, "-m", "sanactl", *command, "two.st"]
    subprocess.run(started, env=environment, check=True, capture_output=True)
    one, two = weights("one.st"), weights("two.st")
    assert all((one[name] == two[name]).all() for name in one | two)


def test_a_run_goes_on_alike_on_another_number_of_threads(place: Path) -> None:
    whole = trained_on(2, SETTINGS)
    torch.set_num_threads(1)
    with pytest.raises(KeyboardInterrupt):
        train("trained.st", SETTINGS, progress=Stopper(2, signal.SIGINT))
    assert trained_on(3, SETTINGS) == whole


def test_feeding_it_in_parts_changes_no_bit_either(place: Path) -> None:
    """--accumulate bounds what is in memory at once; two parts there are in any case."""
    settings = replace(SHORT, batch_size=4)
    assert trained_on(2, settings) == trained_on(2, replace(settings, accumulate=2))


@pytest.mark.parametrize("lora", [0, 2])
def test_the_parts_gradients_are_the_batchs(place: Path, lora: int) -> None:
    """Against the whole batch in one piece, which is how a GPU and a large model take it."""
    settings = replace(SHORT, batch_size=7, lora=lora)
    found = []
    torch.set_num_threads(2)
    for workers in (None, Workers()):
        torch.manual_seed(0)
        model = load_transformer(open_checkpoint("tiny.st")).train()
        choose_trained(model, settings)
        trained = Trainable(model, bool(settings.lora))
        total = torch.zeros(5)
        with contextlib.nullcontext() if workers is None else workers:
            device = torch.device("cpu")
            conditions = Conditions(open_checkpoint("tiny.st"), ShapesSource(0), settings, device, workers)
            BatchGradient(Accelerator(cpu=True), trained, conditions, settings).leave(3, total)
        found.append(({name: p.grad for name, p in trained.named}, total))
    (whole, loss), (parts, parts_loss) = found
    torch.testing.assert_close(parts_loss, loss)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert gradient is not None
        assert parts[name] is not None, name
        assert parts[name].stride() == dict(trained.named)[name].stride()
        torch.testing.assert_close(
            parts[name], gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item() + 1e-9
        )


def test_a_batch_of_one_image_is_one_part(place: Path) -> None:
    settings = replace(SHORT, batch_size=1, steps=2)
    assert trained_on(1, settings) == trained_on(2, settings)
