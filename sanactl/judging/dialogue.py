"""SaVILA's dialogue (SANA-1.5, section 2.5), word for word."""

from __future__ import annotations

from typing import Any

__all__ = ["AFTER_PROMPT", "ANSWERS", "BEFORE_IMAGE", "BEFORE_PROMPT", "conversation"]

BEFORE_IMAGE = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image "
    "based on how well they match the given prompt."
)
BEFORE_PROMPT = "The given prompt is:"
AFTER_PROMPT = (
    ". Please consider the prompt and the image to make a decision and response directly with 'yes' or 'no'"
)
ANSWERS = ("yes", "no")


def conversation(prompt: str, answer: str | None = None) -> list[dict[str, Any]]:
    """The dialogue about one image and one prompt, in the form that `apply_chat_template` takes.

    Args:
        prompt: what the image was to show; taken as it is.
        answer: "yes" or "no" for a training example, or None for the judge to answer.

    Returns:
        The user's turn (text, the image's place, text) and, with `answer`, the assistant's.
    """
    content = [
        {"type": "text", "text": BEFORE_IMAGE},
        {"type": "image"},
        {"type": "text", "text": f"{BEFORE_PROMPT} {prompt}{AFTER_PROMPT}"},
    ]
    turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if answer is not None:
        assert answer in ANSWERS
        turns.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    return turns
