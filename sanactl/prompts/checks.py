"""Checks of what a language model has made of a prompt: is it that, and does it say what the prompt says?

They find what can be found without understanding: comments in place of the text, the wrong script, a number, a quoted
text, a class or a colour that is lost. A wrong translation with all the right words passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sanactl.prompts.lexicon import chinese, emoji
from sanactl.prompts.llm.protocol import Reply
from sanactl.prompts.scripts import HAN, count_scripts

__all__ = ["Wanted", "answer_text", "fault_of"]

_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_LABEL = re.compile(
    r"\A(?:(?:enhanced|rewritten|translated|detailed)(?: prompt)?|translation|译文|翻译|改写)\s*[:：]\s*",
    re.I,
)
_QUOTES = {'"': '"', "“": "”", "「": "」", "'": "'", "`": "`"}
_PREAMBLE = re.compile(
    r"\A(?:(?:sure|certainly|of course|okay|ok|absolutely|great)[!,.:]|"
    r"(?:here(?:'s|’s| is| are| you)|this is|as requested|the (?:translat|rewrit|enhanced)\w*)\b.{0,80}:|"
    r"(?:user prompt|prompt|output|answer|result)\s*:|"
    r"(?:好的|当然)[，。！,!]|以下是|这是(?:翻译|改写)|没问题)",
    re.I,
)
_REFUSAL = re.compile(
    r"\A(?:i(?:'m|’m| am)? (?:sorry|unable|afraid|can(?:'t|’t|not)|won(?:'t|’t)|cannot)|sorry\b|i apologi[sz]e|as an ai\b|"
    r"unfortunately,? i\b|抱歉|对不起|很抱歉|我无法|我不能|作为(?:一个)?(?:AI|人工智能))",
    re.I,
)
_REMARK = re.compile(r"\b(?:note|explanation)\s*:|\blet me know\b|\bi hope this\b|（?注[:：]", re.I)
_MARKDOWN = re.compile(r"```|\A\s*(?:#{1,6} |[-*+>] |\d+\. )|\*\*[^*]+\*\*|\A\s*\|")
_QUOTED = re.compile(
    r'"([^"\n]{1,200})"|“([^”\n]{1,200})”|「([^」\n]{1,200})」|(?<!\w)\'([^\'\n]{2,200})\'(?!\w)'
)
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")
_KEYCAP = re.compile("([0-9])\ufe0f?\u20e3")
_NUMBERS = {
    "two": (2, "两二双俩2", ("2", "pair", "twin", "both", "couple")),
    "three": (3, "三3", ("3", "trio")),
    "four": (4, "四4", ("4",)),
    "five": (5, "五5", ("5",)),
    "six": (6, "六6", ("6",)),
    "seven": (7, "七7", ("7",)),
    "eight": (8, "八8", ("8",)),
    "nine": (9, "九9", ("9",)),
    "ten": (10, "十", ("10",)),
}
_SPELLED = {digits: word for word, (number, _, _) in _NUMBERS.items() for digits in [str(number)]}


@dataclass(frozen=True)
class Wanted:
    """What an answer must be.

    Attributes:
        prompt: that it is made of.
        form: the language form; None keeps the prompt's own.
        longest: characters; None for a translation's bound, three times the prompt and 100.
        longer: whether it may not be shorter than the prompt.
        record: the prompt's record, whose `include` names classes and colours to be kept.
    """

    prompt: str
    form: str | None
    longest: int | None
    longer: bool
    record: Mapping[str, Any]


def answer_text(text: str) -> str:
    """An answer without what stands around it: thoughts, a label such as "Enhanced:", quotation marks around all of it."""
    text = _LABEL.sub("", _THOUGHT.sub("", text).strip()).strip()
    close = _QUOTES.get(text[:1])
    if close and len(text) > 2 and text.endswith(close) and not set(text[1:-1]) & {text[0], close}:
        text = text[1:-1].strip()
    return text


def fault_of(reply: Reply, text: str, wanted: Wanted) -> str | None:
    """What is wrong with an answer, in words that the user and the model understand; None for a good one.

    Args:
        reply: the model's.
        text: its `answer_text`.
        wanted: what was asked for.
    """
    if reply.refusal is not None:
        return reply.refusal
    if reply.finish == "content_filter":
        return "the model refused: its content filter"
    if reply.finish == "length":
        return f"the answer was cut at {reply.tokens_out or 'its limit of'} tokens"
    if not text:
        return "the answer is empty"
    checks = (_comment, _length, _script, _quotes, _numbers, _words)
    return next((fault for check in checks if (fault := check(text, wanted)) is not None), None)


def _comment(text: str, wanted: Wanted) -> str | None:
    prompt = wanted.prompt.strip()
    if _REFUSAL.match(text) and not _REFUSAL.match(prompt):
        return f"the model refused: {text[:60]!r}"
    if "\n" in text or "\r" in text:
        return "the answer has several lines"
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text):
        return "the answer has control characters"
    if "\ufffd" in text and "\ufffd" not in prompt:
        return "the answer has broken characters"
    if "</think>" in text or "<think>" in text:
        return "the answer holds the model's thoughts"
    if (found := _MARKDOWN.search(text)) and not _MARKDOWN.search(prompt):
        return f"the answer has marks of Markdown ({found[0].strip()[:12]})"
    if (found := _PREAMBLE.match(text)) and not prompt.lower().startswith(found[0].lower()):
        return f"the answer begins with a comment ({found[0][:30]!r})"
    if (found := _REMARK.search(text)) and not _REMARK.search(prompt):
        return f"the answer has a remark in it ({found[0].strip()[:30]!r})"
    return None


def _length(text: str, wanted: Wanted) -> str | None:
    size, whole = len(text), len(wanted.prompt.strip())
    most = wanted.longest if wanted.longest is not None else 3 * whole + 100
    if size > most:
        return f"the answer has {size:,} characters, more than {most:,}"
    if wanted.longer and size < whole:
        return f"the answer is shorter than the prompt ({size:,} and {whole:,} characters)"
    least = whole // 8 if wanted.form == "zh" else whole // 4
    if size < least and not wanted.longer:
        return f"the answer has {size:,} characters, less than {least:,}: some of the prompt is missing"
    return None


def _script(text: str, wanted: Wanted) -> str | None:
    # Quoted text stays as it is in every form.
    found, before = count_scripts(_QUOTED.sub(" ", text)), count_scripts(_QUOTED.sub(" ", wanted.prompt))
    if found.other > before.other:
        return "the answer has Japanese or Korean characters"
    form = wanted.form
    if form is None:  # the prompt's own
        if before.chinese < 0.1 and found.chinese > 0.1:
            return "the answer is in Chinese, and the prompt is not"
        if before.chinese > 0.9 and found.chinese < 0.7:
            return "the answer is not in Chinese, as the prompt is"
        return None
    if form == "en":
        return "the answer has Chinese characters" if found.han else None
    if form == "zh":
        if not found.han:
            return "the answer has no Chinese characters"
        return f"only {found.chinese:.0%} of the answer is Chinese" if found.chinese < 0.7 else None
    if form == "en-zh":
        if not found.han or not found.latin:
            return f"the answer has no {'English' if found.han else 'Chinese'} in it"
        return None
    if not found.emoji:
        return "the answer has no emoji"
    if found.han > before.han:
        return "the answer has Chinese characters"
    return "the answer is all emoji" if not found.latin and before.latin > 2 else None


def _quotes(text: str, wanted: Wanted) -> str | None:
    for match in _QUOTED.finditer(wanted.prompt):
        inside = next(group for group in match.groups() if group is not None)
        if inside.strip() not in text:
            return f"the quoted text {inside[:60]!r} is not in the answer as it is"
    return None


def _numbers(text: str, wanted: Wanted) -> str | None:
    plain = _KEYCAP.sub(r"\1", text)
    digits = set(_DIGITS.findall(plain))
    lower = plain.lower()
    for number in _DIGITS.findall(_KEYCAP.sub(r"\1", wanted.prompt)):
        word = _SPELLED.get(number)
        if number not in digits and not (word and _has_number(lower, word)):
            return f"the number {number} is not in the answer"
    unquoted = _QUOTED.sub(" ", wanted.prompt).lower()
    for word in _NUMBERS:
        if re.search(rf"\b{word}\b", unquoted) and not _has_number(lower, word):
            return f"the number {word} is not in the answer"
    return None


def _has_number(text: str, word: str) -> bool:
    number, han, others = _NUMBERS[word]
    if re.search(rf"\b(?:{'|'.join((word, *others))})(?:s|th)?\b", text) or any(c in text for c in han):
        return True
    # The picture itself so many times: three apples as three of them.
    return re.search(rf"([^\w\s.,!])(?:\ufe0f?\s?\1){{{number - 1}}}", text) is not None


def _words(text: str, wanted: Wanted) -> str | None:
    """Classes and colours of `include`, as far as the prompt itself names them."""
    lower, prompt = text.lower(), wanted.prompt.lower()
    bare = lower.replace("\ufe0f", "")
    for clause in wanted.record.get("include") or ():
        for name in (clause.get("class"), clause.get("color")):
            if not isinstance(name, str) or not _named(name, prompt):
                continue
            others: tuple[str, ...] = ()
            if wanted.form in ("zh", "en-zh"):
                others = chinese(name)
            elif wanted.form == "emoji":
                others = emoji(name)
            elif HAN.search(wanted.prompt):
                others = chinese(name)
            if wanted.form == "zh" and not others:
                continue  # no dictionary has it
            if not _named(name, lower) and not any(word in bare for word in others):
                return f"the word {name!r} is not in the answer"
    return None


def _named(name: str, text: str) -> bool:
    """Whether an English name is in a text, in the singular or the plural."""
    last = name.lower()
    stem = last[:-2] if last.endswith("fe") else last  # knives
    return re.search(rf"\b(?:{re.escape(last)}(?:e?s)?(?:es)?|{re.escape(stem)}ves)\b", text) is not None or (
        last == "person" and re.search(r"\b(?:people|man|woman|men|women)\b", text) is not None
    )
