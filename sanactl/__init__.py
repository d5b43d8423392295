"""sanactl: composable checkpoint surgery for SANA text-to-image models (SANA-1.5, ICML 2025).

import sanactl

grown = sanactl.grow("base.st", to=60)
blocks = sanactl.importance(grown, "calib.txt")
pruned = sanactl.prune(grown, keep=30, importance=blocks)

The functions are the commands, with the same options and defaults; docs/python.md has them all. A name is imported when
it is first used, so that `import sanactl` costs nothing (PEP 562).
"""

from typing import TYPE_CHECKING, Any

from sanactl.version import __version__ as __version__

if TYPE_CHECKING:
    from sanactl.api.budget import budget
    from sanactl.api.drawing import geneval_prompts, shapes_prompts
    from sanactl.api.export import export
    from sanactl.api.filtering import filter
    from sanactl.api.guards import guard
    from sanactl.api.images import iter_sample, sample
    from sanactl.api.importance import importance
    from sanactl.api.inputs import open_checkpoint
    from sanactl.api.judge_training import train_judge
    from sanactl.api.machine import doctor
    from sanactl.api.merging import merge
    from sanactl.api.rewriting import iter_relabel, iter_rewrite, relabel, rewrite
    from sanactl.api.scale import iter_scale, scale
    from sanactl.api.scores import evaluate, iter_evaluate, iter_judge, judge
    from sanactl.api.surgery import convert, grow, prune
    from sanactl.api.training import finetune
    from sanactl.checkpoint.table import Checkpoint
    from sanactl.errors import InputError, OutputExistsError, SanactlError, TrainingError, UsageError
    from sanactl.files.progress import Progress
    from sanactl.optim.came import CAME8bit
    from sanactl.records.types import (
        BlockRecord,
        CheckpointRecord,
        ImageRecord,
        PromptRecord,
        ScoreRecord,
    )

__all__ = [
    "BlockRecord", "CAME8bit", "Checkpoint", "CheckpointRecord", "ImageRecord", "InputError", "OutputExistsError",
    "Progress", "PromptRecord", "SanactlError", "ScoreRecord", "TrainingError", "UsageError", "budget", "convert",
    "doctor", "evaluate", "export", "filter", "finetune", "geneval_prompts", "grow", "guard", "importance",
    "iter_evaluate", "iter_judge", "iter_relabel", "iter_rewrite", "iter_sample", "iter_scale", "judge", "merge",
    "open_checkpoint", "prune", "relabel", "rewrite", "sample", "scale", "shapes_prompts", "train_judge",
]  # fmt: skip

_MODULES = {
    "sanactl.api.budget": ("budget",),
    "sanactl.api.drawing": ("geneval_prompts", "shapes_prompts"),
    "sanactl.api.export": ("export",),
    "sanactl.api.filtering": ("filter",),
    "sanactl.api.guards": ("guard",),
    "sanactl.api.images": ("iter_sample", "sample"),
    "sanactl.api.importance": ("importance",),
    "sanactl.api.inputs": ("open_checkpoint",),
    "sanactl.api.judge_training": ("train_judge",),
    "sanactl.api.machine": ("doctor",),
    "sanactl.api.merging": ("merge",),
    "sanactl.api.rewriting": ("iter_relabel", "iter_rewrite", "relabel", "rewrite"),
    "sanactl.api.scale": ("iter_scale", "scale"),
    "sanactl.api.scores": ("evaluate", "iter_evaluate", "iter_judge", "judge"),
    "sanactl.api.surgery": ("convert", "grow", "prune"),
    "sanactl.api.training": ("finetune",),
    "sanactl.checkpoint.table": ("Checkpoint",),
    "sanactl.errors": ("InputError", "OutputExistsError", "SanactlError", "TrainingError", "UsageError"),
    "sanactl.files.progress": ("Progress",),
    "sanactl.optim.came": ("CAME8bit",),
    "sanactl.records.types": (
        "BlockRecord",
        "CheckpointRecord",
        "ImageRecord",
        "PromptRecord",
        "ScoreRecord",
    ),
}


def __getattr__(name: str) -> Any:
    import importlib

    for module, names in _MODULES.items():
        if name in names:
            found = globals()[name] = getattr(importlib.import_module(module), name)
            return found
    raise AttributeError(f"module 'sanactl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
