"""What answers questions, by name, and how it is opened. Nothing heavy is imported before that."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable

from sanactl.errors import UsageError
from sanactl.scoring.questions.protocol import Answerer

__all__ = ["ANSWERERS", "open_answerer", "split_options"]

# Name to what opens it, "module:name" or a function or class. It is called with the name as the user wrote it and the
# keywords `device`, `dtype` and `options`. A name that is not here is a model: a folder, a Hub id, a server's address.
ANSWERERS: dict[str, str | Callable[..., Answerer]] = {
    "shapes": "sanactl.scoring.questions.shapes:ShapesAnswers",
    "mplug": "sanactl.scoring.questions.official_answers:OfficialAnswers",
    "model": "sanactl.judging.vqa.open:open_model",
}


def open_answerer(
    spec: str | os.PathLike[str] | None,
    *,
    device: str | None = None,
    dtype: str | None = None,
    options: str | None = None,
) -> Answerer:
    """What answers questions.

    Args:
        spec: "shapes" for the built-in world's, a folder or Hub id of a VQA or vision-language model, `nvila:PATH`,
            "mplug:FILE" for answers that the official script of DPG-Bench has written, or
            the address of a server (`http://host:8000/v1#model`).
        device, dtype: of the model; None for its own choice.
        options: further options of the model, "KEY=VALUE,KEY=VALUE".

    Raises:
        UsageError: nothing is named, or there is no such device, dtype or option.
        InputError: there is no such model.
    """
    if spec is None:
        raise UsageError(
            "--vqa is needed: what answers the questions",
            hint="a folder or Hub id of a vision-language model, http://HOST:PORT/v1#MODEL, or shapes",
        )
    spec = os.fspath(spec)
    # Only names that stand alone, and mplug:FILE: a Hub id or a folder may begin with anything.
    name = "mplug" if spec.startswith("mplug:") else spec
    entry = ANSWERERS[name if name in ANSWERERS and name != "model" else "model"]
    if isinstance(entry, str):
        module, _, name = entry.partition(":")
        entry = getattr(importlib.import_module(module), name)
    opened: Answerer = entry(spec, device=device, dtype=dtype, options=split_options(options or ""))
    return opened


def split_options(text: str) -> dict[str, str]:
    """`KEY=VALUE,KEY=VALUE` as a dictionary. A value may have commas that no KEY= follows.

    Raises:
        UsageError: a part has no `=`, or a key comes twice.
    """
    found: dict[str, str] = {}
    for part in re.split(r",(?=\s*[A-Za-z_]\w*=)", text) if text.strip() else ():
        key, equals, value = part.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key or key in found:
            fault = "is given twice" if key in found else "is not KEY=VALUE"
            raise UsageError(f"--vqa-options {part.strip()!r} {fault}", hint="for example max_pixels=500000")
        found[key] = value.strip()
    return found
