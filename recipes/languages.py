"""The table of recipes/languages.sh: GenEval in four language forms, before and after."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sanactl.scoring.geneval.scores import geneval_record
from sanactl.shapes.languages import FORMS

MODELS = {
    "base": "base, its English text encoder",
    "taught": "base, text encoder that knows all forms",
    "english": "  fine-tuned on English captions",
    "four": "  fine-tuned on all four forms",
}


def scores(file: Path) -> dict[str, dict[str, Any]]:
    """GenEval's score record for each form, of image records with verdicts."""
    with file.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    images = [record for record in records if record["kind"] == "image"]
    return {form: geneval_record([r for r in images if r["prompt_form"] == form]) for form in FORMS}


def shown(found: dict[str, Any]) -> str:
    """A score with its interval, which there is from five prompts on."""
    interval = found["ci"]
    return f"{found['value']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def write_table(folder: Path) -> None:
    found = {model: scores(folder / f"{model}.geneval.jsonl") for model in MODELS}
    table = Table("GenEval [95 %]", *FORMS, title="four language forms on the built-in world")
    for model, label in MODELS.items():
        table.add_row(label, *(shown(found[model][form]) for form in FORMS))
    Console(width=118).print(table)
    lines = ["| GenEval [95 %] | " + " | ".join(FORMS) + " |", "|---" * (len(FORMS) + 1) + "|"]
    for model, label in MODELS.items():
        lines.append(f"| {label.strip()} | " + " | ".join(shown(found[model][form]) for form in FORMS) + " |")
    (folder / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_table(Path(sys.argv[-1]))
