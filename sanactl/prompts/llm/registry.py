"""The language models by name, and how one is opened. Nothing heavy is imported before a model is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from sanactl.errors import UsageError
from sanactl.prompts.llm.protocol import LanguageModel
from sanactl.records.options import known_options, read_options

__all__ = ["DEFAULT", "MODELS", "open_llm"]

# The rules of the built-in world, which need no model.
DEFAULT = "shapes"

# Backend to what opens it: a function or a class, or where one is found ("module:name"). `BACKEND:REST` calls it with REST,
# `BACKEND` with "". Its parameters with defaults are the model's options.
MODELS: dict[str, str | Callable[..., LanguageModel]] = {
    "shapes": "sanactl.prompts.llm.shapes:ShapesRules",
    "hf": "sanactl.prompts.llm.chat:ChatModel.load",
    "openai": "sanactl.prompts.llm.openai:ServerModel.open",
}
# The backend of a name that is a URL, by its scheme. It is called with the whole name.
SCHEMES = {"http": "openai", "https": "openai"}


def open_llm(spec: str | None = None, **options: Any) -> LanguageModel:
    """Opens a language model.

    Args:
        spec: `shapes` (rules of the built-in world), `hf:` and the folder or Hub id of a chat model of transformers, or
            the address of a server with OpenAI's protocol and the name of its model (`http://host:8000/v1#MODEL`).
        options: the backend's own, as text or as values; None counts as not given.

    Raises:
        UsageError: no such backend, or an option that it does not have; the message names those that there are.
        InputError: there is no such model, or it cannot be loaded.
    """
    name = DEFAULT if spec is None else spec
    head, _, rest = name.partition(":")
    if head.lower() in SCHEMES and rest.startswith("//"):
        head, rest = SCHEMES[head.lower()], name
    if head not in MODELS:
        raise UsageError(
            f"no language model {name!r}",
            hint="give shapes, hf:FOLDER, hf:OWNER/NAME or http://host:8000/v1#MODEL",
        )
    opener: Any = MODELS[head]
    if isinstance(opener, str):
        module, _, path = opener.partition(":")
        opener = importlib.import_module(module)
        for part in path.split("."):
            opener = getattr(opener, part)
    given = {key: value for key, value in options.items() if value is not None}
    for key in ("device", "dtype"):
        if key in given and key not in known_options(opener):
            raise UsageError(
                f"the language model {head} takes no {key}", hint="hf: models run on this machine"
            )
    model: LanguageModel = opener(rest, **read_options(opener, given, f"language model {head}"))
    return model
