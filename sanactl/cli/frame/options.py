"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.files.dtypes import WEIGHT_DTYPES

__all__ = [
    "BatchSize",
    "CheckpointArgument",
    "ComponentsFrom",
    "Device",
    "DryRun",
    "Dtype",
    "FlowShift",
    "Force",
    "GuidanceScale",
    "Height",
    "Instruction",
    "Link",
    "Negative",
    "Output",
    "Pipeline",
    "Plot",
    "Prompt",
    "PromptsFile",
    "RecordsArgument",
    "Revision",
    "Seed",
    "ShardSize",
    "Sheet",
    "Steps",
    "Width",
]

# Panels of a command's help.
OUTPUT, SAMPLING, MACHINE = "Output", "Sampling", "Machine"

CheckpointArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="CHECKPOINT",
        help="A .st file, a diffusers or pipeline folder, or a Hub id; - reads a record from stdin. "
        "Default: the pipe's, else the newest in this folder's journal, else the built-in base.",
        show_default=False,
    ),
]
RecordsArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RECORDS",
        help="A JSONL file of records, a folder of samples, or - for stdin. "
        "Default: the pipe's, else the newest in this folder's journal.",
        show_default=False,
    ),
]
Output = Annotated[
    Optional[Path],
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="Where to write. Default: a name made from the input's, in this folder.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", "-f", help="Overwrite an output that exists.", rich_help_panel=OUTPUT),
]
# A seed stands in records and in the journal: beyond 2^53 readers of JSON such as jq would round it.
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=2**53 - 1, metavar="INT", help="Seed of all random numbers, below 2^53."
    ),
]
Device = Annotated[
    Optional[str],
    typer.Option(
        "--device",
        metavar="NAME",
        help="Where the models run: cpu, cuda, cuda:1, mps. Default: a GPU if there is one.",
        show_default=False,
        rich_help_panel=MACHINE,
        autocompletion=lambda: ["cpu", "cuda", "mps"],
    ),
]
Dtype = Annotated[
    Optional[str],
    typer.Option(
        "--dtype",
        metavar="|".join(WEIGHT_DTYPES),
        help="Data type of the weights. Default: bf16 on a GPU, fp32 on a CPU.",
        show_default=False,
        rich_help_panel=MACHINE,
        autocompletion=lambda: [*WEIGHT_DTYPES],
    ),
]
BatchSize = Annotated[
    int,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        metavar="INT",
        help="Images at once. It does not change the result.",
        rich_help_panel=MACHINE,
    ),
]
PromptsFile = Annotated[
    Optional[str],
    typer.Option(
        "--prompts",
        "-p",
        metavar="FILE",
        help="A file of prompts: text, one a line, or JSONL such as GenEval's; - for stdin. "
        "`shapes` names the built-in evaluation prompts.",
        show_default=False,
    ),
]
Prompt = Annotated[
    Optional[list[str]],
    typer.Option(
        "--prompt", metavar="TEXT", help="A prompt. Give the option again for another.", show_default=False
    ),
]
Steps = Annotated[
    Optional[int],
    typer.Option(
        "--steps",
        min=1,
        metavar="INT",
        help="Steps of the sampler. Default: the checkpoint's own, else 20 (SANA-Sprint: 2).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
GuidanceScale = Annotated[
    Optional[float],
    typer.Option(
        "--guidance",
        metavar="FLOAT",
        help="Guidance scale; 1 is no guidance. Default: the checkpoint's own, else 4.5.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
_SIZE = "in pixels. Default: the checkpoint's own, else 1024."
Height = Annotated[
    Optional[int],
    typer.Option(
        "--height",
        min=32,
        metavar="INT",
        help=f"Height of an image {_SIZE}",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Width = Annotated[
    Optional[int],
    typer.Option(
        "--width",
        min=32,
        metavar="INT",
        help=f"Width of an image {_SIZE}",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
FlowShift = Annotated[
    Optional[float],
    typer.Option(
        "--flow-shift",
        metavar="FLOAT",
        help="Flow shift of the scheduler. Default: the scheduler's own (SANA: 3).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Negative = Annotated[
    Optional[str],
    typer.Option(
        "--negative",
        metavar="TEXT",
        help="The negative prompt. Default: the checkpoint's own, else empty.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Instruction = Annotated[
    Optional[str],
    typer.Option(
        "--instruction",
        metavar="off|FILE",
        help="The instruction that the text encoder gets before every prompt: off, or a text file. "
        "Default: the checkpoint's own, else SANA's complex human instruction.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
ComponentsFrom = Annotated[
    Optional[str],
    typer.Option(
        "--components",
        metavar="FOLDER|HUB-ID",
        help="The pipeline that text encoder, tokenizer, autoencoder and scheduler come from. "
        "Default: those that the checkpoint names.",
        show_default=False,
    ),
]
Revision = Annotated[
    Optional[str],
    typer.Option(
        "--revision",
        metavar="NAME",
        help="Branch, tag or commit of a Hub id. Default: main.",
        show_default=False,
    ),
]
Plot = Annotated[
    Optional[Path],
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Also draw a chart, a .png or .svg file.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Sheet = Annotated[
    Optional[Path],
    typer.Option(
        "--sheet",
        metavar="FILE",
        help="Also draw the images into one picture, a .png, .jpg or .webp file.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the plan and write nothing.", rich_help_panel=OUTPUT)
]
ShardSize = Annotated[
    str,
    typer.Option(
        "--shard-size",
        metavar="SIZE",
        help="Largest file of a folder: 5GB, 512MiB.",
        rich_help_panel=OUTPUT,
    ),
]
Pipeline = Annotated[
    bool,
    typer.Option(
        "--pipeline",
        help="Write a whole pipeline folder, for SanaPipeline.from_pretrained.",
        rich_help_panel=OUTPUT,
    ),
]
Link = Annotated[
    bool,
    typer.Option(
        "--link/--copy",
        help="With --pipeline: links to the components in place of copies. A folder with links cannot be uploaded.",
        rich_help_panel=OUTPUT,
    ),
]
