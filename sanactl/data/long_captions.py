"""A note about captions with more tokens than the model gets."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sanactl.errors import InputError

if TYPE_CHECKING:
    from sanactl.data.tables import Examples
    from sanactl.model.encoders import Encoders

__all__ = ["LOOKED_AT", "LongCaptions", "long_captions_of"]

# Examples whose captions are looked at before training begins. It takes a second at most.
LOOKED_AT = 2000


@dataclass
class LongCaptions:
    """A count of captions, and of those that the tokenizer cuts.

    Attributes:
        seen: captions that were looked at; empty ones do not count.
        cut: those that are cut.
        first: the first of these.
        tokens: what is kept of each.
        sample_of: the number of examples, where only some were looked at; else 0.
    """

    seen: int = 0
    cut: int = 0
    first: str = ""
    tokens: int = 0
    sample_of: int = 0

    def add(self, captions: Sequence[str], encoders: Encoders) -> None:
        """Counts captions as `encoders` would take them."""
        from sanactl.model.text import cut_prompts

        full = [caption for caption in captions if caption]
        places = cut_prompts(
            encoders.tokenizer,
            full,
            max_sequence_length=encoders.max_sequence_length,
            instruction=encoders.instruction,
        )
        self.tokens = encoders.max_sequence_length
        if places and not self.cut:
            self.first = " ".join(full[places[0]].split())
        self.seen += len(full)
        self.cut += len(places)

    def join(self, other: LongCaptions) -> None:
        """Adds what another process has counted."""
        self.seen, self.cut = self.seen + other.seen, self.cut + other.cut
        self.first, self.tokens = self.first or other.first, self.tokens or other.tokens

    @property
    def note(self) -> str | None:
        """The line; None where no caption is cut."""
        if not self.cut:
            return None
        sample = f" in a sample of {LOOKED_AT:,} of {self.sample_of:,} examples" if self.sample_of else ""
        shown = self.first[:60] + ("..." if len(self.first) > 60 else "")
        return (
            f"warning: {self.cut:,} of {self.seen:,} captions{sample} have more than the {self.tokens} tokens that the"
            f" model is given, and are cut; the first is {shown!r}"
        )


def long_captions_of(examples: Examples, encoders: Encoders) -> LongCaptions:
    """Counts the captions of examples, or of 2,000 of them, evenly spread.

    A stream and the built-in world have no known number of examples, and are not looked at.
    """
    found = LongCaptions()
    if examples.count is None:
        return found
    rows = np.arange(examples.count)
    if examples.count > LOOKED_AT:
        rows = np.linspace(0, examples.count - 1, LOOKED_AT).astype(np.int64)
        found.sample_of = examples.count
    captions: list[str] = []
    for row in rows:
        with contextlib.suppress(InputError):  # an example that cannot be read is an error when it is used
            captions += examples.texts(int(row))
    found.add(captions, encoders)
    return found
