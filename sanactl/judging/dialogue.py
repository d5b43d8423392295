"""The question that a judge is asked about one image and one prompt (SANA-1.5, section 2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.paths import user_path
from sanactl.files.regular import open_regular

__all__ = [
    "AFTER_PROMPT",
    "ANSWERS",
    "BEFORE_IMAGE",
    "BEFORE_PROMPT",
    "CHOICES",
    "DIALOGUES",
    "IMAGE",
    "Dialogue",
    "conversation",
    "open_dialogue",
    "pair_conversation",
]

BEFORE_IMAGE = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
    "based on how well they match the given prompt."
)
BEFORE_PROMPT = "The given prompt is:"
AFTER_PROMPT = (
    ". Please consider the prompt and the image to make a decision and response directly with 'yes' or 'no'"
)
ANSWERS = ("yes", "no")
# How a judge can name one of two images. The first pair counts whose words are tokens of the judge's.
CHOICES = (("first", "second"), ("1", "2"), ("A", "B"), ANSWERS)
IMAGE, PROMPT = "<image>", "<prompt>"
_MAX_BYTES = 65_536


@dataclass(frozen=True)
class Dialogue:
    """A question as text with the places of the image (`<image>`) and the prompt (`<prompt>`), each once.

    Attributes:
        name: what the user calls it.
        text: the question. White space around the image's place is left out: the chat template decides about it.
    """

    name: str
    text: str

    def question(self, prompt: str) -> str:
        """The question about a prompt as one text, with `<image>` where the image stands."""
        before, after = self.text.split(PROMPT, maxsplit=1)
        return f"{before}{prompt}{after}"

    def conversation(self, prompt: str, answer: str | None = None) -> list[dict[str, Any]]:
        """The dialogue in the form that `apply_chat_template` takes.

        Args:
            prompt: what the image was to show; taken as it is.
            answer: "yes" or "no" for a training example, or None for the judge to answer.

        Returns:
            The user's turn (text, the image's place, text) and, with `answer`, the assistant's.
        """
        before, after = (
            part.strip().replace(PROMPT, prompt, 1) for part in self.text.split(IMAGE, maxsplit=1)
        )
        content = [
            *([{"type": "text", "text": before}] if before else []),
            {"type": "image"},
            *([{"type": "text", "text": after}] if after else []),
        ]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if answer is not None:
            assert answer in ANSWERS
            turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        return turns


DIALOGUES: dict[str, Dialogue] = {
    d.name: d
    for d in (
        # The paper, word for word.
        Dialogue("paper", f"{BEFORE_IMAGE} {IMAGE} {BEFORE_PROMPT} {PROMPT}{AFTER_PROMPT}"),
        # The reference's script: the image first, a line break, no space before the prompt, a full stop at the end.
        Dialogue("reference", f"{IMAGE} {BEFORE_IMAGE}\n{BEFORE_PROMPT}{PROMPT}{AFTER_PROMPT}."),
        # VQAScore (Lin et al. 2024) as t2v_metrics asks it.
        Dialogue("vqascore", f'{IMAGE} Does this figure show "{PROMPT}"? Please answer Yes or No.'),
    )
}


def conversation(prompt: str, answer: str | None = None) -> list[dict[str, Any]]:
    """`Dialogue.conversation` of the paper's dialogue."""
    return DIALOGUES["paper"].conversation(prompt, answer)


def pair_conversation(prompt: str, answers: tuple[str, str]) -> list[dict[str, Any]]:
    """The question which of two images fits a prompt better, in the form that `apply_chat_template` takes.

    Args:
        prompt: what both images were to show.
        answers: what the judge says for the first image and for the second. Yes and no answer whether it is the first.
    """
    one, other = answers
    which = "Does the first image match" if answers == ANSWERS else "Which of the two images matches"
    than = " than the second" if answers == ANSWERS else ""
    question = f"{BEFORE_PROMPT} {prompt}. {which} the prompt better{than}? Answer directly with '{one}' or '{other}'"
    content = [{"type": "text", "text": BEFORE_IMAGE}, {"type": "image"}, {"type": "image"}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def open_dialogue(name: str) -> Dialogue:
    """A dialogue by its name, or from a text file with `<image>` and `<prompt>`.

    Raises:
        UsageError: no dialogue or file of that name.
        InputError: the file cannot be read, or a place is missing or there twice.
    """
    if name in DIALOGUES:
        return DIALOGUES[name]
    path = user_path(name)
    if not path.is_file():
        raise UsageError(
            f"no dialogue {name!r}", hint=f"there are: {', '.join(DIALOGUES)}; or give a text file"
        )
    text = _read(path)
    for mark in (IMAGE, PROMPT):
        if text.count(mark) != 1:
            raise InputError(
                f"{name}: a dialogue has {mark} once, and this one {text.count(mark)} times",
                hint="for example: <image> Does it show <prompt>? Answer yes or no.",
            )
    return Dialogue(name, text)


def _read(path: Path) -> str:
    try:
        with open_regular(path, what="dialogue") as stream:
            data = stream.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES:,} bytes, which is no dialogue")
        return data.decode().strip()
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
