"""The built-in world's prompts in the paper's four language forms, by rules: no model, no chance, no error.

The paper had GPT-4 write English captions as pure Chinese, an English-Chinese mixture and a text with emoji (appendix C,
figures 13 to 15). The prompts of this world have a closed grammar, so here it is a translation that is always right:

    a photo of an orange star left of a blue square     en
    一张照片，上面有一个橙色的星形在一个蓝色的正方形的左边    zh
    a 照片 of an orange 星形 left of a blue 正方形          en-zh
    a 📷 of an orange ⭐ ⬅️ of a 🟦                       emoji

Two prompts of `sanactl.shapes.prompts` never become the same text in any form: each form keeps what each word says.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from sanactl.errors import InputError, UsageError
from sanactl.shapes.vocabulary import COLORS, MEDIA, NUMBERS, PLURALS, RELATIONS, SHAPES, with_article

__all__ = ["FORMS", "Caption", "Thing", "detail", "foreign_words", "parse", "translate"]

FORMS: tuple[str, ...] = ("en", "zh", "en-zh", "emoji")

# All six shapes take the measure word 个.
_SHAPES_ZH = dict(zip(SHAPES, ("圆形", "正方形", "三角形", "星形", "心形", "十字形"), strict=True))
_COLORS_ZH = dict(
    zip(
        COLORS,
        ("红色", "橙色", "黄色", "绿色", "蓝色", "紫色", "粉色", "棕色", "黑色", "白色"),
        strict=True,
    )
)
_COUNTS_ZH = {1: "一个", 2: "两个", 3: "三个", 4: "四个"}
_RELATIONS_ZH = dict(zip(RELATIONS, ("左边", "右边", "上方", "下方"), strict=True))
# Each with its measure word: sheets (张) and works of art (幅).
_MEDIA_ZH = dict(
    zip(
        MEDIA,
        (
            ("张", "照片"),
            ("张", "图片"),
            ("幅", "图像"),
            ("幅", "图画"),
            ("幅", "绘画"),
            ("幅", "素描"),
            ("幅", "版画"),
            ("幅", "渲染图"),
            ("幅", "插画"),
            ("张", "海报"),
        ),
        strict=True,
    )
)

# An emoji for a shape of any colour, and those that show shape and colour at once. There is none for every pair.
_SHAPES_EMOJI = dict(zip(SHAPES, ("⭕", "🔲", "🔺", "⭐", "💟", "➕"), strict=True))
_PAIRS_EMOJI: dict[str, dict[str, str | None]] = {
    "circle": dict(zip(COLORS, ("🔴", "🟠", "🟡", "🟢", "🔵", "🟣", None, "🟤", "⚫", "⚪"), strict=True)),
    "square": dict(zip(COLORS, ("🟥", "🟧", "🟨", "🟩", "🟦", "🟪", None, "🟫", "⬛", "⬜"), strict=True)),
    "heart": dict(zip(COLORS, ("❤️", "🧡", "💛", "💚", "💙", "💜", "🩷", "🤎", "🖤", "🤍"), strict=True)),
}
_COUNTS_EMOJI = {2: "2️⃣", 3: "3️⃣", 4: "4️⃣"}
_RELATIONS_EMOJI = {"left of": "⬅️ of", "right of": "➡️ of", "above": "⬆️", "below": "⬇️"}
_MEDIA_EMOJI = {"photo": "📷", "picture": "🖼️", "drawing": "✏️", "painting": "🎨"}

_NUMBER_OF = {word: count for count, word in NUMBERS.items()}
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Thing:
    """Shapes of one kind in a prompt.

    Attributes:
        shape: of `SHAPES`.
        color: of `COLORS`, or None where the prompt names none.
        count: 1 to 4.
    """

    shape: str
    color: str | None = None
    count: int = 1

    @property
    def english(self) -> str:
        color = f"{self.color} " if self.color else ""
        if self.count == 1:
            return with_article(color + self.shape)
        return f"{NUMBERS[self.count]} {color}{PLURALS[self.shape]}"


@dataclass(frozen=True)
class Caption:
    """What a prompt says.

    Attributes:
        medium: what it calls the image, of `MEDIA`.
        article: whether the medium has an article.
        things: one thing, or two.
        relation: of `RELATIONS`, of the first thing to the second; None where "and" joins them.
    """

    medium: str
    article: bool
    things: tuple[Thing, ...]
    relation: str | None = None

    @property
    def english(self) -> str:
        """The prompt, in the words of `sanactl.shapes.prompts`."""
        medium = with_article(self.medium) if self.article else self.medium
        return f"{medium} of " + f" {self.relation or 'and'} ".join(t.english for t in self.things)


def parse(prompt: str) -> Caption:
    """Reads a prompt of the built-in world; upper case and further spaces do not matter.

    The grammar is a little wider than that of `sanactl.shapes.prompts`: any thing may have a colour and a number, as in
    "a photo of three red stars above a heart".

    Raises:
        InputError: it is not one.
    """
    words = prompt.lower().split()
    article = words[:1] in (["a"], ["an"])
    rest = words[article:]
    if len(rest) < 2 or rest[0] not in MEDIA or rest[1] != "of":
        raise _fault(prompt, "it does not begin like 'a photo of'")
    first, left = _thing(prompt, rest[2:])
    if not left:
        return Caption(rest[0], article, (first,))
    joint = next((j for j in (*RELATIONS, "and") if left[: len(j.split())] == j.split()), None)
    if joint is None:
        raise _fault(prompt, f"after {first.english!r} there is {left[0][:_LONGEST_SHOWN]!r}")
    second, left = _thing(prompt, left[len(joint.split()) :])
    if left:
        raise _fault(prompt, f"after {second.english!r} there is {left[0][:_LONGEST_SHOWN]!r}")
    return Caption(rest[0], article, (first, second), None if joint == "and" else joint)


def _thing(prompt: str, words: list[str]) -> tuple[Thing, list[str]]:
    """The shapes at the beginning of the words, and the words after them."""
    if not words:
        raise _fault(prompt, "it ends where a shape is expected")
    count = 1 if words[0] in ("a", "an") else _NUMBER_OF.get(words[0], 0)
    color = words[1] if words[1:] and words[1] in COLORS else None
    at = 2 if color else 1
    name = words[at] if len(words) > at else ""
    shape = _SINGULAR.get(name) if count > 1 else name
    if not count or shape not in SHAPES:
        found = " ".join(words[: at + 1])[:_LONGEST_SHOWN]
        raise _fault(
            prompt, f"{found!r} is not one shape ('a red star') or a number of them ('three circles')"
        )
    return Thing(shape, color, count), words[at + 1 :]


def _fault(prompt: str, why: str) -> InputError:
    shown = prompt if len(prompt) <= _LONGEST_SHOWN else f"{prompt[:_LONGEST_SHOWN]}..."
    return InputError(
        f"{shown!r} is not a prompt of the built-in world: {why}",
        hint="sanactl prompts shapes shows its prompts",
    )


def translate(prompt: str, form: str) -> str:
    """A prompt of the built-in world in another language form.

    Args:
        prompt: in English (`parse`).
        form: of `FORMS`: "en" (as it is, in the world's own spelling), "zh" (Chinese), "en-zh" (English with Chinese
            words; which words is a function of the prompt), "emoji" (English with emoji for some words).

    Raises:
        InputError: the prompt is not one of the built-in world.
        UsageError: there is no such form.
    """
    if form not in FORMS:
        raise UsageError(f"no language form {form!r}", hint=f"one of {', '.join(FORMS)}")
    caption = parse(prompt)
    if form == "zh":
        return _chinese(caption)
    if form == "en-zh":
        return _mixed(caption)
    return _emoji(caption) if form == "emoji" else caption.english


def detail(prompt: str) -> str:
    """A prompt of the built-in world with more detail, in English and in the world's own words.

    Shapes without a colour get one, and two coloured shapes without a relation get one. Which is a function of the
    prompt. An image of the detailed prompt is right for the original one. One coloured shape has nothing to be added
    in the 43 words, so its prompt comes back as it is.

    Raises:
        InputError: the prompt is not one of the built-in world.
    """
    caption = parse(prompt)
    things = list(caption.things)
    if all(thing.color for thing in things):
        if len(things) == 1 or caption.relation:
            return caption.english
        return replace(caption, relation=RELATIONS[_draw(caption, "relation", len(RELATIONS))]).english
    for place, thing in enumerate(things):
        if thing.color is None:
            free = [color for color in COLORS if color not in {other.color for other in things}]
            things[place] = replace(thing, color=free[_draw(caption, f"color {place}", len(free))])
    return replace(caption, things=tuple(things)).english


def foreign_words() -> dict[str, str]:
    """Every word and sign of the forms that English prompts do not have, with the English words that it stands for.

    Sorted: it is what a tokenizer has to learn. Chinese is written without spaces; to cut it at the longest of these
    words gives its words.
    """
    found = {word: shape for words in (_SHAPES_ZH, _SHAPES_EMOJI) for shape, word in words.items()}
    found.update({f"{word}的": color for color, word in _COLORS_ZH.items()})
    found.update({word: NUMBERS.get(count, "a") for count, word in _COUNTS_ZH.items()})
    found.update({sign: NUMBERS[count] for count, sign in _COUNTS_EMOJI.items()})
    found.update({f"的{word}": relation for relation, word in _RELATIONS_ZH.items()})
    found.update({sign.split()[0]: relation for relation, sign in _RELATIONS_EMOJI.items()})
    found.update({word: medium for medium, (_, word) in _MEDIA_ZH.items()})
    found.update({sign: medium for medium, sign in _MEDIA_EMOJI.items()})
    found.update({"一张": "a", "一幅": "a", "，上面有": "of", "：": "of", "和": "and", "在": "of"})
    for shape, signs in _PAIRS_EMOJI.items():
        found.update({sign: f"{color} {shape}" for color, sign in signs.items() if sign})
    return dict(sorted(found.items()))


def _draw(caption: Caption, what: str, among: int) -> int:
    """A number below `among` that depends on the prompt and on what is drawn; the same on every machine."""
    digest = hashlib.sha256(f"sanactl shapes 1|{what}|{caption.english}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % among


def _thing_zh(thing: Thing) -> str:
    color = f"{_COLORS_ZH[thing.color]}的" if thing.color else ""
    return _COUNTS_ZH[thing.count] + color + _SHAPES_ZH[thing.shape]


def _chinese(caption: Caption) -> str:
    measure, medium = _MEDIA_ZH[caption.medium]
    begin = f"一{measure}{medium}，上面有" if caption.article else f"{medium}："
    things = [_thing_zh(thing) for thing in caption.things]
    if caption.relation:
        return f"{begin}{things[0]}在{things[1]}的{_RELATIONS_ZH[caption.relation]}"
    return begin + "和".join(things)


def _mixed(caption: Caption) -> str:
    """English sentences with Chinese words: always the shapes, by chance their colours, counts and the medium."""
    words = []
    for place, thing in enumerate(caption.things):
        number = NUMBERS.get(thing.count, "a")
        shape, way = _SHAPES_ZH[thing.shape], _draw(caption, f"words {place}", 3)
        if way == 0:
            words.append(_thing_zh(thing))
        elif way == 1 or not thing.color:
            color = f"{_COLORS_ZH[thing.color]}的" if thing.color else ""
            words.append(f"{number} {color}{shape}")
        else:
            article = with_article(thing.color) if thing.count == 1 else f"{number} {thing.color}"
            words.append(f"{article} {shape}")
    medium = _MEDIA_ZH[caption.medium][1] if _draw(caption, "medium", 2) else None
    return _begin(caption, medium) + f" {caption.relation or 'and'} ".join(words)


def _emoji(caption: Caption) -> str:
    """English sentences with emoji: for every shape, number and direction, for shape and colour at once, for some media."""
    words = []
    for thing in caption.things:
        number = _COUNTS_EMOJI.get(thing.count, "a")
        pair = _PAIRS_EMOJI.get(thing.shape, {}).get(thing.color or "")
        if pair or not thing.color:
            words.append(f"{number} {pair or _SHAPES_EMOJI[thing.shape]}")
        else:
            article = with_article(thing.color) if thing.count == 1 else f"{number} {thing.color}"
            words.append(f"{article} {_SHAPES_EMOJI[thing.shape]}")
    joint = _RELATIONS_EMOJI[caption.relation] if caption.relation else "and"
    return _begin(caption, _MEDIA_EMOJI.get(caption.medium)) + f" {joint} ".join(words)


def _begin(caption: Caption, medium: str | None) -> str:
    """ "a photo of ", with another word for the medium."""
    if medium is None:
        medium = with_article(caption.medium) if caption.article else caption.medium
    elif caption.article:
        medium = f"a {medium}"
    return f"{medium} of "
