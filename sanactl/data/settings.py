"""The settings for reading the data that `--data` names."""

from __future__ import annotations

from dataclasses import dataclass

from sanactl.data.scored_captions import ScoreRule, parse_caption_choice
from sanactl.errors import UsageError

__all__ = ["DataSettings"]


@dataclass(frozen=True)
class DataSettings:
    """What a user can choose about the reading of data.

    Attributes:
        seed: of the order, of the choice among captions, and of the built-in world.
        height: of the images, in pixels. With `buckets` only the product of height and width counts.
        width: of the images, in pixels.
        captions: columns with weights ("text:0.7,short:0.3"); None takes the first of text, caption, prompt, ... that
            has text.
        caption_choice: "clipscore:25:0.1" draws among an image's captions by their CLIP scores; None draws by the weights
            of `captions`.
        min_clip_score: images whose first caption scores less are left out; None is 22. Only with `caption_choice`.
        buckets: keep each image's aspect ratio, nearly: steps of several sizes.
        streaming: read a dataset as a stream, in place of preparing it on disk.
        max_bad: how many unreadable or missing images may be skipped.
        multiple: pixels that a bucket's sides have to be multiples of (a latent's side times the patch size); None
            takes that of the checkpoints with images of this size.
        once: read a stream once, in its own order; else it is shuffled within a buffer and begins again at its end.
    """

    seed: int = 0
    height: int = 64
    width: int = 64
    captions: str | None = None
    caption_choice: str | None = None
    min_clip_score: float | None = None
    buckets: bool = False
    streaming: bool = False
    max_bad: int = 0
    multiple: int | None = None
    once: bool = False

    @property
    def rule(self) -> ScoreRule | None:
        """The choice by scores, or None.

        Raises:
            UsageError: there is no such choice, or it does not go together with the other settings.
        """
        if self.caption_choice is None:
            if self.min_clip_score is not None:
                raise UsageError(
                    "--min-clip-score is for --caption-choice",
                    hint="sanactl filter --where 'clip_score >= 22' does so for image records",
                )
            return None
        if self.captions is not None and ":" in self.captions:
            raise UsageError(
                f"--captions {self.captions[:80]} has weights, and --caption-choice {self.caption_choice[:80]} draws by scores",
                hint="leave one of the two out, or name the columns without weights",
            )
        return parse_caption_choice(self.caption_choice, self.min_clip_score)
