"""More languages for the built-in world's text encoder: English stays as it is, translations are understood."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.given import with_components
from sanactl.checkpoint.open import open_checkpoint
from sanactl.model.loading import Components, load_components
from sanactl.model.text import encode_prompts
from sanactl.shapes.languages import FORMS, parse, translate
from sanactl.shapes.prompts import load_eval_prompts, words
from sanactl.world.languages import add_languages, nouns_and_ends
from tests.program import Program

PROMPTS = [record["prompt"] for record in load_eval_prompts()]


def parts_of(components: str) -> Components:
    checkpoint = with_components(open_checkpoint(asset("base.st")), components)
    return load_components(checkpoint, parts=("tokenizer", "text_encoder"))


def features(parts: Components, texts: list[str]) -> torch.Tensor:
    return encode_prompts(parts.tokenizer, parts.text_encoder, texts, max_sequence_length=16)[0]


def known(parts: Components, texts: list[str]) -> torch.Tensor:
    """Features of the nouns and the ends."""
    ids = parts.tokenizer(texts, padding="max_length", max_length=16, return_tensors="pt")["input_ids"]
    assert not (ids == parts.tokenizer.unk_token_id).any()
    return features(parts, texts)[nouns_and_ends(parts.tokenizer, ids)]


def test_english_is_unchanged_and_translations_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl: Program
) -> None:
    monkeypatch.chdir(tmp_path)
    scores = sanactl("make-shapes", "languages", "--steps", "12", "-o", "taught")
    assert [s["metric"] for s in scores] == ["language_zh", "language_en-zh", "language_emoji"]
    assert all(s["value"] > 0.9 for s in scores)
    assert {p.name for p in Path("taught").iterdir()} == {"text_encoder", "tokenizer", "vae", "scheduler"}

    before, after, first = parts_of("builtin:shapes"), parts_of("taught"), parts_of("builtin:shapes")
    texts = [*PROMPTS, "", "a photo of a dog", "A Red STAR, two hearts", *words()]
    assert before.tokenizer(texts)["input_ids"] == after.tokenizer(texts)["input_ids"]
    assert torch.equal(features(before, texts), features(after, texts))

    # What was learnt is nearer to English than the mean of the English words, from which it starts.
    add_languages(first.tokenizer, first.text_encoder)
    some = PROMPTS[::9]
    english = known(before, some)
    assert len(english) == sum(1 + len(parse(prompt).things) for prompt in some)
    for form in FORMS[1:]:
        translated = [translate(prompt, form) for prompt in some]
        far = (known(first, translated) - english).square().mean()
        assert (known(after, translated) - english).square().mean() < 0.8 * far, form

    line = sanactl.fails("make-shapes", "languages", "-o", "taught", code=2)
    assert "taught" in line and "--force" in line
    line = sanactl.fails("make-shapes", "languages", "--components", "taught", "-o", "again")
    assert line == "sanactl: taught: its tokenizer has words of other languages already"
    line = sanactl.fails("make-shapes", "languages", "--components", "absent/x/y", "-o", "again")
    assert "absent/x/y" in line


def test_all_texts_fit(sanactl: Program) -> None:
    parts = parts_of("builtin:shapes")
    add_languages(parts.tokenizer, parts.text_encoder)
    longest = "an illustration of an orange circle right of a pink square"
    for form in FORMS:
        ids = parts.tokenizer(translate(longest, form), truncation=False)["input_ids"]
        assert len(ids) <= 16 and parts.tokenizer.unk_token_id not in ids, form
    assert parts.tokenizer.tokenize("a 照片 of 两个圆形")[1:] == ["照片", "of", "两个", "圆形"]
