"""The dialogue is the paper's, to the letter."""

from __future__ import annotations

import pytest

from sanactl.judging.dialogue import ANSWERS, conversation

PAPER = (
    "You are an AI assistant specializing in image analysis and ranking. Your task is to analyze and compare image based "
    "on how well they match the given prompt. <image> The given prompt is: <prompt>. Please consider the prompt and the "
    "image to make a decision and response directly with 'yes' or 'no'"
)


def flatten(turn: dict[str, list[dict[str, str]]]) -> str:
    return " ".join("<image>" if part["type"] == "image" else part["text"] for part in turn["content"])


def test_word_for_word() -> None:
    (user,) = conversation("<prompt>")
    assert user["role"] == "user"
    assert flatten(user) == PAPER


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_example_to_learn_from_ends_with_its_answer(answer: str) -> None:
    user, assistant = conversation("a photo of a heart", answer)
    assert "The given prompt is: a photo of a heart. Please" in flatten(user)
    assert assistant == {"role": "assistant", "content": [{"type": "text", "text": answer}]}
