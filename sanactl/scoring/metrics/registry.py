"""The metrics by name, and how one is opened."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sanactl.errors import UsageError
from sanactl.scoring.metrics.protocol import Metric

__all__ = ["METRICS", "Entry", "open_metric"]


@dataclass(frozen=True)
class Entry:
    """A metric of the registry.

    Attributes:
        source: the class, or "module:name" of it.
        line: what it measures, for the list of `sanactl eval --help`.
    """

    source: str | Callable[..., Metric]
    line: str

    def load(self) -> Any:
        """The class; its module is imported, which needs neither torch nor transformers."""
        if not isinstance(self.source, str):
            return self.source
        module, _, name = self.source.partition(":")
        return getattr(importlib.import_module(module), name)


# Each name is a command, `sanactl eval NAME`.
METRICS: dict[str, Entry] = {
    "geneval": Entry(
        "sanactl.scoring.metrics.geneval:GenEval", "Share of images that show what their prompt asks for."
    ),
    "clip": Entry("sanactl.scoring.metrics.clip:ClipScore", "How well images fit their prompts, by CLIP."),
    "judge": Entry("sanactl.judging.audit.metric:JudgeQuality", "How far a judge can be trusted, by labels."),
    "scale": Entry(
        "sanactl.sampling.search.replay:ScaleReplay", "What scale would reach and draw, by labelled images."
    ),
    "fid": Entry("sanactl.scoring.metrics.fid:Fid", "Distance of images from a reference, by InceptionV3."),
    "kid": Entry("sanactl.scoring.metrics.kid:Kid", "The same, with a kernel; for fewer images."),
    "fd-dinov2": Entry("sanactl.scoring.metrics.fd_dinov2:FdDinov2", "The same, by DINOv2."),
    "cmmd": Entry("sanactl.scoring.metrics.cmmd:Cmmd", "The same, with a kernel, by CLIP."),
    "dpg": Entry("sanactl.scoring.metrics.dpg:Dpg", "DPG-Bench: yes or no to questions about long prompts."),
    "vqa": Entry("sanactl.scoring.metrics.vqa:Vqa", "Soft-TIFA: how sure a model is of expected answers."),
}


def open_metric(name: str, **options: Any) -> Metric:
    """The metric of a name.

    Args:
        name: one of `METRICS`.
        options: its own; see its `options`.

    Raises:
        UsageError: there is no metric or option of that name.
    """
    if name not in METRICS:
        raise UsageError(f"no metric {name!r}", hint=f"there are: {', '.join(METRICS)}")
    metric = METRICS[name].load()
    known = [option.name for option in getattr(metric, "options", ())]
    for option in options:
        if option not in known:
            raise UsageError(
                f"the metric {name} has no option {option!r}", hint=f"its options: {', '.join(known)}"
            )
    opened: Metric = metric(**options)
    return opened
