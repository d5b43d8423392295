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
        help="A folder of images with metadata.jsonl or text files, a .csv, .tsv or .jsonl that names images, .tar or "
        ".parquet files, a dataset id, a folder that encode made, a .jsonl of image records, or - for those on stdin. "
        "Default: image records of the pipe, else the built-in world's endless stream.",
        show_default=False,
    ),
]
Captions = Annotated[
    Optional[str],
    _option(_DATA, "--captions", help="Columns to take captions from, with weights: text:0.7,short:0.3.", show_default=False),
]  # fmt: skip
Buckets = Annotated[
    bool,
    _option(
        _DATA, "--buckets", help="Keep each image's aspect ratio, nearly; the images of a step have one size."
    ),
]
Streaming = Annotated[
    bool, _option(_DATA, "--streaming", help="Read a dataset as a stream, without preparing a copy on disk.")
]
MaxBad = Annotated[
    int, _option(_DATA, "--max-bad", min=0, help="Skip up to this many damaged images; each is named.")
]
Workers = Annotated[
    Optional[int],
    _option(
        _DATA,
        "--workers",
        min=0,
        help="How many processes read images ahead, for each process that trains. Default: up to 4 on a GPU, none on a CPU.",
        show_default=False,
    ),
]
TextDropout = Annotated[
    float,
    _option(
        _DATA,
        "--text-dropout",
        min=0,
        max=1,
        help="Share of the captions that are replaced by the empty prompt.",
    ),
]
FlowShift = Annotated[
    float, _option(_DATA, "--flow-shift", min=0, help="Shift of the noise levels towards noise.")
]

Steps = Annotated[int, _option(_STEPS, "--steps", min=1, help="Updates of the weights.")]
Batch = Annotated[
    int,
    _option(
        _STEPS,
        "--batch-size",
        "-b",
        min=1,
        help="Images of a step, over all processes and accumulated parts.",
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
    str,
    _option(_STEPS, "--scale-lr", help="Scale the learning rate by batch size / 256: none, sqrt or linear."),
]
_NAMES = [*OPTIMIZERS]
OptimizerName = Annotated[
    str, _option(_STEPS, "--optimizer", help=f"Optimizer: {', '.join(_NAMES[:-1])} or {_NAMES[-1]}.")
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
    str,
    _option(
        _STEPS, "--schedule", help="Learning rate after the warm-up: constant, or cosine or linear down to 0."
    ),
]
Warmup = Annotated[
    int, _option(_STEPS, "--warmup", min=0, help="Steps over which the learning rate rises to its value.")
]
Clip = Annotated[
    Optional[float],
    _option(
        _STEPS,
        "--clip",
        min=0,
        help="Largest norm of the gradient; 0 sets no bound. Default: the checkpoint's own, else 0.1.",
        show_default=False,
    ),
]
WeightDecay = Annotated[
    float, _option(_STEPS, "--weight-decay", min=0, help="Decoupled weight decay, as in AdamW.")
]
Ema = Annotated[
    float,
    _option(
        _STEPS,
        "--ema",
        min=0,
        max=1,
        help="Decay of the weights' average, which is then written; 0 keeps no average.",
    ),
]

NewBlocksOnly = Annotated[
    bool,
    _option(_WHAT, "--train-new-blocks-only", help="Train only the blocks that grow added."),
]
Lora = Annotated[
    int,
    _option(
        _WHAT,
        "--lora",
        min=0,
        help="Train adapters of this rank and merge them at the end; 0 trains the weights.",
    ),
]
TeacherRef = Annotated[
    Optional[str],
    _option(
        _WHAT,
        "--teacher",
        help="The checkpoint that was pruned: also learn its velocity and its blocks' outputs.",
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
    float,
    _option(
        _WHAT,
        "--feature-weight",
        min=0,
        help="Weight of the distance between the blocks' outputs and the teacher's.",
    ),
]

Accumulate = Annotated[
    int,
    _option(
        _MEMORY,
        "--accumulate",
        min=1,
        help="Gradient accumulation: how many parts each process divides its share of a step into.",
    ),
]
Checkpointing = Annotated[
    bool,
    _option(
        _MEMORY,
        "--gradient-checkpointing",
        help="Compute each block a second time in the backward pass: less memory, more time.",
    ),
]
Precision = Annotated[
    Optional[str],
    _option(
        _MEMORY,
        "--precision",
        help="Precision of training: fp32, or bf16 (autocast). Default: bf16 on a GPU, fp32 on a CPU.",
        show_default=False,
    ),
]
TrainDevice = Annotated[
    Optional[str],
    _option(
        _MEMORY,
        "--device",
        help="Where to train: cpu, cuda, cuda:1, mps. Default: the best device there is.",
        show_default=False,
    ),
]
Cache = Annotated[
    int,
    _option(
        _MEMORY,
        "--cache",
        min=0,
        help="Encode this many images once, before training, and train only on these; 0: none.",
    ),
]

SaveEvery = Annotated[
    int,
    _option(
        _STATE,
        "--save-every",
        min=0,
        help="Steps from one saved state to the next; 0 saves every ten minutes.",
    ),
]
KeepLast = Annotated[int, _option(_STATE, "--keep-last", min=1, help="How many saved states are kept.")]
Resume = Annotated[
    bool,
    _option(
        _STATE,
        "--resume/--restart",
        help="Continue an interrupted run with the same settings, or start again.",
    ),
]
Tracker = Annotated[
    Optional[str],
    _option(
        _STATE, "--tracker", help="Also log every step to tensorboard, wandb or trackio.", show_default=False
    ),
]
