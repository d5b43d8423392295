"""What passes as a translation or a rewriting, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from sanactl.prompts.checks import Wanted, answer_text, fault_of
from sanactl.prompts.geneval.vocabulary import COLORS, OBJECTS
from sanactl.prompts.lexicon import chinese, emoji
from sanactl.prompts.llm.protocol import Reply
from sanactl.prompts.templates import FORMS, filled, form_template, style_template
from sanactl.shapes.vocabulary import SHAPES

DOGS = {"include": [{"class": "dog", "count": 2, "color": "red"}]}
KNIFE = {"include": [{"class": "knife", "count": 3}]}


def fault(prompt: str, form: str | None, answer: str, record: Any = None, **more: Any) -> str | None:
    wanted = Wanted(prompt, form, 2000 if form is None else None, form is None, record or {})
    return fault_of(Reply(answer, **more), answer_text(answer), wanted)


GOOD = [
    ("a photo of two red dogs", "zh", "一张两只红色的狗的照片", DOGS),
    ("a photo of two red dogs", "zh", "两只红狗", DOGS),
    ("a photo of two red dogs", "en-zh", "a photo of 两只红色的狗", DOGS),
    ("a photo of two red dogs", "en-zh", "a 照片 of two red dogs", DOGS),
    ("a photo of two red dogs", "emoji", "a photo of two 🔴 🐶", DOGS),
    ("a photo of two red dogs", "emoji", "a photo of 2️⃣ ❤️ 🐕", DOGS),
    ("a photo of two red dogs", "emoji", "a 📷 of red 🐶🐶", DOGS),
    ("three knifes", "zh", "三把刀", KNIFE),
    ("three knifes", None, "Three gleaming knives on a wooden table", KNIFE),
    ("a photo of two red dogs", None, "A pair of red dogs runs over a meadow in the evening sun", DOGS),
    ('a sign that says "OPEN 24"', "zh", "一块写着“OPEN 24”的牌子", None),
    ("a poster with 2025 in gold", "zh", "一张金色 2025 的海报", None),
    ("an iPhone on a desk in the morning light", "zh", "晨光中桌上的一部 iPhone", None),
    ("两只狗", "en", "two dogs in the snow", None),
    ("一张两只狗的照片", None, "一张照片：两只狗在雪地里奔跑，夕阳照在它们身上", None),
    ("Sure, a dog", None, "Sure, a dog in the sun", None),
    ("a bench", None, "<think>What now?\nA bench.</think>\nA bench of old wood in a garden", None),
    ("a bench", None, 'Enhanced: "A bench of old wood in a garden"', None),
    ("a bench", None, "Great mountains behind a bench, a note of music in the air", None),
    ("a dog", "emoji", "🐶", None),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "form", "answer", "record"), GOOD)
def test_good_answers_pass(prompt: str, form: str | None, answer: str, record: Any) -> None:
    assert fault(prompt, form, answer, record) is None


BAD = [
    ("a photo of two red dogs", "zh", "一张三只红色的狗的照片", DOGS, "the number two"),
    ("a photo of two red dogs", "zh", "一张两只蓝色的狗的照片", DOGS, "the word 'red'"),
    ("a photo of two red dogs", "zh", "一张两只红色的猫的照片", DOGS, "the word 'dog'"),
    ("a photo of two red dogs", "zh", "a photo of two red dogs", DOGS, "no Chinese characters"),
    ("a photo of two red dogs", "zh", "a photo of two red 狗", DOGS, "of the answer is Chinese"),
    ("a photo of two red dogs", "zh", "二匹の赤い犬の写真", DOGS, "Japanese or Korean"),
    ("a photo of two red dogs", "en-zh", "两只红色的狗的照片", DOGS, "no English"),
    ("a photo of two red dogs", "en-zh", "a photo of two red dogs", DOGS, "no Chinese"),
    ("a photo of two red dogs", "emoji", "a photo of two red dogs", DOGS, "no emoji"),
    ("a photo of two red dogs", "emoji", "照片 two 🔴 🐶", DOGS, "Chinese characters"),
    ("a photo of two red dogs", "emoji", "a photo of two 🔴 🐱", DOGS, "the word 'dog'"),
    ("a photo of two red dogs", "emoji", "📷✌️🔴🐶🐶", DOGS, "all emoji"),
    ("a photo of two red dogs", None, "A photo of two red animals on a wide green meadow", DOGS, "the word 'dog'"),
    ("a photo of two red dogs", None, "a red dog", DOGS, "shorter than the prompt"),
    ("a photo of two red dogs", None, "一张两只红色的狗在草地上的照片，阳光明媚，微风轻拂，花朵盛开", DOGS, "is in Chinese"),
    ("a photo of a dog", None, "Here is the rewritten prompt: a dog on a meadow", None, "begins with a comment"),
    ("a photo of a dog", None, "Sure! A photo of a dog on a meadow", None, "begins with a comment"),
    ("a photo of a dog", "zh", "好的，一张狗的照片", None, "begins with a comment"),
    ("a photo of a dog", "zh", "抱歉，我无法翻译。", None, "the model refused"),
    ("a photo of a dog", None, "I'm sorry, but I can't help with that request", None, "the model refused"),
    ("a photo of a dog", None, "A dog on a meadow. Let me know if it should be longer!", None, "has a remark"),
    ("a photo of a dog", None, "**A dog** on a meadow in the sun", None, "Markdown"),
    ("a photo of a dog", None, "A dog\non a meadow in the sun", None, "several lines"),
    ("a photo of a dog", None, "A dog on a meadow\x07 in the sun", None, "control characters"),
    ("a photo of a dog", None, "A dog on a meadow \ufffd in the sun", None, "broken characters"),
    ("a photo of a dog", None, "<think>I have to think about this dog for long", None, "thoughts"),
    ("a photo of a dog", None, "A dog " * 500, None, "characters, more than 2,000"),
    ("a photo of a dog on a meadow", "zh", "狗", None, "some of the prompt is missing"),
    ('a sign that says "OPEN 24"', "zh", "一块写着“营业 24”的牌子", None, "quoted text 'OPEN 24'"),
    ("a poster with 2025 in gold", "zh", "一张金色的海报", None, "the number 2025"),
    ("a dog", "zh", "", None, "empty"),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "form", "answer", "record", "said"), BAD)
def test_bad_answers_do_not(prompt: str, form: str | None, answer: str, record: Any, said: str) -> None:
    assert said in (fault(prompt, form, answer, record) or "passed")


def test_why_the_model_ended_counts() -> None:
    assert (
        fault("a dog", None, "A dog on a", finish="length", tokens_out=7) == "the answer was cut at 7 tokens"
    )
    assert "content filter" in (fault("a dog", None, "A dog", finish="content_filter") or "")
    assert fault("a dog", None, "", refusal="400 no") == "400 no"


def test_the_dictionary_has_every_class_and_colour() -> None:
    for name in (*OBJECTS, *COLORS, *SHAPES):
        assert chinese(name) and emoji(name), name
        assert (
            fault(
                f"a photo of a {name}", "zh", f"一张{chinese(name)[0]}的照片", {"include": [{"class": name}]}
            )
            is None
        )
    # No name stands for two colours.
    names = [name for color in COLORS for name in chinese(color)]
    assert len(set(names)) == len(names)


def test_templates_have_one_place_for_the_prompt() -> None:
    for template in (*map(form_template, FORMS), style_template("detail")[1], style_template("chi")[1]):
        assert template.count("{prompt}") == 1
        assert filled(template, "a {dog} {prompt}").count("a {dog} {prompt}") == 1
