"""The text conditions of a run of sampling: each prompt encoded by itself, once while it is in use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError

if TYPE_CHECKING:
    import torch

    from sanactl.model.sampler import Guidance
    from sanactl.model.sampling_settings import SamplingSettings

__all__ = ["TextConditions", "filled"]


class TextConditions:
    """Prompts as conditions of the transformer.

    Args:
        name: of the checkpoint, for errors.
        tokenizer, text_encoder: the checkpoint's components.
        settings: the sampling settings.
        width: D, the width of the embeddings that the transformer takes.
        sprint: whether it is a SANA-Sprint checkpoint, which has no negative prompt.

    Attributes:
        instruction: the lines that are put before every prompt, or None.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        text_encoder: Any,
        settings: SamplingSettings,
        *,
        width: int,
        sprint: bool,
    ) -> None:
        self._name, self._tokenizer, self._encoder = name, tokenizer, text_encoder
        self._settings, self._width, self._sprint = settings, width, sprint
        self.instruction = _instruction(settings)
        # Images of a prompt come one after the other, so a cache of a few prompts is enough to encode each once.
        self._encoded = lru_cache(maxsize=64)(self._encode)

    def cut_note(self, prompts: Sequence[str]) -> str | None:
        """A line about prompts with more tokens than `max_sequence_length`, or None."""
        from sanactl.model.text import cut_note

        return cut_note(
            self._tokenizer,
            prompts,
            max_sequence_length=self._settings.max_sequence_length,
            instruction=self.instruction,
        )

    def guidance(self, prompts: Sequence[str]) -> Guidance:
        """Conditions for a batch of prompts."""
        import torch

        from sanactl.model.sampler import Guidance

        text, mask = zip(*(self._encoded(prompt, False) for prompt in prompts), strict=True)
        scale = self._settings.guidance_scale
        negative = (None, None)
        if scale > 1 and not self._sprint:
            negative = self._encoded(self._settings.negative_prompt, True)
        return Guidance(torch.cat(text), torch.cat(mask), *negative, scale)

    def _encode(self, prompt: str, negative: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding [1, T, D] and mask [1, T] of one prompt, encoded alone so that it does not depend on other prompts."""
        from sanactl.model.text import encode_prompts

        text, mask = encode_prompts(
            self._tokenizer,
            self._encoder,
            [prompt],
            max_sequence_length=self._settings.max_sequence_length,
            instruction=None if negative else self.instruction,
        )
        if text.shape[2] != self._width:
            raise InputError(
                f"{self._name}: its text encoder gives {text.shape[2]} numbers a token, and the transformer takes {self._width}",
                hint="name the text encoder that it was trained with",
            )
        return text, mask


def _instruction(settings: SamplingSettings) -> list[str] | None:
    """The lines that are put before every prompt, or None."""
    from sanactl.model.text import human_instruction

    if not settings.complex_human_instruction:
        return None
    return human_instruction() if settings.instruction is None else settings.instruction.split("\n")


def filled(things: Sequence[Any], size: int) -> list[Any]:
    """The things, followed by copies of the last one until there are `size`."""
    return [*things, *[things[-1]] * (size - len(things))]
