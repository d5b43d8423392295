"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

__all__ = [
    "BatchSize", "CheckpointArgument", "Copy", "Device", "DryRun", "Dtype", "Force", "Instruction", "Negative",
    "Output", "Pipeline", "Plot", "Prompt",
    "PromptsFile", "RecordsArgument", "Revision", "Seed", "ShardSize", "Sheet",
]  # fmt: skip

OUTPUT = "Output"  # the panel of a command's help

CheckpointArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="CHECKPOINT",
        help="A .st file, a diffusers or pipeline folder, or a Hub id; - reads a record from stdin. "
        "Default: what the pipe brings, else the newest that this folder's journal knows, else the built-in base.",
        show_default=False,
    ),
]
RecordsArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RECORDS",
        help="A JSONL file of records, or - for stdin. Default: the pipe, else the newest of this folder.",
        show_default=False,
    ),
]
Output = Annotated[
    Optional[Path],
    typer.Option(
        "--output",
        "-o",
        help="Where to write; by default a natural name in this folder.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", "-f", help="Overwrite an output that exists.", rich_help_panel=OUTPUT),
]
# A seed stands in records and in the journal: beyond 2^53 readers of JSON such as jq would round it.
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**53 - 1, help="Seed of everything random.")]
Device = Annotated[
    Optional[str],
    typer.Option("--device", help="cpu, cuda, cuda:1, mps; default: the best there is.", show_default=False),
]
Dtype = Annotated[
    Optional[str],
    typer.Option(
        "--dtype", help="fp32, bf16 or fp16; default: bf16 on a GPU, fp32 on a CPU.", show_default=False
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", "-b", min=1, help="How many at once.")]
PromptsFile = Annotated[
    Optional[str],
    typer.Option(
        "--prompts",
        "-p",
        help="A file of prompts: text, one a line, or JSONL such as GenEval's; - for stdin.",
        show_default=False,
    ),
]
Prompt = Annotated[
    Optional[list[str]],
    typer.Option("--prompt", help="A prompt; give it again for another.", show_default=False),
]
Negative = Annotated[
    Optional[str],
    typer.Option(
        "--negative",
        metavar="TEXT",
        help="The negative prompt: what guidance leads away from. Default: the checkpoint's, else empty.",
        show_default=False,
    ),
]
Instruction = Annotated[
    Optional[str],
    typer.Option(
        "--instruction",
        metavar="off|FILE",
        help="The instruction that the text encoder reads before every prompt: off, or a text file. "
        "Default: the checkpoint's choice, else SANA's complex human instruction.",
        show_default=False,
    ),
]
Revision = Annotated[
    Optional[str], typer.Option("--revision", help="Branch, tag or commit of a Hub id.", show_default=False)
]
Plot = Annotated[
    Optional[Path],
    typer.Option("--plot", help="Also draw it into this .png or .svg file.", show_default=False),
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
        help="Largest shard where a folder is written: 5GB, 512MiB.",
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
Copy = Annotated[
    bool,
    typer.Option(
        "--copy", help="With --pipeline: copy the components, in place of links.", rich_help_panel=OUTPUT
    ),
]
