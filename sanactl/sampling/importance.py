"""Block importance: how much each block changes its input, measured while sampling (equation 3).

With n processes, each measures every n-th batch of prompts. The batches and their sums are those of one process, and they
are added up in the order of the batches, so the result is that of one process, bit for bit, on devices of one kind.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sanactl.files.progress import SILENT, Progress
from sanactl.model.conditioning import SamplingSettings, Sana
from sanactl.model.conditions import filled, fixed_batches
from sanactl.model.processes import gather, is_one_of_several, open_processes
from sanactl.model.sharing import on_each

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint

__all__ = ["block_importance"]


@dataclass
class _Similarities:
    """The similarity of each block's input and output for one batch; only its first `count` prompts are counted.

    The cosine is computed for each token and averaged over an image's tokens, as in Minitron, which the paper follows.
    Sums are kept on the device; activations are not kept.

    Attributes:
        images: of each block and prompt, summed over the steps, float64 [blocks, count].
        steps: of each block and step, summed over the prompts, float64 [blocks, steps].
        step: the present step of the sampler.
    """

    size: int
    count: int
    images: torch.Tensor
    steps: torch.Tensor
    step: int = 0

    def add(self, block: int, before: torch.Tensor, after: torch.Tensor) -> None:
        """Add a block's input and output, [B, N, D]. With guidance, the first half of the batch is the negative prompt's."""
        from torch.nn import functional as F

        x, y = (t[-self.size :][: self.count].float() for t in (before, after))
        # If a block's output is all zeros, cosine_similarity gives 0: the block changes everything.
        similarity = F.cosine_similarity(x, y, dim=-1).mean(1).to(self.images)
        self.images[block] += similarity
        self.steps[block, self.step] += similarity.sum()


class _Watched:
    """Hooks that give the blocks' inputs and outputs to the `_Similarities` of the thread that runs them."""

    def __init__(self, blocks: Sequence[torch.nn.Module]) -> None:
        self._here = threading.local()
        self._handles = [block.register_forward_hook(self._hook(i)) for i, block in enumerate(blocks)]

    def _hook(self, block: int) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            self._here.similarities.add(block, inputs[0], output)

        return hook

    def begin(self, similarities: _Similarities) -> None:
        """Use these similarities for this thread's next forward passes."""
        self._here.similarities = similarities

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


def _fp64_device(device: Any) -> Any:
    """The device for fp64 sums; Apple's MPS has no fp64, so there it is the CPU."""
    return "cpu" if getattr(device, "type", device) == "mps" else device


def block_importance(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    settings: SamplingSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 16,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Iterator[dict[str, Any]]:
    """BI_i = 1 - E[cos(X_i,t, X_i+1,t)] over calibration prompts and the timesteps of a sampling run (equation 3).

    Args:
        prompts: the calibration set; the paper uses 100 diverse prompts.
        settings: the sampling settings.
        batch_size: number of prompts in a batch; small models on a CPU use several fixed batches in parallel instead.

    Yields:
        (on every process) a `block` record for each block: `importance`, `stderr` (standard error over prompts, None for one prompt),
        `timesteps` (of the sampler, 1000 = noise; of SANA-Sprint's 1.57 = noise) and `by_timestep` (importance at each).
    """
    import torch

    state = open_processes() if is_one_of_several() else None
    rank, world = (0, 1) if state is None else (state.process_index, state.num_processes)
    progress.start(None, f"loading {checkpoint.name}")

    def measure() -> tuple[list[_Numbered], list[float]]:
        sana = Sana(checkpoint, settings, device=device, dtype=dtype, decode=False)
        if line := sana.texts.cut_note(prompts):
            progress.note(line)
        progress.start(len(prompts), "measuring blocks")
        try:
            return _measure(sana, prompts, settings, (rank, world), batch_size, seed, progress)
        finally:
            progress.close()

    own, timesteps = on_each(measure)
    measured = sorted((one for some in (gather(own) if world > 1 else [own]) for one in some), key=_number)
    if world > 1:
        timesteps = gather(timesteps)[0]  # a process that had no batch knows none
    images = 1 - torch.cat([found for _, found, _ in measured], 1) / settings.steps
    by_timestep = 1 - sum(steps for _, _, steps in measured) / len(prompts)
    for block in range(checkpoint.num_blocks):
        values = images[block]
        yield {
            "kind": "block",
            "checkpoint": checkpoint.source,
            "digest": checkpoint.digest,
            "block": block,
            "blocks": checkpoint.num_blocks,
            "importance": values.mean().item(),
            "stderr": (values.std() / len(values) ** 0.5).item() if len(values) > 1 else None,
            "prompts": len(prompts),
            "timesteps": timesteps,
            "by_timestep": by_timestep[block].tolist(),
        }


_Numbered = tuple[int, "torch.Tensor", "torch.Tensor"]  # of a batch: its number, `images` and `steps`


def _number(measured: _Numbered) -> int:
    return measured[0]


def _measure(
    sana: Sana,
    prompts: Sequence[str],
    settings: SamplingSettings,
    share: tuple[int, int],
    batch_size: int,
    seed: int,
    progress: Progress,
) -> tuple[list[_Numbered], list[float]]:
    """The similarities of this process's batches, on the CPU, and the sampler's timesteps.

    Args:
        share: (number of the process, number of processes).
    """
    import torch

    from sanactl.model.cpu import Workers
    from sanactl.model.sampler import Guidance, image_seed

    rank, world = share
    # A fixed number if each batch runs on one thread, else `batch_size`.
    size = sana.fixed_batch if sana.one_thread_each else batch_size
    every = enumerate(fixed_batches(map(sana.texts.text_length, prompts), size))
    mine = [(number, places) for number, places in every if number % world == rank]
    # All of them before the hooks are set: the transformer may be loaded again where prompts are encoded.
    sana.texts.prepare(prompts[i] for _, places in mine for i in places)
    blocks = list(sana.transformer.transformer_blocks)
    watched, place = _Watched(blocks), _fp64_device(sana.device)
    timesteps: list[float] = [0.0] * settings.steps

    def batches() -> Iterator[tuple[int, list[str], int, Guidance]]:
        for number, places in mine:
            chunk = [prompts[i] for i in places]
            whole = filled(chunk, size) if sana.one_thread_each else chunk
            yield number, whole, len(chunk), sana.texts.guidance(whole)

    def measure(batch: tuple[int, list[str], int, Guidance]) -> tuple[int, _Similarities]:
        number, chunk, count, guidance = batch
        images, steps = (
            torch.zeros(len(blocks), columns, dtype=torch.float64, device=place)
            for columns in (count, settings.steps)
        )
        found = _Similarities(len(chunk), count, images, steps)

        def on_step(index: int, timestep: float) -> None:
            found.step, timesteps[index] = index, timestep

        watched.begin(found)
        sana.denoise(guidance, [image_seed(seed, p, 0) for p in chunk], on_step)
        return number, found

    measured: list[_Numbered] = []
    try:
        with Workers() if sana.one_thread_each else nullcontext() as workers:
            for number, found in (
                map(measure, batches()) if workers is None else workers.map(measure, batches())
            ):
                measured.append((number, found.images.cpu(), found.steps.cpu()))
                progress.advance(found.count * world)
    finally:
        watched.remove()
    return measured, timesteps
