"""What a language model is told to do with a prompt. A template is a text with `{prompt}`, where the prompt is put in.

The paper had GPT-4 translate English prompts into Chinese, an English-Chinese mixture and a text with emoji (appendix C,
figures 13 to 15), and GPT-4o add details to them (appendix D, figure 19). It shows results and not what it asked for, so
these words are sanactl's own; the examples of `DETAIL` are figure 19's.
"""

from __future__ import annotations

from pathlib import Path

from sanactl.errors import InputError, UsageError
from sanactl.files.regular import open_regular

__all__ = ["FORMS", "STYLES", "filled", "form_template", "style_template"]

PLACE = "{prompt}"
_MOST = 1 << 18  # bytes of a template

_RULES = """\
- Keep everything that the prompt says: each object, its number, its colour and its place.
- Copy text in quotation marks as it is.
- Answer with the new prompt alone, on one line, without quotation marks around it and without comments.
"""
_FORMS = {
    "en": f"""\
Translate a prompt for a text-to-image model into English.
{_RULES}
Prompt: {PLACE}
English:""",
    "zh": f"""\
Translate a prompt for a text-to-image model into Chinese (simplified characters, no English words).
{_RULES}
Prompt: a photo of a red dog left of two bananas
Chinese: 一张照片，一只红色的狗在两根香蕉的左边

Prompt: {PLACE}
Chinese:""",
    "en-zh": f"""\
Write a prompt for a text-to-image model as a mixture of English and Chinese, as people do who speak both: about half of \
its words in simplified Chinese, the others in English.
{_RULES}
Prompt: a photo of a red dog left of two bananas
Mixed: a photo of 一只红色的狗 left of 两根香蕉

Prompt: {PLACE}
Mixed:""",
    "emoji": f"""\
Write a prompt for a text-to-image model with emoji: put an emoji in the place of each word that one stands for, and \
leave the other words in English. Write numbers as words or digits.
{_RULES}
Prompt: a cat wearing a hat flying on the rainbow with two roses
With emoji: a 🐱 wearing a 🎩 flying on the 🌈 with two 🌹

Prompt: {PLACE}
With emoji:""",
}
FORMS = tuple(_FORMS)

DETAIL = f"""\
Rewrite a prompt for a text-to-image model so that the image becomes richer: add details of the scene, the light, the \
materials, the composition and the mood.
- Keep everything that the prompt says: each object, its number, its colour and its place. Call the objects by the \
prompt's own words. Add no further objects of the same kinds.
- Copy text in quotation marks as it is.
- Write in the prompt's language, in one paragraph on one line, at most 120 words.
- Answer with the rewritten prompt alone, without quotation marks around it and without comments.

Prompt: a photo of two sheep
Rewritten: A pastoral scene captured in vivid photographic detail. Two woolly ovine graze peacefully in a lush, verdant \
meadow, their fleecy coats gleaming in the golden afternoon sunlight. The sheep stand side by side, one with a slight tilt \
of its head as if pausing to regard the camera with mild curiosity. In the distance, the silhouettes of rolling hillsides \
recede into a hazy azure horizon.

Prompt: a bench
Rewritten: A tranquil garden vignette framed by a rustic wooden bench weathered by the elements. The bench's sturdy slats \
stretch in gently curving lines, their surface worn smooth by the passage of countless visitors seeking respite. Dappled \
sunlight filters through the canopy overhead, casting a warm glow.

Prompt: {PLACE}
Rewritten:"""
# `sanactl.model.text.human_instruction` has it of diffusers, whose import takes seconds; a test compares them.
CHI = f"""\
Given a user prompt, generate an 'Enhanced prompt' that provides detailed visual descriptions suitable for image \
generation. Evaluate the level of detail in the user prompt:
- If the prompt is simple, focus on adding specifics about colors, shapes, sizes, textures, and spatial relationships to \
create vivid and concrete scenes.
- If the prompt is already detailed, refine and enhance the existing details slightly without overcomplicating.
Here are examples of how to transform or refine prompts:
- User Prompt: A cat sleeping -> Enhanced: A small, fluffy white cat curled up in a round shape, sleeping peacefully on a \
warm sunny windowsill, surrounded by pots of blooming red flowers.
- User Prompt: A busy city street -> Enhanced: A bustling city street scene at dusk, featuring glowing street lamps, a \
diverse crowd of people in colorful clothing, and a double-decker bus passing by towering glass skyscrapers.
Please generate only the enhanced description for the prompt below and avoid including any additional commentary or \
evaluations:
User Prompt: {PLACE}"""
STYLES = ("detail", "chi")


def form_template(form: str) -> str:
    """The template of a language form.

    Raises:
        UsageError: there is no such form.
    """
    if form not in _FORMS:
        raise UsageError(f"no language form {form!r}", hint=f"there are: {', '.join(_FORMS)}")
    return _FORMS[form]


def style_template(style: str) -> tuple[str, str]:
    """(the name that records get, the template) of a style.

    Args:
        style: "detail" (figure 19), "chi" (SANA's complex human instruction, as a question to a language model), or a
            text file with `{prompt}` in it.

    Raises:
        InputError: there is no such file, it cannot be read, or it has no `{prompt}`.
    """
    if style == "detail":
        return style, DETAIL
    if style == "chi":
        return style, CHI
    with open_regular(Path(style), most=_MOST, what=f"file, and no style ({', '.join(STYLES)})") as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").strip("\n")
    except UnicodeDecodeError:
        raise InputError(f"{style}: not UTF-8 text") from None
    if PLACE not in text:
        raise InputError(f"{style}: no {PLACE} in it", hint="the prompt is put in its place")
    return Path(style).name, text


def filled(template: str, prompt: str) -> str:
    """The template with a prompt in it; other braces are text."""
    return template.replace(PLACE, prompt)
