"""The settings for reading the data that `--data` names."""

from __future__ import annotations

from dataclasses import dataclass

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
    buckets: bool = False
    streaming: bool = False
    max_bad: int = 0
    multiple: int | None = None
    once: bool = False
