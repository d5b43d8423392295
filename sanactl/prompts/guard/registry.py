"""The guards, and how one is opened. Nothing heavy is imported before a guard is opened."""

from __future__ import annotations

import importlib
import os
import re
from typing import Any

from sanactl.errors import UsageError
from sanactl.prompts.guard.protocol import Guard

__all__ = ["DEFAULT", "GUARDS", "open_guard"]

DEFAULT = "google/shieldgemma-2b"
FALLBACK = "hf"

# Backend to where what opens it is found ("module:name"). `BACKEND:REST` calls it with REST; a folder or a Hub id alone is
# `hf:REST`. It takes `device`, `dtype` and `policy`, each a name or None.
GUARDS = {
    "builtin": "sanactl.prompts.guard.words:WordsGuard",
    "hf": "sanactl.prompts.guard.causal:CausalGuard.load",
}


def open_guard(
    spec: str | None = None, *, device: str | None = None, dtype: str | None = None, policy: str | None = None
) -> Guard:
    """Opens a guard.

    Args:
        spec: `BACKEND:REST` (`builtin:words`), or the folder or Hub id of a language model that answers yes or no; by
            default ShieldGemma.
        device: "cpu", "cuda", "cuda:1"...; by default the GPU if there is one.
        dtype: "fp32", "bf16" or "fp16"; by default bf16 on a GPU and fp32 on a CPU.
        policy: of `sanactl.prompts.guard.policies.POLICIES`.

    Raises:
        UsageError: no such backend, policy, device or dtype.
        InputError: there is no such model, or it cannot be loaded or run.
    """
    backend, rest = _parts(DEFAULT if spec is None else spec)
    module, _, name = GUARDS[backend].partition(":")
    opener: Any = importlib.import_module(module)
    for part in name.split("."):
        opener = getattr(opener, part)
    found: Guard = opener(rest, device=device, dtype=dtype, policy=policy)
    return found


def _parts(spec: str) -> tuple[str, str]:
    """(backend, rest) of a guard's name."""
    head, colon, rest = spec.partition(":")
    if colon and head in GUARDS:
        return head, rest
    if colon and re.fullmatch("[a-z][a-z0-9_-]*", head) and not os.path.exists(spec):
        raise UsageError(
            f"no guard {spec!r}", hint=f"there are: {', '.join(GUARDS)}; or give a folder or Hub id"
        )
    return FALLBACK, spec
