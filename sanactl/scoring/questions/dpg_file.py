"""DPG-Bench's table of questions (`dpg_bench.csv`), a row for each question about a prompt's images.

The official script (ELLA `dpg_bench/compute_dpg_bench.py`, `prepare_dpg_data`) reads it with faults, see
`official_questions`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from sanactl.errors import InputError
from sanactl.files.regular import open_regular

__all__ = [
    "Items", "Question", "fixed_questions", "item_prompts", "official_questions", "read_questions",
]  # fmt: skip

# Those that are read; the official table has `keywords`, too.
COLUMNS = (
    "item_id", "text", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip
MAX_BYTES = 256 * 2**20
_NUMBER = re.compile(r"[0-9]{1,9}(\.0+)?")


@dataclass(frozen=True)
class Question:
    """A row of the table.

    Attributes:
        where: file and line, for errors.
        item: the prompt's `item_id`.
        prompt: its text.
        number: `proposition_id`, from 1.
        parents: `dependency`: the questions that must have a yes, in the row's order; 0 stands for none.
        text: the question.
        tuple: what it is about, "entity - whole (dog)".
        broad, detailed: its categories.
    """

    where: str
    item: str
    prompt: str
    number: int
    parents: tuple[int, ...]
    text: str
    tuple: str
    broad: str
    detailed: str

    @property
    def of_tuple(self) -> str:
        """The category that the official script counts it in: what stands before the bracket."""
        return self.tuple.split("(")[0].strip()


# The questions of each item by number.
Items = dict[str, dict[int, Question]]


def read_questions(path: Path) -> list[Question]:
    """The rows in their order.

    Raises:
        InputError: the file is missing, not UTF-8 or no CSV, a column is missing, a cell is not what it should be, or
            there are no rows.
    """
    with open_regular(path, most=MAX_BYTES, what="table of questions") as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}: not UTF-8 text (byte 0x{error.object[error.start]:02x} at {error.start:,})"
            ) from None
    rows = [_question(where, cells) for where, cells in _rows(path, text)]
    if not rows:
        raise InputError(f"{path}: holds no questions")
    return rows


def _rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(file and line, cell by column) of each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise InputError(
                f"{path}: has no column {', '.join(missing)}", hint="DPG-Bench's table is dpg_bench.csv"
            )
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{where}: {len(cells)} cells where the first line has {len(header)}",
                    hint='a cell with a comma stands in quotes: "1,2"',
                )
            yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: no CSV ({error})") from None


def _question(where: str, cells: dict[str, str]) -> Question:
    item, text = cells["item_id"].strip(), cells["question_natural_language"].strip()
    for name, value in (("item_id", item), ("question_natural_language", text)):
        if not value:
            raise InputError(f"{where}: no {name}")
    number = _whole(where, "proposition_id", cells["proposition_id"])
    if number < 1:
        raise InputError(f"{where}: proposition_id is {number}; numbers begin with 1")
    parents = tuple(_whole(where, "dependency", part) for part in cells["dependency"].split(","))
    return Question(
        where, item, cells["text"], number, parents, text,
        cells["tuple"].strip(), cells["category_broad"].strip(), cells["category_detailed"].strip(),
    )  # fmt: skip


def _whole(where: str, name: str, text: str) -> int:
    if not _NUMBER.fullmatch(text.strip()):
        raise InputError(
            f"{where}: {name} is {text.strip()[:40]!r}",
            hint="it takes whole numbers" + (", 0 for no parent" if name == "dependency" else ""),
        )
    return int(text.strip().split(".")[0])


def official_questions(rows: list[Question]) -> Items:
    """The questions as the official script has them.

    The first row is skipped. Of rows with one number the last counts. If rows of an item do not follow each other, those
    of the last group alone count. Parents may be absent.
    """
    items: Items = {}
    before = ""
    for row in rows[1:]:
        if row.item != before:
            items[row.item] = {}
        items[row.item][row.number] = row
        before = row.item
    return items


def fixed_questions(rows: list[Question]) -> tuple[Items, int]:
    """All questions, parents before their children, and how many rows were there twice.

    Raises:
        InputError: one number has two questions, or a question's parent is absent, or itself, or its descendant.
    """
    items: Items = {}
    repeated = 0
    for row in rows:
        same = items.setdefault(row.item, {})
        known = same.setdefault(row.number, row)
        if known is row:
            continue
        if (known.text, known.parents) != (row.text, row.parents):
            raise InputError(
                f"{row.where}: {row.item} has a question {row.number} already, another one",
                hint="give each question of an item a number of its own",
            )
        repeated += 1
    return {item: _in_order(item, questions) for item, questions in items.items()}, repeated


def _in_order(item: str, questions: dict[int, Question]) -> dict[int, Question]:
    graph: dict[int, set[int]] = {}
    for number, row in questions.items():
        graph[number] = {*row.parents} - {0}
        for parent in graph[number]:
            if parent not in questions:
                raise InputError(f"{row.where}: depends on question {parent}, which {item} does not have")
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(map(str, error.args[1]))
        raise InputError(
            f"{questions[error.args[1][0]].where}: questions of {item} depend on each other in a circle ({circle})"
        ) from None
    return {number: questions[number] for number in order}


def item_prompts(rows: list[Question]) -> dict[str, str]:
    """The prompt of each item, in the table's order.

    Raises:
        InputError: an item has no prompt, or several.
    """
    prompts: dict[str, str] = {}
    for row in rows:
        if not row.prompt.strip():
            raise InputError(f"{row.where}: no text")
        if prompts.setdefault(row.item, row.prompt) != row.prompt:
            raise InputError(f"{row.where}: {row.item} has another text in an earlier line")
    return prompts
