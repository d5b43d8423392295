"""`importance`: how much each block changes its input, measured while sampling (equation 3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sanactl.io.progress import SILENT, Progress
from sanactl.stages.conditioning import SamplingSettings, Sana

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint

__all__ = ["block_importance"]


class SimilarityHooks:
    """Running sums of cos(X_i, X_{i+1}) on the device: no activation is kept.

    The cosine is taken token by token and averaged over the tokens of an image, as Minitron does, which the paper
    follows. With guidance the batch holds the negative prompt's half first; only the prompts' half is counted.
    """

    def __init__(self, blocks: Sequence[torch.nn.Module], steps: int, device: Any) -> None:
        import torch

        self.by_timestep = torch.zeros(len(blocks), steps, dtype=torch.float64, device=_fp64_device(device))
        self.by_image: list[torch.Tensor] = []
        self.batch, self.step = 0, 0
        self._images: torch.Tensor | None = None
        self.handles = [block.register_forward_hook(self._hook(i)) for i, block in enumerate(blocks)]

    def _hook(self, block: int) -> Any:
        import torch
        from torch.nn import functional as F

        def hook(module: Any, inputs: Any, output: Any) -> None:
            before, after = inputs[0][-self.batch :].float(), output[-self.batch :].float()
            similarity = F.cosine_similarity(before, after, dim=-1).mean(1).to(self.by_timestep)
            # A block whose output has no direction (all zeros) changes everything: cosine_similarity gives 0.
            assert self._images is not None
            self._images[block] += similarity
            self.by_timestep[block, self.step] += torch.sum(similarity)

        return hook

    def begin(self, batch: int) -> None:
        """A new batch of images of the calibration set."""
        import torch

        self.batch = batch
        self._images = torch.zeros(
            len(self.handles), batch, dtype=torch.float64, device=self.by_timestep.device
        )
        self.by_image.append(self._images)

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()


def _fp64_device(device: Any) -> Any:
    """Sums are kept where fp64 exists (not on Apple's MPS)."""
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
        settings: of the sampling run.

    Yields:
        a `block` record for each block: `importance`, `stderr` (standard error over prompts, None for one prompt),
        `timesteps` (of the sampler, 1000 = noise; of SANA-Sprint's 1.57 = noise) and `by_timestep` (importance at each).
    """
    import torch

    from sanactl.diffusion.sampler import image_seed

    sana = Sana(checkpoint, settings, device=device, dtype=dtype, decode=False)
    if line := sana.cut_note(prompts):
        progress.note(line)
    hooks = SimilarityHooks(list(sana.transformer.transformer_blocks), settings.steps, device)
    timesteps: list[float] = [0.0] * settings.steps

    def on_step(index: int, timestep: float) -> None:
        hooks.step, timesteps[index] = index, timestep

    progress.start(len(prompts), "measuring blocks")
    try:
        for start in range(0, len(prompts), batch_size):
            chunk = prompts[start : start + batch_size]
            hooks.begin(len(chunk))
            sana.denoise(sana.guidance(chunk), [image_seed(seed, p, 0) for p in chunk], on_step)
            progress.advance(len(chunk))
    finally:
        hooks.remove()
        progress.close()
    images = 1 - torch.cat([t.cpu() for t in hooks.by_image], 1) / settings.steps
    by_timestep = 1 - hooks.by_timestep.cpu() / len(prompts)
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
