"""What `sample` and `importance` share: a checkpoint loaded with its companions, and prompts as conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from sanactl.diffusion.sampler import Guidance
    from sanactl.io.checkpoint import Checkpoint

__all__ = ["SamplingSettings", "Sana", "pick_device", "sampling_settings"]

# Published checkpoints without sampling defaults of their own: SANA's (facts of the paper, section 3.1).
PUBLISHED = {"height": 1024, "width": 1024, "steps": 20, "guidance_scale": 4.5, "max_sequence_length": 300}


@dataclass(frozen=True)
class SamplingSettings:
    """Everything but checkpoint, prompt and seed that an image is a function of."""

    steps: int = 20
    guidance_scale: float = 4.5
    height: int = 1024
    width: int = 1024
    max_sequence_length: int = 300
    complex_human_instruction: bool = True
    flow_shift: float | None = None
    negative_prompt: str = ""


def sampling_settings(checkpoint: Checkpoint, **given: Any) -> SamplingSettings:
    """The checkpoint's own defaults, overridden by what is given and not None.

    A checkpoint that names no size gets 32 pixels a latent of its `sample_size`, the factor of SANA's autoencoder.
    """
    size = int(checkpoint.config.get("sample_size", 32)) * 32
    defaults = {**PUBLISHED, "height": size, "width": size, **checkpoint.sampling}
    merged = {**defaults, **{k: v for k, v in given.items() if v is not None}}
    names = SamplingSettings.__dataclass_fields__
    return SamplingSettings(**{k: v for k, v in merged.items() if k in names})


def pick_device(name: str | None) -> torch.device:
    """The device called `name`, or the best one there is.

    Raises:
        UsageError: no such device on this machine.
    """
    import torch

    from sanactl.errors import UsageError

    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        mps = getattr(torch.backends, "mps", None)
        return torch.device("mps" if mps is not None and mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


class Sana:
    """A transformer and its companions, ready to sample.

    Args:
        checkpoint: what to load.
        settings: how to sample.
        device, dtype: where and in what the models run.
        decode: whether the autoencoder is wanted.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: SamplingSettings,
        *,
        device: torch.device,
        dtype: torch.dtype,
        decode: bool = True,
    ) -> None:
        from sanactl.diffusion.loading import load_companions, load_transformer

        self.settings, self.device = settings, device
        parts: tuple[str, ...] = ("tokenizer", "text_encoder", "scheduler", *(("vae",) if decode else ()))
        self.companions = load_companions(checkpoint, parts=parts, device=device, dtype=dtype)
        self.transformer = load_transformer(checkpoint, device=device, dtype=dtype)
        if settings.flow_shift is not None:
            self.companions.scheduler = type(self.companions.scheduler).from_config(
                self.companions.scheduler.config, flow_shift=settings.flow_shift
            )
        self.instruction = None
        if settings.complex_human_instruction:
            from sanactl.diffusion.text import human_instruction

            self.instruction = human_instruction()
        self._negative: Any = None

    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a latent."""
        config = self.transformer.config
        factor = self._factor()
        return config.in_channels, self.settings.height // factor, self.settings.width // factor

    def _factor(self) -> int:
        """Pixels a side of one latent: from the autoencoder, else from the configured sizes."""
        vae = self.companions.vae
        if vae is not None:
            return 2 ** (len(vae.config.encoder_block_out_channels) - 1)
        return self.settings.height // int(self.transformer.config.sample_size)

    def guidance(self, prompts: Sequence[str]) -> Guidance:
        """Conditions for a batch of prompts, with the negative prompt's computed once."""
        from sanactl.diffusion.sampler import Guidance
        from sanactl.diffusion.text import encode_prompts

        tools = (self.companions.tokenizer, self.companions.text_encoder)
        length = self.settings.max_sequence_length
        text, mask = encode_prompts(*tools, prompts, max_sequence_length=length, instruction=self.instruction)
        if self._negative is None:
            self._negative = encode_prompts(
                *tools, [self.settings.negative_prompt], max_sequence_length=length
            )
        return Guidance(text, mask, *self._negative, self.settings.guidance_scale)
