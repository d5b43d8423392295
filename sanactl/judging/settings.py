"""What a judge's records say of its settings: which judge it was exactly, and how it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanactl.files.content import json_digest
from sanactl.judging.protocol import Judge

__all__ = ["judge_digest", "judges_of", "settings_of"]

# What an identity has beside weights and question: where and in what precision the judge runs, and under which name.
# Rounding moves a probability by far less than a calibration does.
_ELSEWHERE = ("name", "device", "dtype", "versions")


def judges_of(judge: Judge) -> Sequence[Judge]:
    """The judges that a judge asks: itself, or those of an `EnsembleJudge`."""
    return getattr(judge, "judges", None) or [judge]


def judge_digest(judge: Judge) -> str:
    """Which judge it is and what it is asked: a digest of its identity without device, dtype and versions."""
    return json_digest({k: v for k, v in judge.identity.items() if k not in _ELSEWHERE})[:16]


def settings_of(judge: Judge) -> dict[str, Any]:
    """`digest`, and where they are known `dialogue` and `dtype` (names) and `labels` (the detector that it learned from).

    Of several judges `{"judges": [...]}`, in their order.
    """
    several = judges_of(judge)
    if len(several) > 1:
        return {"judges": [settings_of(each) for each in several]}
    found: dict[str, Any] = {"digest": judge_digest(judge)}
    dialogue = getattr(getattr(judge, "dialogue", None), "name", None)
    dtype, labels = judge.identity.get("dtype"), judge.identity.get("labels")
    if dialogue is not None:
        found["dialogue"] = str(dialogue)
    if dtype is not None:
        found["dtype"] = str(dtype).removeprefix("torch.")
    if labels is not None:
        found["labels"] = str(labels)
    return found
