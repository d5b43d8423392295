"""What an export is asked to do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sanactl.checkpoint.write import parse_size
from sanactl.errors import UsageError
from sanactl.files.json_values import brief

__all__ = ["SHARD_SIZE", "ExportSettings", "export_settings"]

SHARD_SIZE = "1GB"
MOST_IMAGES = 1_000_000  # of a shard
_FIELD = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class ExportSettings:
    """How records become a dataset.

    Attributes:
        to: the format's name.
        shard_bytes: a shard ends before the image that would make it larger.
        shard_images: the most images of a shard.
        texts: fields of the records: the first is the caption, the others are further captions.
        label: the field with the answer yes or no, for formats that have one; None is `correct`.
        max_bad: how many records may be left out because their image or a field cannot be used.
        link: make hard links to image files in place of copies.
    """

    to: str
    shard_bytes: int = 10**9
    shard_images: int = MOST_IMAGES
    texts: tuple[str, ...] = ("prompt",)
    label: str | None = None
    max_bad: int = 0
    link: bool = False

    @property
    def answer(self) -> str:
        """The field with the answer yes or no."""
        return "correct" if self.label is None else self.label


def export_settings(
    to: str,
    *,
    shard_size: str | int = SHARD_SIZE,
    text_field: Sequence[str] | None = None,
    label_field: str | None = None,
    max_bad: int = 0,
    link: bool = False,
) -> ExportSettings:
    """Settings from what the command and the function take.

    Args:
        shard_size: a size such as "1GB" or "500MiB", or a number of images such as "1000".

    Raises:
        UsageError: neither a size nor a number of images, or a field name that cannot be a part of a file name.
    """
    texts = tuple(text_field or ("prompt",))
    for name in texts:
        if not _FIELD.fullmatch(name):
            raise UsageError(
                f"--text-field {brief(name)}: a field's name has letters, digits, _ and - here",
                hint="for example --text-field prompt",
            )
    if len(set(texts)) < len(texts):
        raise UsageError(f"--text-field names a field twice: {', '.join(texts)}")
    if max_bad < 0:
        raise UsageError("max_bad is below 0")
    count = str(shard_size).strip()
    if count.isascii() and count.isdigit():
        if not 1 <= int(count[:20]) <= MOST_IMAGES:
            raise UsageError(f"--shard-size {brief(count)}: a shard has 1 to {MOST_IMAGES:,} images")
        return ExportSettings(to, 2**62, int(count), texts, label_field, max_bad, link)
    size = parse_size(count, hint="write a size like 1GB or 500MiB, or a number of images like 1000")
    return ExportSettings(to, size, MOST_IMAGES, texts, label_field, max_bad, link)
