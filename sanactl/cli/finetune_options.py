"""The options of `finetune`, by purpose."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from sanactl.optim.table import OPTIMIZERS


def _option(panel: str, *names: str, help: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


_DATA, _STEPS, _WHAT, _MEMORY, _STATE = (
    "Data",
    "Steps",
    "What is trained",
    "Memory",
    "Watching and restarting",
)

Data = Annotated[
    Optional[str],
    _option(
        _DATA,
        "--data",
        "-d",
        help="A folder of images with metadata.jsonl, a dataset id, tar shards, a folder that encode made, a .jsonl of "
        "image records, or - for those on stdin. "
        "Default: image records of the pipe, else the built-in world's endless stream.",
        show_default=False,
    ),
]
Captions = Annotated[
    Optional[str],
    _option(_DATA, "--captions", help="Columns to take captions from, with weights: text:0.7,short:0.3.", show_default=False),
]  # fmt: skip
Buckets = Annotated[
    bool, _option(_DATA, "--buckets", help="Keep aspect ratios: each step's images are of one shape.")
]
Streaming = Annotated[
    bool, _option(_DATA, "--streaming", help="Read a dataset as it comes, without a copy on disk.")
]
MaxBad = Annotated[
    int, _option(_DATA, "--max-bad", min=0, help="Damaged images that are named and passed over.")
]
Workers = Annotated[
    Optional[int],
    _option(
        _DATA,
        "--workers",
        min=0,
        help="Processes that read images ahead, for each that trains. Default: up to 4 on a GPU, none on a CPU.",
        show_default=False,
    ),
]
TextDropout = Annotated[
    float, _option(_DATA, "--text-dropout", min=0, max=1, help="Share of captions left empty.")
]
FlowShift = Annotated[float, _option(_DATA, "--flow-shift", min=0, help="Of the noise levels.")]

Steps = Annotated[int, _option(_STEPS, "--steps", min=1, help="Updates.")]
Batch = Annotated[
    int,
    _option(
        _STEPS, "--batch-size", "-b", min=1, help="Images a step, over all processes and accumulated parts."
    ),
]
LearningRate = Annotated[
    Optional[float],
    _option(
        _STEPS,
        "--lr",
        min=0,
        help="Learning rate. Default: the checkpoint's own, else 2e-5.",
        show_default=False,
    ),
]
ScaleLr = Annotated[
    str, _option(_STEPS, "--scale-lr", help="none, sqrt or linear: scale the rate by batch size / 256.")
]
_NAMES = [*OPTIMIZERS]
OptimizerName = Annotated[
    str, _option(_STEPS, "--optimizer", help=f"{', '.join(_NAMES[:-1])} or {_NAMES[-1]}.")
]
Scheme = Annotated[
    str,
    _option(
        _STEPS,
        "--scheme",
        help="Quantization scheme of came8bit's first moment: linear, zero or dynamic.",
        show_default=False,
    ),
]
OldScheme = Annotated[str, typer.Option("--code", hidden=True, help="The former name of --scheme.")]
Schedule = Annotated[
    str, _option(_STEPS, "--schedule", help="constant, cosine or linear (the last two go down to 0).")
]
Warmup = Annotated[int, _option(_STEPS, "--warmup", min=0, help="Steps of linear warm-up.")]
Clip = Annotated[
    Optional[float],
    _option(
        _STEPS,
        "--clip",
        min=0,
        help="Largest gradient norm; 0: any. Default: the checkpoint's own, else 0.1.",
        show_default=False,
    ),
]
WeightDecay = Annotated[float, _option(_STEPS, "--weight-decay", min=0, help="As AdamW's.")]
Ema = Annotated[float, _option(_STEPS, "--ema", min=0, max=1, help="Decay of the weights' average; 0: none.")]

NewBlocksOnly = Annotated[
    bool,
    _option(_WHAT, "--train-new-blocks-only", help="Leave all but the blocks that grow added as they are."),
]
Lora = Annotated[
    int,
    _option(_WHAT, "--lora", min=0, help="Train adapters of this rank and merge them at the end; 0: all."),
]
TeacherRef = Annotated[
    Optional[str],
    _option(
        _WHAT,
        "--teacher",
        help="The checkpoint that was pruned: learn its velocity and its blocks' outputs as well.",
        show_default=False,
    ),
]
TeacherWeight = Annotated[
    float,
    _option(
        _WHAT, "--teacher-weight", min=0, max=1, help="Share of the loss that is the teacher's velocity."
    ),
]
FeatureWeight = Annotated[
    float, _option(_WHAT, "--feature-weight", min=0, help="Of the distance between the blocks' outputs.")
]

Accumulate = Annotated[
    int,
    _option(
        _MEMORY,
        "--accumulate",
        min=1,
        help="Gradient accumulation: put a process's share of a step through the model in so many parts.",
    ),
]
Checkpointing = Annotated[
    bool,
    _option(_MEMORY, "--gradient-checkpointing", help="Compute each block twice: less memory, slower."),
]
Precision = Annotated[
    Optional[str],
    _option(
        _MEMORY,
        "--precision",
        help="fp32, or bf16 autocast. Default: bf16 on a GPU, fp32 on a CPU.",
        show_default=False,
    ),
]
TrainDevice = Annotated[
    Optional[str],
    _option(
        _MEMORY, "--device", help="cpu, cuda, cuda:1, mps; default: the best there is.", show_default=False
    ),
]
Cache = Annotated[
    int, _option(_MEMORY, "--cache", min=0, help="Encode this many images once and train on these.")
]

SaveEvery = Annotated[
    int,
    _option(_STATE, "--save-every", min=0, help="Save the state every so many steps; 0: every ten minutes."),
]
KeepLast = Annotated[int, _option(_STATE, "--keep-last", min=1, help="Saved states that stay.")]
Resume = Annotated[
    bool, _option(_STATE, "--resume/--restart", help="Continue an interrupted run of the same settings.")
]
Tracker = Annotated[
    Optional[str],
    _option(_STATE, "--tracker", help="Log every step to tensorboard, wandb or trackio.", show_default=False),
]
