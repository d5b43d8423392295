"""A row of a dataset, from an image record."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.images import image_bytes, image_suffix, read_image
from sanactl.files.json_values import brief

__all__ = ["Picture", "Row", "changed", "label_of", "look_at", "texts_of"]

_ANSWERS = {True: True, False: False, "yes": True, "no": False}  # 1 equals True, and 0 False


@dataclass(frozen=True)
class Picture:
    """What is known of an image file.

    Attributes:
        suffix: by its content, ".png".
        size: in bytes.
        changed: time of the last change, in nanoseconds.
        height, width: in pixels, as it is shown.
    """

    suffix: str
    size: int
    changed: int
    height: int
    width: int


@dataclass(frozen=True)
class Row:
    """A row of the dataset.

    Attributes:
        number: from 0.
        path: the image's file.
        picture: what is known of it.
        texts: captions by field, None where there is none; the first is the row's text and always there.
        label: the answer to whether the image shows its prompt, where the format has one.
        cells: the other columns, each of its column's type.
    """

    number: int
    path: Path
    picture: Picture
    texts: Mapping[str, str | None]
    label: bool | None
    cells: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The row's name, the same in every format; it has no dot, which would end a name in a webdataset."""
        return f"{self.number:08d}"

    @property
    def text(self) -> str:
        return next(iter(self.texts.values())) or ""

    @property
    def fields(self) -> dict[str, Any]:
        """The columns beside the image: `text`, further captions, `width` and `height` in pixels, and the cells."""
        further = dict(list(self.texts.items())[1:])
        size = {"width": self.picture.width, "height": self.picture.height}
        return {"text": self.text, **further, **size, **self.cells}

    def read(self) -> bytes:
        """The image's bytes.

        Raises:
            InputError: it is gone, or is not as it was when it was looked at.
        """
        data = image_bytes(self.path)
        if len(data) != self.picture.size:
            raise changed(self.path)
        return data


def changed(path: Path) -> InputError:
    """The error for an image that another program writes meanwhile."""
    return InputError(f"{path}: has changed since this command looked at it", hint="run the command again")


def look_at(path: Path) -> Picture:
    """Decodes an image to see that it can be read.

    Raises:
        InputError: it is missing, damaged, or no image.
    """
    data = image_bytes(path)
    height, width = read_image(io.BytesIO(data), name=str(path)).shape[:2]
    return Picture(
        image_suffix(io.BytesIO(data)), len(data), os.stat(path).st_mtime_ns, int(height), int(width)
    )


def texts_of(record: Mapping[str, Any], fields: Sequence[str]) -> dict[str, str | None]:
    """A record's captions by field.

    Raises:
        InputError: the first field has no text, or any has something else than text.
    """
    found: dict[str, str | None] = {}
    for name in fields:
        value = record.get(name)
        if value is not None and not isinstance(value, str):
            raise InputError(f"{record['path']}: its {name} is {brief(value)}, not text")
        found[name] = value if value and value.strip() else None
        if name == fields[0] and found[name] is None:
            raise InputError(
                f"{record['path']}: its record has no text in {name}",
                hint="--text-field names another field, and --max-bad N leaves out up to N images",
            )
    return found


def label_of(record: Mapping[str, Any], field: str) -> bool:
    """The answer in a record's field: true or false, yes or no, 1 or 0.

    Raises:
        InputError: it has none.
    """
    value = record.get(field)
    if isinstance(value, bool | int | str) and value in _ANSWERS:
        return _ANSWERS[value]
    raise InputError(
        f"{record['path']}: its record has {'no' if value is None else brief(value) + ' as'} {field}",
        hint="sanactl eval geneval writes correct; --label-field names another field with yes or no, true or false",
    )
