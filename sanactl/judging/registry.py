"""The judges by name, and how one is opened. Nothing heavy is imported before a judge is opened."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

from sanactl.errors import UsageError
from sanactl.judging.protocol import Judge
from sanactl.records.options import known_options, read_options

__all__ = ["DEFAULT", "JUDGES", "SCHEMES", "open_judge", "open_judges"]

# The judge where none is named, and the backend of a name that is a folder or a Hub id.
DEFAULT = "builtin:shapes"
FALLBACK = "vlm"

# Backend to what opens it: a function or a class, or where one is found ("module:name"). `BACKEND:REST` calls it with REST,
# `BACKEND` with "". Its parameters with defaults are the judge's options.
JUDGES: dict[str, str | Callable[..., Judge]] = {
    "builtin": "sanactl.judging.backends.builtin:open_builtin",
    "oracle": "sanactl.judging.backends.oracle:OracleJudge",
    "vlm": "sanactl.judging.backends.vlm:VlmJudge.load",
    "nvila": "sanactl.judging.backends.nvila:NvilaJudge.load",
    "openai": "sanactl.judging.backends.openai:ServerJudge.open",
}
# The backend of a name that is a URL, by its scheme. It is called with the whole name.
SCHEMES = {"http": "openai", "https": "openai"}


def open_judge(spec: str | None = None, **options: Any) -> Judge:
    """Opens a judge.

    Args:
        spec: the name of a backend (`oracle`), `BACKEND:REST` (`builtin:shapes`, `vlm:my-judge`), the address of a
            server with the name of its model (`http://host:8000/v1#model`), or the folder or Hub id of a
            vision-language model. By default the judge that ships with sanactl.
        options: the backend's own, as text or as values; None counts as not given. Models have `device`, `dtype` and
            `trust_remote_code`.

    Raises:
        UsageError: no such backend, or an option that it does not have; the message names those that there are.
        InputError: there is no such judge, or it cannot be loaded.
    """
    backend, rest = _parts(DEFAULT if spec is None else spec)
    opener = _opener(JUDGES[backend])
    given = {name: value for name, value in options.items() if value is not None}
    return opener(rest, **read_options(opener, given, f"judge {backend}"))


def open_judges(specs: Sequence[str], **options: Any) -> Judge:
    """Opens one judge, or several as one (`sanactl.judging.ensemble.EnsembleJudge`).

    Args:
        specs: as `open_judge` takes them, each once.
        options: given to each judge that has them. `N.NAME` is the option NAME of the N-th judge alone (from 1).

    Raises:
        UsageError: as of `open_judge`, or an option that none of the judges has, or a judge is named twice.
        InputError: as of `open_judge`.
    """
    if len(specs) == 1:
        return open_judge(specs[0], **options)
    from sanactl.judging.ensemble import EnsembleJudge

    for spec in specs:
        if list(specs).count(spec) > 1:
            raise UsageError(f"the judge {spec} is named twice")
    each: list[dict[str, Any]] = [{} for _ in specs]
    known = [known_options(_opener(JUDGES[_parts(spec)[0]])) for spec in specs]
    for name, value in options.items():
        own = re.fullmatch(r"(\d+)\.(\w+)", name)
        if own and 1 <= int(own[1]) <= len(specs):
            each[int(own[1]) - 1][own[2]] = value
            continue
        takers = [given for given, names in zip(each, known, strict=True) if name in names]
        if not takers:
            raise UsageError(
                f"none of the judges has an option {name!r}",
                hint=f"their options: {', '.join(sorted({n for names in known for n in names}))}",
            )
        for given in takers:
            given.setdefault(name, value)  # what is given for one judge alone comes first
    return EnsembleJudge([open_judge(spec, **given) for spec, given in zip(specs, each, strict=True)])


def _parts(spec: str) -> tuple[str, str]:
    """(backend, rest) of a judge's name."""
    if spec == "shapes" and not os.path.exists(
        spec
    ):  # as the detector of that world and its prompts are called
        return "builtin", spec
    head, colon, rest = spec.partition(":")
    if head in JUDGES:
        return head, rest
    if head.lower() in SCHEMES and rest.startswith("//"):
        return SCHEMES[head.lower()], spec
    if colon and re.fullmatch("[a-z][a-z0-9_-]*", head) and not os.path.exists(spec):
        raise UsageError(
            f"no judge backend {head!r} ({spec})",
            hint=f"there are: {', '.join(JUDGES)}; or give a folder or Hub id",
        )
    return FALLBACK, spec


def _opener(entry: str | Callable[..., Judge]) -> Callable[..., Judge]:
    if not isinstance(entry, str):
        return entry
    module, _, name = entry.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    opener: Callable[..., Judge] = found
    return opener
