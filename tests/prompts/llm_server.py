"""A local server with a language model that knows the built-in world: exact answers, or what a test wants."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from sanactl.shapes.languages import detail, translate
from tests.chat_server import ChatServer, serving

_FORMS = {"Chinese:": "zh", "Mixed:": "en-zh", "With emoji:": "emoji"}


class LlmServer(ChatServer):
    """Answers with `answer(message, seed)`: by default the rules' own words."""

    def __init__(self, answer: Callable[[str, int], str] | None = None) -> None:
        super().__init__()
        self.answer = answer or (lambda message, seed: by_rules(message))

    def complete(self, body: dict[str, Any]) -> Any:
        (turn,) = body["messages"]
        return completion(self.answer(turn["content"], body["seed"]))


def completion(text: str | None, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage}


def asked(message: str) -> tuple[str, str]:
    """(prompt, the word that asks for the answer) of a message in the words of `sanactl.prompts.templates`."""
    found = re.findall(r"^Prompt: (.*)\n(.*:)$", message.split("\n\n(An earlier")[0], re.M)
    return found[-1]


def by_rules(message: str) -> str:
    prompt, word = asked(message)
    return detail(prompt) if word == "Rewritten:" else translate(prompt, _FORMS[word])


def running(answer: Callable[[str, int], str] | None = None) -> AbstractContextManager[LlmServer]:
    return serving(LlmServer(answer))
