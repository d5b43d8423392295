"""mPLUG's answers as the official script has written them, for DPG-Bench's mended rules.

The script writes a line for each question into `..._detail.txt`: the grid's path, the part in pixels, the question and the
answer, with commas between them (ELLA `dpg_bench/compute_dpg_bench.py`, `compute_dpg_one_sample`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError, UsageError
from sanactl.files.content import files_digest
from sanactl.files.paths import user_path
from sanactl.files.regular import open_regular
from sanactl.scoring.questions.protocol import Asked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OfficialAnswers"]

MAX_BYTES = 2**30
_LINE = re.compile(
    r"(?P<path>.*?), \((?P<part>\d{1,6}, \d{1,6}, \d{1,6}, \d{1,6})\), (?P<question>.*), (?P<answer>[^,]*)"
)


class OfficialAnswers:
    """Recorded answers; nothing is asked. `Asking` takes them by the image's item, the part's place and the question.

    Args:
        spec: "mplug:FILE", the script's file of details.
        device, dtype: without effect.
        options: none are known.

    Raises:
        UsageError: there are options, or no file is named.
        InputError: the file cannot be read, or a line is of another form.
    """

    label = "damo/mplug_visual-question-answering_coco_large_en"
    digest = None
    batch_size = 64

    def __init__(
        self,
        spec: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        name = spec.partition(":")[2]
        if options or not name:
            raise UsageError(
                f"the VQA {spec} {'has no options' if options else 'names no file'}",
                hint="write mplug:RESULTS_detail.txt, a file of the official script",
            )
        path = user_path(name)
        self._answers: dict[tuple[str, int, str], str] = {}
        self._read(path)
        self.identity: dict[str, Any] = {"answers": files_digest([path])}

    def _read(self, path: Path) -> None:
        with open_regular(path, most=MAX_BYTES, what="file of answers") as stream:
            try:
                lines = stream.read().decode("utf-8-sig").splitlines()
            except OSError as error:
                raise InputError(f"{path}: cannot be read ({error.strerror})") from None
            except UnicodeDecodeError:
                raise InputError(f"{path}: not UTF-8 text") from None
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                raise InputError(
                    f"{path}, line {number}: no answer of the official script",
                    hint="its lines are: GRID, (x0, y0, x1, y1), QUESTION, ANSWER",
                )
            x, y, *_ = (int(part) for part in found["part"].split(","))
            item = PurePosixPath(found["path"]).name.split(".")[0]
            self._answers[item, 2 * (y > 0) + (x > 0), found["question"].strip()] = found["answer"].strip()
        if not self._answers:
            raise InputError(f"{path}: holds no answers")

    def recorded(self, item: str, place: int, asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """The probabilities, 0 or 1, of each question's answers.

        Args:
            item: the name of the grid's file up to the first dot.
            place: of the part in the grid, 0 to 3, row by row.

        Raises:
            KeyError: a question was not asked about this part.
        """
        given = [self._answers[item, place, one.question] for one in asked]
        # As the script counts: all but a "yes" is a no.
        return [
            tuple(float((answer == "yes") == (a == "yes")) for a in one.answers)
            for one, answer in zip(asked, given, strict=True)
        ]

    def answer(self, image: NDArray[np.uint8], asked: Sequence[Asked]) -> list[tuple[float, ...]]:
        """Refused: it has answers to questions about grids of the official script alone."""
        raise InputError(
            "mplug:FILE has answers about 2 x 2 grids alone", hint="use it with eval dpg --resolution"
        )
