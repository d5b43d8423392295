"""From positions of the data stream to what a training step needs: latents, text embeddings and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sanactl.io.progress import Progress
from sanactl.stages.conditioning import pixels_per_latent

if TYPE_CHECKING:
    import torch

    from sanactl.io.checkpoint import Checkpoint
    from sanactl.stages.data import TrainingData
    from sanactl.stages.finetune import FinetuneSettings

__all__ = ["Conditions"]


class Conditions:
    """Turns positions of the data stream into latents, text embeddings and masks, on the training device."""

    def __init__(
        self, checkpoint: Checkpoint, data: TrainingData, settings: FinetuneSettings, device: Any
    ) -> None:
        from sanactl.diffusion.loading import load_companions

        self.data, self.settings, self.device = data, settings, device
        self.channels, self.factor = int(checkpoint.config["in_channels"]), pixels_per_latent(checkpoint)
        self.companions = load_companions(
            checkpoint, parts=("tokenizer", "text_encoder", "vae"), device=device
        )
        self.instruction = None
        if settings.complex_human_instruction:
            from sanactl.diffusion.text import human_instruction

            self.instruction = human_instruction()
        self.cached: torch.Tensor | None = None
        self.captions: list[str] = []

    def step(self, step: int) -> tuple[list[int], tuple[int, int, int]]:
        """Positions of a step's examples in the stream, and the shape [C, h, w] of each one's latents."""
        positions, (height, width) = self.data.step(step, self.settings.batch_size)
        return list(positions), (self.channels, height // self.factor, width // self.factor)

    def encode_images(self, images: Any) -> torch.Tensor:
        """uint8 [B, H, W, 3] to scaled latents [B, C, h, w], float32."""
        import torch

        vae = self.companions.vae
        pixels = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        with torch.no_grad():
            latents = vae.encode(pixels.to(vae.dtype), return_dict=False)[0].float()
        return latents * vae.config.scaling_factor

    def fill_cache(self, progress: Progress) -> None:
        """Encodes the first `settings.cache` examples."""
        import torch

        count, size = self.settings.cache, 64
        progress.start(count, "encoding images")
        parts = []
        for start in range(0, count, size):
            images, captions = self.data.batch(range(start, min(start + size, count)))
            parts.append(self.encode_images(images).cpu())
            self.captions += captions
            progress.advance(len(captions))
        self.cached = torch.cat(parts)
        progress.close()

    def batch(
        self, positions: list[int], dropped: list[bool]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Latents [B, C, h, w], text [B, T, D] and mask [B, T]; a dropped caption is the empty prompt."""
        from sanactl.diffusion.text import encode_prompts

        if self.cached is not None:
            rows = [p % len(self.captions) for p in positions]
            latents = self.cached[rows].to(self.device)
            captions = [self.captions[r] for r in rows]
        else:
            images, captions = self.data.batch(positions)
            latents = self.encode_images(images)
        captions = ["" if drop else c for c, drop in zip(captions, dropped, strict=True)]
        text, mask = encode_prompts(
            self.companions.tokenizer,
            self.companions.text_encoder,
            captions,
            max_sequence_length=self.settings.max_sequence_length,
            instruction=self.instruction,
        )
        return latents, text.float(), mask
