"""Two programs that train the same model on the same encoded data: `finetune`, and a plain diffusers loop.

Each runs in a process of its own and takes some steps whenever it is told to on stdin; it answers with a line of JSON. So
the two take turns, and neither changes the other's threads or its allocator.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.bench.random_models import CONFIGS
from sanactl.bench.random_training import random_checkpoint, random_encoded
from sanactl.bench.training_parts import PartTimes

if TYPE_CHECKING:
    from sanactl.checkpoint.open import Checkpoint
    from sanactl.data.encoded import EncodedData
    from sanactl.training.settings import FinetuneSettings

__all__ = ["MODELS", "prepare"]

# Name to config (None: the built-in base) and pixels a side.
MODELS: dict[str, tuple[str | None, int]] = {"base": (None, 64), "mid": ("mid", 512), "tiny": ("tiny", 64)}
_IMAGES = 64


class _Over(Exception):
    """Nobody asks for more steps."""


class _Watch:
    """The time since it was started: of a clock, and of this process on all processors."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._clock, self._processor = time.perf_counter(), time.process_time()

    @property
    def taken(self) -> dict[str, float]:
        """ "seconds" and "cpu_seconds"."""
        return {
            "seconds": time.perf_counter() - self._clock,
            "cpu_seconds": time.process_time() - self._processor,
        }


def prepare(folder: Path, model: str, tokens: tuple[int, int]) -> None:
    """Writes what both programs read: `model.st` and `data/`."""
    from sanactl.checkpoint.builtin import asset
    from sanactl.checkpoint.open import open_checkpoint

    name, pixels = MODELS[model]
    if name is None:
        (folder / "model.st").symlink_to(asset("base.st"))
        checkpoint = open_checkpoint(folder / "model.st")
    else:
        # 32 pixels a side of a latent, as SANA's autoencoder has.
        config = {**CONFIGS[name], "sample_size": pixels // 32}
        checkpoint = random_checkpoint(folder / "model.st", config, pixels=pixels)
    random_encoded(folder / "data", checkpoint, images=_IMAGES, tokens=tokens)


def train_ours(
    checkpoint: Checkpoint,
    data: EncodedData,
    settings: FinetuneSettings,
    turns: Iterator[int],
    answer: Callable[[Any], None],
) -> None:
    """Runs `finetune`: its checks, its log and all; from one step to the next is a step's time."""
    from sanactl.training.finetune import finetune

    parts = PartTimes()
    left, watch = 0, _Watch()

    def turn() -> None:
        nonlocal left
        left = next(turns, 0)
        if not left:
            raise _Over
        parts.clear()
        watch.restart()

    def on_step(point: dict[str, Any]) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            answer({**watch.taken, "loss": point["loss"], **parts.seconds})
            turn()

    with tempfile.TemporaryDirectory() as folder, parts.watching():
        try:
            finetune(checkpoint, data, settings, target=Path(folder) / "trained.st", on_step=on_step)
        except _Over:
            return


def train_theirs(
    checkpoint: Checkpoint,
    data: EncodedData,
    settings: FinetuneSettings,
    turns: Iterator[int],
    answer: Callable[[Any], None],
) -> None:
    """Runs a loop in the manner of diffusers' `train_dreambooth_lora_sana.py`, of all weights, from stored latents."""
    import torch
    from accelerate import Accelerator

    from sanactl.model.flow import sample_sigmas
    from sanactl.model.loading import load_transformer

    accelerator = Accelerator(mixed_precision=settings.precision, cpu=settings.device == "cpu")
    model = load_transformer(checkpoint).train()
    if settings.gradient_checkpointing:
        model.enable_gradient_checkpointing()
    optimizer: Any = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    loader: Any = torch.utils.data.DataLoader(
        _Stored(data), batch_size=settings.batch_size, shuffle=True, drop_last=True
    )
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    batch = batches()
    count, watch = 1, _Watch()
    while True:
        watch.restart()
        for _ in range(count):
            latents, text, mask = next(batch)
            noise = torch.randn_like(latents)
            sigma = (
                sample_sigmas(len(latents), settings.flow_shift, torch.Generator())
                .to(latents.device)
                .view(-1, 1, 1, 1)
            )
            noisy = (1 - sigma) * latents + sigma * noise
            predicted = model(
                hidden_states=noisy,
                encoder_hidden_states=text,
                encoder_attention_mask=mask,
                timestep=sigma.flatten() * 1000,
                return_dict=False,
            )[0]
            loss = ((predicted.float() - (noise - latents)) ** 2).reshape(len(latents), -1).mean(1).mean()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            value = loss.detach().item()  # for the log, as in the script
        answer({**watch.taken, "loss": value})
        count = next(turns, 0)
        if not count:
            return


class _Stored:
    """Encoded data as a map-style dataset: latents, text padded to the longest that there may be, and its mask."""

    def __init__(self, data: EncodedData) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.count

    def __getitem__(self, place: int) -> tuple[Any, ...]:
        return tuple(t[0] for t in self._data.encoded([place], [False]))


def main(arguments: dict[str, Any]) -> None:
    """The process of one of the two: folder, program ("ours", "theirs"), settings."""
    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.data.encoded import EncodedData
    from sanactl.training.choices import finetune_settings

    folder = Path(arguments["folder"])
    checkpoint = open_checkpoint(folder / "model.st")
    settings = finetune_settings(checkpoint, steps=10**6, save_every=10**6, **arguments["settings"])
    turns = (int(line) for line in sys.stdin)

    def answer(found: Any) -> None:
        print(json.dumps(found), flush=True)

    program = train_ours if arguments["program"] == "ours" else train_theirs
    program(checkpoint, EncodedData(folder / "data", 0), settings, turns, answer)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
