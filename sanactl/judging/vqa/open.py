"""Opening a model that answers questions, by what its name and its config say it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sanactl.judging.vqa.files import CLASSES, model_folder
from sanactl.records.options import read_options
from sanactl.scoring.questions.protocol import Answerer

__all__ = ["open_model"]


def open_model(
    spec: str,
    *,
    device: str | None = None,
    dtype: str | None = None,
    options: Mapping[str, str] | None = None,
) -> Answerer:
    """A model that answers questions. It is loaded when the first question comes.

    Args:
        spec: a folder, a Hub id, `nvila:PATH`, `vlm:PATH`, or `http(s)://host[:port]/v1#model`.
        device, dtype: of the model; None for its own choice.
        options: those of the judge of this kind (docs/judges.md), as text, but its dialogue.

    Raises:
        UsageError: there is no such device, dtype or option.
        InputError: there is no such model.
    """
    given: dict[str, Any] = dict(options or {})
    if re.match("https?://", spec, re.IGNORECASE):
        from sanactl.judging.vqa.server import ServerAnswers

        named = {"device": device, "dtype": dtype}
        given |= {name: value for name, value in named.items() if value is not None}  # refused: it has none
        return ServerAnswers(spec, **read_options(ServerAnswers, given, "judge a server"))
    family, _, rest = spec.partition(":")
    if family not in ("nvila", "vlm"):
        family, rest = "vlm", spec
    folder, label = model_folder(rest)
    from sanactl.model.conditioning import pick_device
    from sanactl.model.loading import resolve_dtype

    place = pick_device(device)
    kind = resolve_dtype(dtype, place)
    if family == "vlm" and _model_type(folder) in CLASSES:
        from sanactl.judging.vqa.classes import VqaClassAnswers

        read_options(VqaClassAnswers, given, "judge VQA")
        return VqaClassAnswers(folder, label, place, kind)
    from sanactl.judging.vqa.vlm import VlmAnswers

    opener = VlmAnswers.opener(family)
    known = read_options(opener, given, f"judge {family}")
    return VlmAnswers(opener, folder, label, place, kind, known)


def _model_type(folder: Path) -> str:
    from sanactl.model.guard import read_config

    return str(read_config(folder).get("model_type"))
