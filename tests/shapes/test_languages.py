"""The language forms of the built-in world's prompts: right words, no two prompts with one text, clear errors."""

from __future__ import annotations

import re

import pytest

from sanactl.errors import InputError, UsageError
from sanactl.shapes.languages import FORMS, detail, foreign_words, parse, translate
from sanactl.shapes.prompts import all_prompts, contents, record_of, words
from sanactl.shapes.vocabulary import PHRASES, TASKS

# A quarter of the evaluation split, and all of its smallest tasks.
EVAL = [record["prompt"] for record in all_prompts("eval")]
EVAL = [*EVAL[:400], *EVAL[400::4]]
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.mark.parametrize(
    ("prompt", "zh", "emoji"),
    [
        ("a photo of a circle", "一张照片，上面有一个圆形", "a 📷 of a ⭕"),
        ("sketch of a star and a heart", "素描：一个星形和一个心形", "sketch of a ⭐ and a 💟"),
        ("an image of two crosses", "一幅图像，上面有两个十字形", "an image of 2️⃣ ➕"),
        ("a print of three squares", "一幅版画，上面有三个正方形", "a print of 3️⃣ 🔲"),
        ("a poster of an orange star", "一张海报，上面有一个橙色的星形", "a poster of an orange ⭐"),
        ("picture of a pink circle", "图片：一个粉色的圆形", "🖼️ of a pink ⭕"),
        (
            "a photo of a triangle left of a square",
            "一张照片，上面有一个三角形在一个正方形的左边",
            "a 📷 of a 🔺 ⬅️ of a 🔲",
        ),
        ("painting of a cross above a star", "绘画：一个十字形在一个星形的上方", "🎨 of a ➕ ⬆️ a ⭐"),
        (
            "drawing of a red circle and a black heart",
            "图画：一个红色的圆形和一个黑色的心形",
            "✏️ of a 🔴 and a 🖤",
        ),
    ],
)
def test_chinese_and_emoji(prompt: str, zh: str, emoji: str) -> None:
    assert translate(prompt, "zh") == zh
    assert translate(prompt, "emoji") == emoji
    assert translate(prompt, "en") == prompt


def test_the_mixture_is_english_with_chinese_words() -> None:
    shares = []
    for prompt in EVAL:
        text = translate(prompt, "en-zh")
        assert CHINESE.search(text) and re.search(r"\b(a|of|and|two|three|four)\b", text), text
        for shape in ("圆形", "正方形", "三角形", "星形", "心形", "十字形"):
            assert (shape in text) == (shape in translate(prompt, "zh")), text
        shares.append(len(CHINESE.findall(text)) / len(text))
    # Which words are Chinese differs from prompt to prompt.
    assert min(shares) < 0.12 and max(shares) > 0.45
    assert translate("a photo of an orange star left of a blue square", "en-zh") == (
        "a 照片 of an orange 星形 left of a blue 正方形"
    )


@pytest.mark.parametrize("form", FORMS)
def test_no_two_prompts_have_one_text(form: str) -> None:
    # Every content with one phrase, and every phrase with all contents but those of color_attr.
    prompts = {record_of(tag, c, p)["prompt"] for tag in TASKS for c in contents(tag) for p in PHRASES[1::20]}
    prompts |= {
        record_of(tag, c, p)["prompt"]
        for tag in TASKS
        if tag != "color_attr"
        for c in contents(tag)
        for p in PHRASES
    }
    assert len({translate(prompt, form) for prompt in prompts}) == len(prompts)


def test_the_list_of_foreign_words_is_complete() -> None:
    """Cut at the longest word first, nothing is left of a text but those words and the world's own."""
    foreign = foreign_words()
    pattern = re.compile("|".join(map(re.escape, sorted(foreign, key=len, reverse=True))))
    used: set[str] = set()
    for prompt in EVAL:
        for form in FORMS:
            text = translate(prompt, form)
            used.update(pattern.findall(text))
            assert set(pattern.sub(" ", text).split()) <= set(words()), text
    assert used == set(foreign)


def test_details_are_added_and_nothing_is_changed() -> None:
    same = 0
    for prompt in EVAL:
        more = detail(prompt)
        before, after = parse(prompt), parse(more)
        assert set(more.split()) <= set(words())
        assert (before.medium, before.article) == (after.medium, after.article)
        assert before.relation in (None, after.relation)
        for a, b in zip(before.things, after.things, strict=True):
            assert (a.shape, a.count) == (b.shape, b.count) and a.color in (None, b.color)
            assert b.color
        same += more == prompt
        assert (more == prompt) == (len(before.things) == 1 and before.things[0].color is not None)
    assert 0 < same < len(EVAL) / 10
    assert detail("a photo of three circles") == detail("a photo of three circles")


def test_case_and_spaces_do_not_matter() -> None:
    assert translate("  A Photo  of\tTWO stars ", "zh") == "一张照片，上面有两个星形"


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("", "does not begin like"),
        (
            "a cat",
            "'a cat' is not a prompt of the built-in world: it does not begin like 'a photo of'; sanactl",
        ),
        ("a photo", "does not begin like"),
        ("a photo of", "ends where a shape is expected"),
        ("a photo of a star and", "ends where a shape is expected"),
        ("a photo of a dog", "'a dog' is not one shape"),
        ("a photo of two star", "'two star' is not one shape"),
        ("a photo of five stars", "'five stars' is not one shape"),
        ("a photo of a star on a heart", "after 'a star' there is 'on'"),
        ("a photo of a star and a heart and a cross", "after 'a heart' there is 'and'"),
        ("一张照片，上面有一个圆形", "does not begin like"),
        ("a photo of a star " + "x" * 100_000, "after 'a star' there is 'xxx"),
    ],
)
def test_other_prompts_are_refused(prompt: str, why: str) -> None:
    for act in (lambda: translate(prompt, "zh"), lambda: detail(prompt)):
        with pytest.raises(InputError) as error:
            act()
        assert why in str(error.value) and len(str(error.value)) < 400


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="no language form 'fr'"):
        translate("a photo of a star", "fr")
