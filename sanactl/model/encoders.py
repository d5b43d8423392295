"""Encoding training data: images to latents, captions to text embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.model.conditioning import pixels_per_latent

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from sanactl.checkpoint.open import Checkpoint

__all__ = ["Encoders", "encode_images", "images_together"]

# Pixels of the images that are encoded together. The activations of SANA's autoencoder take 2.6 kB a pixel in fp32.
PIXELS_TOGETHER = 1 << 20


class Encoders:
    """A checkpoint's autoencoder and text encoder.

    Args:
        checkpoint: the checkpoint that names them.
        max_sequence_length: T, tokens kept of a caption.
        complex_human_instruction: whether SANA's instruction is put before every caption that is not empty.
        device, dtype: of the models; default fp32.

    Attributes:
        vae: the autoencoder without its decoder.
        text_width: D, the width of the text embeddings that the checkpoint takes.

    Raises:
        InputError: they cannot be loaded, or the autoencoder is not the one that the checkpoint is for.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        max_sequence_length: int,
        complex_human_instruction: bool,
        device: Any,
        dtype: torch.dtype | None = None,
    ) -> None:
        import torch

        from sanactl.model.loading import load_components
        from sanactl.model.text import human_instruction

        self.device, self.max_sequence_length = device, max_sequence_length
        self.instruction = human_instruction() if complex_human_instruction else None
        found = load_components(
            checkpoint,
            parts=("tokenizer", "text_encoder", "vae"),
            device=device,
            dtype=dtype or torch.float32,
        )
        self.vae, self.text_encoder, self.tokenizer = found.vae, found.text_encoder, found.tokenizer
        self.text_width = int(checkpoint.config["caption_channels"])
        factor = pixels_per_latent(checkpoint)
        if 2 ** (len(self.vae.config.encoder_block_out_channels) - 1) != factor:
            raise InputError(
                f"{checkpoint.path}: its autoencoder does not make {factor} pixels of a latent",
                hint="name the autoencoder that it was trained with",
            )
        self.vae.decoder = None  # half of its weights

    def latents(self, images: NDArray[np.uint8] | torch.Tensor) -> torch.Tensor:
        """uint8 [B, H, W, 3] to scaled latents [B, C, h, w], float32, on the device."""
        import torch

        # From pinned memory the copy is asynchronous.
        pixels = torch.as_tensor(images).to(self.device, non_blocking=True)
        together = images_together(pixels.shape[1], pixels.shape[2])
        return torch.cat([encode_images(self.vae, some) for some in pixels.split(together)])

    def texts(self, captions: Sequence[str]) -> list[torch.Tensor]:
        """The embeddings [tokens, D] of captions without padding, in the encoder's dtype; each has at least one token.

        If a tokenizer makes no token of a caption (an empty one without start and end tokens), its embedding is all T
        padding tokens. In sampling, as in diffusers' pipeline, the mask then adds the same number to all T scores, so the
        attention is over all of them, too.

        The empty caption is the negative prompt of sampling, so it gets no instruction.
        """
        found: dict[int, torch.Tensor] = {}
        for empty in (False, True):
            rows = [row for row, caption in enumerate(captions) if (not caption) == empty]
            if rows:
                embedded = self._embed([captions[row] for row in rows], None if empty else self.instruction)
                found.update(zip(rows, embedded, strict=True))
        return [found[row] for row in range(len(captions))]

    def _embed(self, captions: Sequence[str], instruction: Sequence[str] | None) -> list[torch.Tensor]:
        from sanactl.model.text import encode_prompts

        text, mask = encode_prompts(
            self.tokenizer,
            self.text_encoder,
            captions,
            max_sequence_length=self.max_sequence_length,
            instruction=instruction,
        )
        if text.shape[2] != self.text_width:
            raise InputError(
                f"the text encoder gives {text.shape[2]} numbers a token and the checkpoint takes {self.text_width}",
                hint="name the text encoder that the checkpoint was trained with",
            )
        counts = mask.sum(1).tolist()
        # Padding is on the right, so the kept tokens come first.
        assert all(bool(row[:count].all()) for row, count in zip(mask, counts, strict=True))
        return [row[: count or len(row)] for row, count in zip(text, counts, strict=True)]


def images_together(height: int, width: int) -> int:
    """How many images of this size are encoded at once: their activations would take more than those of a training step."""
    return max(1, PIXELS_TOGETHER // (height * width))


def encode_images(vae: Any, images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, H, W, 3] to scaled latents [B, C, h, w], float32, on the device of both."""
    import torch

    pixels = images.permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    with torch.no_grad():
        latents = vae.encode(pixels.to(vae.dtype), return_dict=False)[0].float()
    scaled: torch.Tensor = latents * vae.config.scaling_factor
    return scaled
