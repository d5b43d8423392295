"""How the settings of a folder of samples differ from those of a run, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["difference"]

_SHORT = 60  # characters of a setting's value that a message quotes


def difference(there: Mapping[str, Any], wanted: Mapping[str, Any], any_batch: bool) -> str:
    """Whose images a folder has, for the end of "holds images of".

    Args:
        there: the folder's settings; see `sanactl.sampling.open_folder.folder_settings`.
        wanted: those of this run, which differ.
        any_batch: whether the run takes the folder's fixed batch.
    """
    if "text_padding" in wanted and "text_padding" not in there:
        return "an earlier version of sanactl, which differ in rounding"
    but: dict[str, Any] = {"prompts": None, "guard": None}
    other = {**there, **but} != {**wanted, **but}
    but["fixed_batch"] = None
    if other and {**there, **but} == {**wanted, **but} and not any_batch:
        return f"fixed batches of {there.get('fixed_batch')}, not {wanted.get('fixed_batch')}"
    if {**there, **but} != {**wanted, **but}:
        return _named(there, wanted, but)
    return "another list of prompts" if there.get("guard") == wanted.get("guard") else "another guard"


def _named(there: Mapping[str, Any], wanted: Mapping[str, Any], but: Mapping[str, Any]) -> str:
    """The settings that differ: "another checkpoint; steps 1, not 2"."""
    said = []
    for name in [name for name in {**wanted, **there} if name not in but]:
        # Settings that are left out are at their defaults: false.
        one, other = (json.dumps(s.get(name, False), ensure_ascii=False) for s in (there, wanted))
        if one != other:
            title = "checkpoint" if name == "digest" else name.replace("_", " ")
            short = name != "digest" and len(one) <= _SHORT and len(other) <= _SHORT
            said.append(f"{title} {one}, not {other}" if short else f"another {title}")
    return "; ".join(said)
