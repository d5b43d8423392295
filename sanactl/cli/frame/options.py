"""Options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.files.dtypes import WEIGHT_DTYPES

__all__ = [
    "MAX_BAD",
    "BatchSize",
    "CheckpointArgument",
    "ComponentsFrom",
    "Device",
    "DryRun",
    "Dtype",
    "Force",
    "Link",
    "MaxBad",
    "Output",
    "Pipeline",
    "Plot",
    "RecordsArgument",
    "Revision",
    "Seed",
    "ShardOf",
    "ShardSize",
    "Sheet",
    "batch_size_option",
    "choices",
]

# Panels of a command's help.
OUTPUT, MACHINE = "Output", "Machine"


def choices(*values: str) -> dict[str, Any]:
    """Arguments for declaring an option with a fixed set of values: their list in the help, and their completion."""
    return {"metavar": "|".join(values), "autocompletion": lambda: [*values]}


CheckpointArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="CHECKPOINT",
        help="The checkpoint: a .st file, a diffusers or pipeline folder, a native .pth, a Hub id, or - for a record on "
        "stdin. Default: the pipe's, else the newest in this folder's journal, else the built-in base.",
        show_default=False,
    ),
]
RecordsArgument = Annotated[
    Optional[str],
    typer.Argument(
        metavar="RECORDS",
        help="The records: a JSONL file, a folder of samples, or - for stdin. "
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
        help="Path to write to. Default: a name made from the input's, in this folder.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Force = Annotated[
    bool,
    typer.Option("--force", "-f", help="Replace an output that exists.", rich_help_panel=OUTPUT),
]
# Records and the journal contain seeds. JSON readers such as jq round numbers beyond 2^53.
Seed = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=2**53 - 1, metavar="INT", help="Seed of all random numbers, from 0 to 2^53 - 1."
    ),
]
MAX_BAD = "Number of damaged images to skip before the run stops; each is named."
MaxBad = Annotated[int, typer.Option("--max-bad", min=0, metavar="INT", help=MAX_BAD)]
Device = Annotated[
    Optional[str],
    typer.Option(
        "--device",
        metavar="NAME",
        help="Device that the models run on: cpu, cuda, cuda:1, mps. Default: a GPU if there is one, else the CPU.",
        show_default=False,
        rich_help_panel=MACHINE,
        autocompletion=lambda: ["cpu", "cuda", "mps"],
    ),
]
Dtype = Annotated[
    Optional[str],
    typer.Option(
        "--dtype",
        help="Data type of the weights. Default: bf16 on a GPU, fp32 on a CPU.",
        show_default=False,
        rich_help_panel=MACHINE,
        **choices(*WEIGHT_DTYPES),
    ),
]
ShardOf = Annotated[
    Optional[str],
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of the work, from 0 to N - 1, as one of N independent jobs; sanactl merge joins what they write. "
        "Default: all of the work.",
        show_default=False,
        rich_help_panel=MACHINE,
    ),
]


def batch_size_option(help: str) -> Any:
    """The option --batch-size, with what it counts."""
    return typer.Option("--batch-size", "-b", min=1, metavar="INT", help=help, rich_help_panel=MACHINE)


BatchSize = Annotated[
    int, batch_size_option("Images that are computed at once. The result does not depend on it.")
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
        help="Also draw a chart into this .png or .svg file. Default: no chart.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Sheet = Annotated[
    Optional[Path],
    typer.Option(
        "--sheet",
        metavar="FILE",
        help="Also draw all images into this one .png, .jpg or .webp file. Default: no sheet.",
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
        help="Size of the largest file in a folder, such as 5GB or 512MiB.",
        rich_help_panel=OUTPUT,
    ),
]
Pipeline = Annotated[
    bool,
    typer.Option(
        "--pipeline",
        help="Write a whole pipeline folder, which SanaPipeline.from_pretrained loads.",
        rich_help_panel=OUTPUT,
    ),
]
Link = Annotated[
    bool,
    typer.Option(
        "--link/--copy",
        help="With --pipeline, link to the components instead of copying them. A folder with links cannot be uploaded.",
        rich_help_panel=OUTPUT,
    ),
]
