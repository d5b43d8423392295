"""The options of `finetune` that decide what it learns: data, steps, and what is trained."""

from __future__ import annotations

from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import MAX_BAD, choices
from sanactl.model.sampling_settings import TEXT_PADDING
from sanactl.optim.table import OPTIMIZERS
from sanactl.training.settings import SCALINGS, SCHEDULES


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """An option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


_DATA, _STEPS, _WHAT = "Data", "Steps", "What is trained"

Data = Annotated[
    Optional[str],
    option(
        _DATA,
        "--data",
        "-d",
        metavar="DATA",
        help="Training images with captions: a folder with metadata.jsonl or text files, a .csv, .tsv or .jsonl that names images, .tar or "
        ".parquet files, a dataset id, a folder that encode made, a .jsonl of image records, or - for those on stdin. "
        "Default: image records of the pipe, else the built-in world's endless stream.",
        show_default=False,
    ),
]
Captions = Annotated[
    Optional[str],
    option(_DATA, "--captions", metavar="COLUMNS", help="Columns that captions are drawn from, with weights, such as text:0.7,short:0.3. Default: the first of text, caption, prompt and txt.", show_default=False),
]  # fmt: skip
CaptionChoice = Annotated[
    Optional[str],
    option(_DATA, "--caption-choice", metavar="RULE", help="Draw among an image's captions by their CLIP scores, as SANA: clipscore, or clipscore:25:0.1 for captions of a score of at least 25 with a temperature of 0.1. Default: by the weights of --captions.", show_default=False),
]  # fmt: skip
MinClipScore = Annotated[
    Optional[float],
    option(_DATA, "--min-clip-score", metavar="FLOAT", help="With --caption-choice, leave out images whose prompt has a smaller CLIP score. Default: 22, as SANA-1.5.", show_default=False),
]  # fmt: skip
Buckets = Annotated[
    bool,
    option(
        _DATA,
        "--buckets",
        help="Keep each image's aspect ratio approximately; the images of one step have one size.",
    ),
]
Streaming = Annotated[
    bool, option(_DATA, "--streaming", help="Read a dataset as a stream, without preparing a copy on disk.")
]
MaxBad = Annotated[
    int,
    option(
        _DATA,
        "--max-bad",
        metavar="INT",
        min=0,
        help=MAX_BAD,
    ),
]
Workers = Annotated[
    Optional[int],
    option(
        _DATA,
        "--workers",
        metavar="INT",
        min=0,
        help="Number of processes that read images ahead, for each process that trains. Default: up to 4 on a GPU, none on a CPU.",
        show_default=False,
    ),
]
TextDropout = Annotated[
    float,
    option(
        _DATA,
        "--text-dropout",
        metavar="FLOAT",
        min=0,
        max=1,
        help="Share of the captions that are replaced by the empty prompt.",
    ),
]
FlowShift = Annotated[
    float,
    option(
        _DATA,
        "--flow-shift",
        metavar="FLOAT",
        min=0,
        help="Flow shift of the noise levels; above 1 there is more noise.",
    ),
]

TextPadding = Annotated[
    str,
    option(
        _DATA,
        "--text-padding",
        **choices(*TEXT_PADDING),
        help="Pad the texts of a batch to the next of a few lengths (trim), or to the longest that there may be (full) as diffusers does. The steps differ in rounding.",
    ),
]

Steps = Annotated[
    int,
    option(
        _STEPS,
        "--steps",
        metavar="INT",
        min=1,
        help="Number of training steps, each one update of the weights.",
    ),
]
Batch = Annotated[
    int,
    option(
        _STEPS,
        "--batch-size",
        "-b",
        metavar="INT",
        min=1,
        help="Number of images of a step, over all processes and accumulated parts.",
    ),
]
LearningRate = Annotated[
    Optional[float],
    option(
        _STEPS,
        "--lr",
        metavar="FLOAT",
        min=0,
        help="Learning rate. Default: the checkpoint's own, else 2e-5.",
        show_default=False,
    ),
]
ScaleLr = Annotated[
    str,
    option(
        _STEPS,
        "--scale-lr",
        **choices(*SCALINGS),
        help="Multiply the learning rate by batch size / 256 (linear), by its square root (sqrt), or not at all.",
    ),
]
OptimizerName = Annotated[
    str,
    option(
        _STEPS,
        "--optimizer",
        **choices(*OPTIMIZERS),
        help="Optimizer. came8bit is the paper's CAME-8bit (paper, section 2.3); adamw8bit needs bitsandbytes.",
    ),
]
Scheme = Annotated[
    str,
    option(
        _STEPS,
        "--scheme",
        **choices("linear", "zero", "dynamic"),
        help="Quantization scheme of came8bit's first moment. Default: zero.",
        show_default=False,
    ),
]
OldScheme = Annotated[str, typer.Option("--code", hidden=True, help="The former name of --scheme.")]
Schedule = Annotated[
    str,
    option(
        _STEPS,
        "--schedule",
        **choices(*SCHEDULES),
        help="Learning rate after the warm-up: it stays constant, or falls to 0 along a cosine or a line.",
    ),
]
Warmup = Annotated[
    int,
    option(
        _STEPS,
        "--warmup",
        metavar="INT",
        min=0,
        help="Number of steps over which the learning rate rises linearly to its value.",
    ),
]
Clip = Annotated[
    Optional[float],
    option(
        _STEPS,
        "--clip",
        metavar="FLOAT",
        min=0,
        help="Largest norm of the gradient; 0 turns clipping off. Default: the checkpoint's own, else 0.1.",
        show_default=False,
    ),
]
WeightDecay = Annotated[
    float,
    option(_STEPS, "--weight-decay", metavar="FLOAT", min=0, help="Decoupled weight decay, as in AdamW."),
]
Ema = Annotated[
    float,
    option(
        _STEPS,
        "--ema",
        metavar="FLOAT",
        min=0,
        max=1,
        help="Decay of an average of the weights, which is written in place of the weights; 0 keeps no average.",
    ),
]

NewBlocksOnly = Annotated[
    bool,
    option(
        _WHAT,
        "--train-new-blocks-only",
        help="Train only the blocks that grow added; all other weights stay as they are.",
    ),
]
Lora = Annotated[
    int,
    option(
        _WHAT,
        "--lora",
        metavar="INT",
        min=0,
        help="Rank of LoRA adapters that are trained and merged at the end; 0 trains the weights themselves.",
    ),
]
TeacherRef = Annotated[
    Optional[str],
    option(
        _WHAT,
        "--teacher",
        metavar="CHECKPOINT",
        help="A teacher, usually the checkpoint that was pruned: the model also learns its velocity and its blocks' outputs. Default: no teacher.",
        show_default=False,
    ),
]
TeacherWeight = Annotated[
    float,
    option(
        _WHAT,
        "--teacher-weight",
        metavar="FLOAT",
        min=0,
        max=1,
        help="Weight of the teacher's velocity in the loss, from 0 to 1; the data has the rest.",
    ),
]
FeatureWeight = Annotated[
    float,
    option(
        _WHAT,
        "--feature-weight",
        metavar="FLOAT",
        min=0,
        help="Weight of the distance between the blocks' outputs and the teacher's.",
    ),
]
