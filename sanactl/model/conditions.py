"""The text conditions of a run of sampling: each prompt encoded by itself, in portions, with the encoder in memory only then.

Gemma 2 2B, the published text encoder, is larger than SANA 1.6B. So prompts are encoded before the transformer is loaded.

A text is padded to the next of a few lengths (`TEXT_LENGTHS`) rather than to the length of training. Which one depends on
the prompt and the negative prompt alone, and all images of a fixed batch have texts of one length; so an image is still a
function of its prompt and settings. Masked padding has exactly no weight in the attention (`sampling_transformer.MASKED`),
so another length changes rounding alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError

if TYPE_CHECKING:
    import torch

    from sanactl.model.sampler import Guidance
    from sanactl.model.sampling_settings import SamplingSettings

__all__ = ["TEXT_LENGTHS", "TextConditions", "filled", "fixed_batches"]

# Multiples of 16, so that a GPU's attention takes the mask as it is.
TEXT_LENGTHS = (16, 32, 64, 96, 128, 192, 256)


# A portion ends with any of these. The conditions of a prompt of 300 tokens in fp32 are 2.8 MB. A slow machine does not
# spend much more time on prompts before their first image, and a run that is stopped does not lose more.
PORTION_PROMPTS, PORTION_BYTES, PORTION_SECONDS = 256, 1 << 30, 60.0


class TextConditions:
    """Prompts as conditions of the transformer.

    Args:
        name: of the checkpoint, for errors.
        tokenizer: the checkpoint's.
        load_encoder: loads its text encoder. It is called for each portion of prompts.
        settings: the sampling settings.
        width: D, the width of the embeddings that the transformer takes.
        sprint: whether it is a SANA-Sprint checkpoint, which has no negative prompt.

    Attributes:
        instruction: the lines that are put before every prompt, or None.
        stays: whether the text encoder stays in memory.
    """

    def __init__(
        self,
        name: str,
        tokenizer: Any,
        load_encoder: Callable[[], Any],
        settings: SamplingSettings,
        *,
        width: int,
        sprint: bool,
    ) -> None:
        self._name, self._tokenizer, self._load = name, tokenizer, load_encoder
        self._settings, self._width, self._sprint = settings, width, sprint
        self.instruction = _instruction(settings)
        self._encoder: Any = None
        self.stays = False
        # Of a prompt, whether it is the negative one, and its length.
        self._kept: dict[tuple[str, bool, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self._lengths = lru_cache(maxsize=4096)(self._length)

    def cut_note(self, prompts: Sequence[str]) -> str | None:
        """A line about prompts with more tokens than `max_sequence_length`, or None."""
        from sanactl.model.text import cut_note

        return cut_note(
            self._tokenizer,
            prompts,
            max_sequence_length=self._settings.max_sequence_length,
            instruction=self.instruction,
        )

    def encoder(self) -> Any:
        """The text encoder, which stays in memory from now on."""
        self.stays = True
        if self._encoder is None:
            self._encoder = self._load()
        return self._encoder

    def lack(self, prompts: Iterable[str]) -> bool:
        """Whether one of these prompts has to be encoded yet."""
        return any(key not in self._kept for prompt in prompts for key in self._keys(prompt))

    def prepare(self, prompts: Iterable[str], later: Iterable[str] = ()) -> None:
        """Encode what is not encoded yet. The text encoder is loaded for it, and freed at the end.

        Args:
            prompts: those that are needed now. All of them are encoded.
            later: those that will be needed then, in this order; as many of them as fill a portion are encoded, too.
                They are not read if all of `prompts` are encoded.
        """
        needed = {key: None for prompt in prompts for key in self._keys(prompt)}
        if all(key in self._kept for key in needed):
            return
        if self._bytes() >= PORTION_BYTES:
            self._kept = {key: kept for key, kept in self._kept.items() if key in needed}
        if self._encoder is None:
            self._encoder = self._load()
        start, before, size = time.monotonic(), len(self._kept), self._bytes()
        for key in needed:
            size += self._keep(*key)
        for prompt in later:
            if (
                len(self._kept) - before >= PORTION_PROMPTS
                or size >= PORTION_BYTES
                or time.monotonic() - start >= PORTION_SECONDS
            ):
                break
            for key in self._keys(prompt):
                size += self._keep(*key)
        if not self.stays:
            from sanactl.model.memory import free_memory

            self._encoder = None
            free_memory()

    def _keys(self, prompt: str) -> list[tuple[str, bool, int]]:
        """What is encoded for images of a prompt: it, and the negative prompt at the same length."""
        length = self.text_length(prompt)
        negative = [(self._settings.negative_prompt, True, length)] if self._guided else []
        return [(prompt, False, length), *negative]

    def _bytes(self) -> int:
        return sum(text.nbytes for text, _ in self._kept.values())

    def _keep(self, prompt: str, negative: bool, length: int) -> int:
        """Encode a prompt unless it is known; the bytes that it takes on the CPU."""
        if (prompt, negative, length) in self._kept:
            return 0
        text, mask = self._encode(prompt, negative, length)
        self._kept[prompt, negative, length] = text.cpu(), mask.cpu()
        return text.nbytes

    def text_length(self, prompt: str) -> int:
        """T of this prompt: what fits it and the negative prompt, of `TEXT_LENGTHS` or `max_sequence_length`."""
        length = self._lengths(prompt, False)
        return max(length, self._lengths(self._settings.negative_prompt, True)) if self._guided else length

    def encoder_tokens(self, prompt: str) -> int:
        """Tokens that the text encoder gets for this prompt: those of the instruction are in front of the prompt's own."""
        return self._more_tokens + self.text_length(prompt)

    @cached_property
    def _more_tokens(self) -> int:
        from sanactl.model.text import instruction_tokens

        return instruction_tokens(self._tokenizer, self.instruction)

    @property
    def _guided(self) -> bool:
        return self._settings.guidance_scale > 1 and not self._sprint

    def _length(self, prompt: str, negative: bool) -> int:
        from sanactl.model.text import kept_tokens

        longest = self._settings.max_sequence_length
        if self._settings.text_padding == "full":
            return longest
        (tokens,) = kept_tokens(
            self._tokenizer,
            [prompt],
            max_sequence_length=longest,
            instruction=None if negative else self.instruction,
        )
        # Without any token, attention is over all of the padding.
        fits = (length for length in TEXT_LENGTHS if 0 < tokens <= length < longest)
        return next(fits, longest)

    def guidance(self, prompts: Sequence[str]) -> Guidance:
        """Conditions for a batch of prompts of one `text_length`, on the CPU."""
        import torch

        from sanactl.model.sampler import Guidance

        self.prepare(prompts)
        (length,) = {self.text_length(prompt) for prompt in prompts}
        text, mask = zip(*(self._kept[prompt, False, length] for prompt in prompts), strict=True)
        negative = (None, None)
        if self._guided:
            negative = self._kept[self._settings.negative_prompt, True, length]
        return Guidance(torch.cat(text), torch.cat(mask), *negative, self._settings.guidance_scale)

    def _encode(self, prompt: str, negative: bool, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The embedding [1, T, D] and mask [1, T] of one prompt, encoded alone so that it does not depend on other prompts."""
        from sanactl.model.text import encode_prompts

        text, mask = encode_prompts(
            self._tokenizer,
            self._encoder,
            [prompt],
            max_sequence_length=length,
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


def fixed_batches(lengths: Iterable[int], size: int) -> Iterator[list[int]]:
    """Places of images, in batches of `size` whose texts have one length; the last batch of a length may be smaller.

    Args:
        lengths: `TextConditions.text_length` of each image's prompt. They are taken as they are needed.
    """
    waiting: dict[int, list[int]] = {}
    for place, length in enumerate(lengths):
        batch = waiting.setdefault(length, [])
        batch.append(place)
        if len(batch) == size:
            yield waiting.pop(length)
    yield from sorted(waiting.values())


def filled(things: Sequence[Any], size: int) -> list[Any]:
    """The things, followed by copies of the last one until there are `size`."""
    return [*things, *[things[-1]] * (size - len(things))]
