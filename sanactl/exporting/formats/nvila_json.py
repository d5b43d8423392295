"""`nvila-json`: the dialogues that NVILA's training code reads, with SaVILA's question and the answer yes or no."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sanactl.exporting.formats.base import ImageFolders, write_lines
from sanactl.exporting.plan import ExportPlan
from sanactl.exporting.rows import Picture, Row
from sanactl.judging.dialogue import ANSWERS, DIALOGUES, IMAGE

__all__ = ["NvilaJson"]


class NvilaJson(ImageFolders):
    """`train.json` is a list of {id, image, conversations}; `image` is a path below the dataset's folder.

    Source: SANA-1.5, section 2.5 and appendix B, for the dialogue; NVILA's and LLaVA's training data for the layout.
    """

    name = "nvila-json"
    about = "`train.json` with a dialogue for each image: SaVILA's question about the prompt, and yes or no."
    needs_label = True
    tasks = ("visual-question-answering",)

    def fault(self, text: str, picture: Picture) -> str | None:
        # NVILA's code counts the places of images in the text.
        return f"its prompt has {IMAGE} in it, which stands for an image there" if IMAGE in text else None

    def index_files(self, plan: ExportPlan) -> tuple[str, ...]:
        return ("train.json",)

    def write_index(self, folder: Path, plan: ExportPlan) -> None:
        rows = (_example(name, row) for name, row in self.placed(plan))
        write_lines(folder / "train.json", rows, array=True)

    def data_files(self) -> list[str]:
        return ["train.json"]


def _example(name: str, row: Row) -> dict[str, Any]:
    answer = ANSWERS[0] if row.label else ANSWERS[1]
    turns = [
        {"from": "human", "value": DIALOGUES["paper"].question(row.text)},
        {"from": "gpt", "value": answer},
    ]
    return {"id": row.key, "image": name, "conversations": turns}
