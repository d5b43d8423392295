"""Tables of examples, read by number: the interface, image records, and the built-in world."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sanactl.data.caption_columns import CaptionColumns
from sanactl.data.captions import CaptionChoice, find_columns
from sanactl.data.listing import identity_of_files
from sanactl.data.scored_captions import ScoreRule
from sanactl.errors import InputError
from sanactl.files.images import image_size, read_image

__all__ = [
    "Examples", "NumberedExamples", "RecordTable", "ScoredExamples", "ShapesTable", "SizedExamples", "described", "header_size",
]  # fmt: skip


class Examples(Protocol):
    """Images with captions, by number.

    Attributes:
        name: what a person calls them.
        identity: a text that differs where the pairs differ.
        captions: the columns to take captions from.
        about: for people: how many, from where, and what was left out.
    """

    name: str
    identity: str
    captions: CaptionChoice
    about: str

    @property
    def count(self) -> int | None:
        """The number of examples; None if it is unknown or there is no end."""

    def image(self, row: int) -> NDArray[np.uint8]:
        """uint8 [height, width, 3], as large as it is stored.

        Raises:
            InputError: it cannot be read; the message names it.
            EndOfExamples: there are fewer.
        """

    def texts(self, row: int) -> list[str]:
        """The row's caption in each of the columns, "" where it has none."""


@runtime_checkable
class ScoredExamples(Examples, Protocol):
    """Examples whose captions may have scores."""

    def scores(self, row: int) -> Sequence[float]:
        """For each of `ScoredChoice.scored` the row's score, NaN where there is none."""


@runtime_checkable
class SizedExamples(Examples, Protocol):
    """Examples of which there is a known number."""

    @property
    def count(self) -> int: ...

    def sizes(self) -> Iterator[tuple[int, int]]:
        """(height, width) of each row's image from its header, (0, 0) where there is no readable one."""


class RecordTable:
    """`image` records: the image at `path` with the prompt that it was made for, or other fields as captions.

    Args:
        records: the records.
        captions: what `--captions` says, or None.
        origin: where they come from, for people.
        rule: of the choice among captions by their scores (`clip_score` of the prompt, `long_clip_score` of `long`), or
            None.

    Raises:
        InputError: there are none, or none has a caption.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        captions: str | None = None,
        *,
        origin: str = "the pipe",
        rule: ScoreRule | None = None,
    ) -> None:
        if not records:
            raise InputError("no image records to train on")
        self.records = list(records)
        self.name = f"{len(records)} image records"
        columns = CaptionColumns(captions, self.name, ("prompt",), rule)
        for record in self.records:
            columns.add(record, f"the record of {record['path']}")
        self._captions = columns.choose()
        self.captions = self._captions.choice
        if self._captions.rows is not None:
            self.records = [self.records[row] for row in self._captions.rows]
        self.count = len(self.records)
        self.about = described(
            self.count, origin, "image records", self._captions.left_out, self._captions.empty
        )
        paths = [os.path.abspath(record["path"]) for record in self.records]
        folder = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))
        names = [os.path.relpath(path, folder) for path in paths]
        self.identity = identity_of_files(folder, names, self.captions.identity, *self._captions.all())

    def image(self, row: int) -> NDArray[np.uint8]:
        return read_image(Path(self.records[row]["path"]))

    def texts(self, row: int) -> list[str]:
        return self._captions.of(row)

    def scores(self, row: int) -> Sequence[float]:
        return self._captions.scores(row)

    def sizes(self) -> Iterator[tuple[int, int]]:
        return (header_size(Path(r["path"])) for r in self.records)


class ShapesTable:
    """The built-in world's training stream: rendered when asked for, its prompts disjoint from evaluation's.

    Args:
        seed: of the stream.
        size: the pictures' side in pixels.
        captions: what `--captions` says: `prompt`, or language forms (`sanactl.shapes.languages.FORMS`); None: `prompt`.

    Raises:
        InputError: there is no such column.
    """

    name = identity = "builtin:shapes"
    about = "the built-in world's endless stream"
    count = None

    def __init__(self, seed: int, size: int = 64, captions: str | None = None) -> None:
        from sanactl.shapes.languages import FORMS

        self.seed, self.side = seed, size
        self.captions = find_columns(("prompt", *FORMS), captions, self.name)
        if captions is not None:
            self.identity = f"{self.name} {self.captions}"

    def image(self, row: int) -> NDArray[np.uint8]:
        from sanactl.shapes.dataset import batch

        image: NDArray[np.uint8] = batch([row], seed=self.seed, size=self.side)[0][0]
        return image

    def texts(self, row: int) -> list[str]:
        from sanactl.shapes.dataset import scene_and_prompt
        from sanactl.shapes.languages import translate

        prompt = scene_and_prompt(row, self.seed)[1]["prompt"]
        return [prompt if c == "prompt" else translate(prompt, c) for c in self.captions.columns]


class NumberedExamples:
    """Examples that a function gives by number: all that a new format needs.

    Args:
        name: what a person calls them.
        count: how many there are.
        identity: a text that differs where the pairs differ.
        example: from a number to the image, uint8 [height, width, 3], and its caption. It raises an InputError that
            names an image that cannot be read.
    """

    captions = CaptionChoice(("text",), (1.0,))

    def __init__(
        self, name: str, count: int, identity: str, example: Callable[[int], tuple[NDArray[np.uint8], str]]
    ) -> None:
        if not count:
            raise InputError(f"{name}: no images")
        self.name, self.count, self.identity, self.example = name, count, identity, example
        self.about = described(count, name, "images with captions", [])

    def image(self, row: int) -> NDArray[np.uint8]:
        return self.example(row)[0]

    def texts(self, row: int) -> list[str]:
        return [self.example(row)[1]]

    def sizes(self) -> Iterator[tuple[int, int]]:
        for row in range(self.count):
            try:
                height, width, _ = self.image(row).shape
                yield height, width
            except InputError:
                yield 0, 0


def described(count: int | None, name: str, what: str, left_out: Sequence[str], empty: int = 0) -> str:
    """One line about a table.

    Args:
        count: of its rows; None where nobody knows.
        name: what the user called it.
        what: the kind of thing ("a webdataset of 3 .tar files").
        left_out: what is not used, and why.
        empty: rows without a caption.
    """
    number = "examples" if count is None else f"{count:,} example{'s' if count != 1 else ''}"
    line = f"{number} of {name} ({what})"
    if left_out:
        line += f"; left out: {', '.join(left_out)}"
    if empty:
        line += f"; {empty:,} without a caption, trained with the empty prompt"
    return line


def header_size(source: Path | IO[bytes]) -> tuple[int, int]:
    """(height, width) of an image as it is read; (0, 0) where it is not an image or too large."""
    try:
        return image_size(source)
    except InputError:
        return 0, 0
