"""A contact sheet: the images of a stream of records in one picture, a row of them under each prompt."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.files.atomic import atomic_path, check_target
from sanactl.files.images import read_image

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ContactSheet"]

MOST_IMAGES = 600
COLUMNS = 8
CELL, GAP, LINE = 128, 6, 16  # pixels
_SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_GROUND, _INK, _GREEN, _RED = (250, 250, 250), (30, 30, 30), (20, 140, 70), (190, 40, 40)


@dataclass(frozen=True)
class _Cell:
    path: str
    prompt: str
    correct: bool | None


class ContactSheet:
    """Collects images while their records pass, and draws them into one file.

    Args:
        path: a .png, .jpg or .webp file.
        force: it may be there already.

    Raises:
        UsageError: another suffix.
        OutputExistsError: it is there, and `force` was not given.
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        if path.suffix.lower() not in _SUFFIXES:
            raise UsageError(f"--sheet {path}: a contact sheet is written as .png, .jpg or .webp")
        check_target(path, force)
        self.path, self._force = path, force
        self._cells: list[_Cell] = []
        self.left_out = 0

    def watching(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Passes records on and remembers the first `MOST_IMAGES` images."""
        for record in records:
            if record["kind"] == "image":
                if len(self._cells) < MOST_IMAGES:
                    self._cells.append(_Cell(record["path"], record["prompt"], record.get("correct")))
                else:
                    self.left_out += 1
            yield record

    def write(self) -> None:
        """Draws the sheet: under each prompt its images, eight in a row, framed in green or red where scored.

        Raises:
            InputError: an image cannot be read any more.
        """
        with atomic_path(self.path, force=self._force) as temporary:
            self._draw().save(temporary, format=_SUFFIXES[self.path.suffix.lower()])

    def _draw(self) -> Image:
        from PIL import Image, ImageDraw

        groups = _grouped(self._cells)
        columns = min(max((len(cells) for _, cells in groups), default=1), COLUMNS)
        width = max(columns, 3) * (CELL + GAP) + GAP  # three, for the captions
        captions = [textwrap.wrap(prompt, width // 7)[:3] or [""] for prompt, _ in groups]
        heights = [
            LINE * len(caption) + GAP + -(-len(cells) // COLUMNS) * (CELL + GAP) + GAP
            for caption, (_, cells) in zip(captions, groups, strict=True)
        ]
        sheet = Image.new("RGB", (width, max(sum(heights) + GAP, 1)), _GROUND)
        pen = ImageDraw.Draw(sheet)
        top = GAP
        for caption, (_, cells), height in zip(captions, groups, heights, strict=True):
            pen.multiline_text((GAP, top), "\n".join(caption), fill=_INK, spacing=4)
            at = top + LINE * len(caption) + GAP
            for number, cell in enumerate(cells):
                left = GAP + number % COLUMNS * (CELL + GAP)
                up = at + number // COLUMNS * (CELL + GAP)
                picture = _thumbnail(cell.path)
                sheet.paste(picture, (left + (CELL - picture.width) // 2, up + (CELL - picture.height) // 2))
                if cell.correct is not None:
                    box = (left - 2, up - 2, left + CELL + 1, up + CELL + 1)
                    pen.rectangle(box, outline=_GREEN if cell.correct else _RED, width=2)
            top += height
        return sheet


def _grouped(cells: Iterable[_Cell]) -> list[tuple[str, list[_Cell]]]:
    """Neighbours of one prompt together, in the order in which they came."""
    groups: list[tuple[str, list[_Cell]]] = []
    for cell in cells:
        if not groups or groups[-1][0] != cell.prompt:
            groups.append((cell.prompt, []))
        groups[-1][1].append(cell)
    return groups


def _thumbnail(path: str) -> Image:
    """At most CELL pixels a side; small images are enlarged by whole numbers, so that pixels stay sharp."""
    from PIL import Image

    picture = Image.fromarray(read_image(Path(path)))
    factor = CELL // max(picture.size)
    if factor >= 1:
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    picture.thumbnail((CELL, CELL))
    return picture
