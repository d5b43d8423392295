"""The built-in stream's captions in several language forms."""

from __future__ import annotations

import pytest

from sanactl.data import TableSource, open_training_data
from sanactl.errors import InputError
from sanactl.shapes.languages import translate


def opened(captions: str | None) -> TableSource:
    source = open_training_data("builtin:shapes", seed=3, height=64, width=64, captions=captions)
    assert isinstance(source, TableSource)
    return source


def test_each_picture_has_a_caption_in_one_of_the_forms() -> None:
    plain = opened(None)
    mixed = opened("en:2,zh,emoji")
    positions = range(40)
    (images, prompts), (same, captions) = plain.batch(positions), mixed.batch(positions)
    assert (images == same).all()
    forms = [
        [form for form in ("en", "zh", "emoji") if translate(prompt, form) == caption]
        for prompt, caption in zip(prompts, captions, strict=True)
    ]
    assert all(len(found) == 1 for found in forms)
    assert {found[0] for found in forms} == {"en", "zh", "emoji"}
    # A run is not continued with other captions; without --captions nothing has changed.
    assert plain.identity == "builtin:shapes" != mixed.identity
    assert opened("prompt").batch(positions)[1] == prompts


def test_a_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"builtin:shapes: has no column 'fr' .*prompt, en, zh, en-zh, emoji"
    ):
        open_training_data(None, captions="fr")
