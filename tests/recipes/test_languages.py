"""Prompts in four languages on the built-in world in the smallest form, and again: what is done is not done twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sanactl.shapes.languages import FORMS, translate
from tests.recipes.running import run


@pytest.mark.slow
@pytest.mark.timeout(1200)  # about two minutes on 2 idle cores
def test_four_languages_as_one_script(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("languages.sh", folder, {"DRY": "1"})
    table = (folder / "table.md").read_text(encoding="utf-8").splitlines()
    assert table[0] == "| GenEval [95 %] | en | zh | en-zh | emoji |" and len(table) == 6
    prompts = [json.loads(line) for line in (folder / "prompts.jsonl").open(encoding="utf-8")]
    english = [record for record in prompts if record["prompt_form"] == "en"]
    assert len({record["tag"] for record in english}) == len(english) == 6
    for form in FORMS[1:]:
        translated = [record for record in prompts if record["prompt_form"] == form]
        for record, before in zip(translated, english, strict=True):
            assert record["prompt"] == translate(before["prompt"], form)
            assert record["include"] == before["include"] and record["prompt_original"] == before["prompt"]
    # The text encoder that learnt the other forms gives English prompts the images that they had, and others other ones.
    images = [json.loads(line) for line in (folder / "base/images.jsonl").open(encoding="utf-8")]
    for record in images:
        image = Path(record["path"]).relative_to("base")
        same = (folder / "base" / image).read_bytes() == (folder / "taught" / image).read_bytes()
        assert same == (record["prompt_form"] == "en")
    before = {p: p.stat().st_mtime_ns for p in folder.iterdir() if p.suffix in (".st", ".jsonl")}
    run("languages.sh", folder, {"DRY": "1"})
    assert {p: p.stat().st_mtime_ns for p in before} == before
