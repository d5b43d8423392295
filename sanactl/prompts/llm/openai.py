"""A language model behind a server with OpenAI's protocol: vLLM, SGLang, llama.cpp, Ollama, hosted ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.http import Client, Refusal
from sanactl.files.json_values import brief
from sanactl.files.server_address import address_hint, extra_fields, read_address
from sanactl.prompts.llm.protocol import Ask, Reply

__all__ = ["ServerModel"]

# Answers of a server about one message: it is too long, or not allowed. Others (401, 404) are about all messages.
_OF_ONE = (400, 413, 422)
# So many messages are refused at the start before the run is given up: then it is not the messages.
_HOPELESS = 8
_MAX_TEXT = 100_000  # characters


class ServerModel:
    """Asks a server, one request for each message, several at once.

    Args:
        client: where requests go.
        model: the server's name of the model.
        fields: of each request, beside the message and the seed.
    """

    batch_size = 1
    keeps = True

    def __init__(self, client: Client, model: str, fields: Mapping[str, Any]) -> None:
        self._client, self._model, self._fields = client, model, dict(fields)
        self.name = f"{client.base}#{model}"
        self.concurrency = client.concurrency
        self.identity: Mapping[str, Any] = {"name": self.name, "fields": self._fields}
        self._answered = self._refused = 0

    @classmethod
    def open(
        cls,
        address: str,
        *,
        key_env: str = "OPENAI_API_KEY",
        concurrency: int = 8,
        timeout: float = 60.0,
        retries: int = 5,
        temperature: float = 0.0,
        answer_tokens: int = 512,
        extra: str = "",
    ) -> ServerModel:
        """Checks the address and the options. The server is reached with the first message.

        Args:
            address: `http(s)://host[:port]/v1#model`.
            key_env: the environment variable that holds the server's key. Without it no key is sent.
            concurrency: the most requests at a time.
            timeout: seconds without a byte after which a request has failed.
            retries: how often a request is repeated after a 429, a 5xx, a timeout or a broken connection.
            temperature: of sampling; 0 for the likeliest tokens.
            answer_tokens: the most tokens of an answer.
            extra: a JSON object with further fields of each request, such as vLLM's `chat_template_kwargs`. A field that
                is null is left out of requests: `{"max_tokens": null, "max_completion_tokens": 512}`.

        Raises:
            UsageError: the address has no model or is not one, or an option is out of range.
        """
        base, model = read_address(address)
        if not 0 <= temperature <= 10:
            raise UsageError(f"temperature is {temperature:g}", hint="it takes a number from 0 to 10")
        if not 1 <= answer_tokens <= 1_000_000:
            raise UsageError(f"answer_tokens is {answer_tokens}", hint="it takes a number from 1")
        client = Client(
            base,
            key_env=key_env,
            concurrency=concurrency,
            timeout=timeout,
            retries=retries,
            kept="answers",
            option="--llm-option",
        )
        fields = {"temperature": temperature, "max_tokens": answer_tokens, **extra_fields(extra)}
        return cls(client, model, {name: value for name, value in fields.items() if value is not None})

    def check(self, tasks: Sequence[str]) -> None:
        """It takes any message."""

    def reply(self, asks: Sequence[Ask], stop: threading.Event) -> list[Reply]:
        return [self._reply(ask, stop) for ask in asks]

    def _reply(self, ask: Ask, stop: threading.Event) -> Reply:
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": ask.message}],
            "seed": ask.seed,
            **self._fields,
        }
        try:
            found = self._client.post("chat/completions", body, stop=stop)
        except Refusal as refusal:
            self._refused += 1
            if refusal.code not in _OF_ONE or (not self._answered and self._refused >= _HOPELESS):
                raise
            words = refusal.message.removeprefix(f"{self._client.base}: ")
            return Reply("", refusal=f"the server refuses it: {words}")
        self._answered += 1
        return read_completion(found, self.name)


def read_completion(reply: Any, name: str) -> Reply:
    """A server's reply to a message, whatever it holds.

    Raises:
        InputError: it is no chat completion at all.
    """
    if not isinstance(reply, dict) or not isinstance(reply.get("choices"), list):
        raise InputError(
            f"{name}: its reply is no chat completion: {brief(json.dumps(reply))}",
            hint=address_hint(name.partition("#")[0]),
        )
    usage = reply.get("usage")
    tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    choice = reply["choices"][0] if reply["choices"] else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        return Reply("", "stop", *tokens)
    text, refusal = message.get("content"), message.get("refusal")
    if not isinstance(text, str):
        text = ""
    text = text[:_MAX_TEXT]  # far beyond what any check takes
    finish = choice.get("finish_reason")
    if isinstance(refusal, str) and refusal.strip() and not text.strip():
        text, finish = refusal, "content_filter"
    # Half of a surrogate pair is no character.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return Reply(text, finish if isinstance(finish, str) else "stop", *tokens)


def _count(usage: Any, field: str) -> int | None:
    found = usage.get(field) if isinstance(usage, dict) else None
    return found if type(found) is int and 0 <= found < 2**40 else None
