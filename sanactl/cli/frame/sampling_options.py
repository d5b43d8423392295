"""The options of the commands that draw images: prompts and settings of the sampler."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import MACHINE, choices

__all__ = [
    "Compile",
    "FixedBatch",
    "FlowShift",
    "GuidanceScale",
    "Height",
    "Instruction",
    "Negative",
    "Offload",
    "Prompt",
    "PromptsFile",
    "Steps",
    "TextPadding",
    "VaeTiling",
    "Width",
]

SAMPLING = "Sampling"  # the panel of the help

TextPadding = Annotated[
    str,
    typer.Option(
        "--text-padding",
        help="Pad the text to the next of a few lengths (trim), or to the length of training (full) as diffusers does. "
        "The images differ in rounding.",
        rich_help_panel=SAMPLING,
        **choices("trim", "full"),
    ),
]
FixedBatch = Annotated[
    Optional[int],
    typer.Option(
        "--fixed-batch",
        min=1,
        metavar="INT",
        help="Images that are computed together, which decides their rounding. Default: the folder's, else 1 to 8 by the "
        "model, the size and the number of images.",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
PromptsFile = Annotated[
    Optional[str],
    typer.Option(
        "--prompts",
        "-p",
        metavar="FILE",
        help="A file of prompts: plain text with one prompt a line, JSONL such as GenEval's, or FILE#COLUMN for a column "
        "of a CSV, TSV, JSON or Parquet table; - for stdin. shapes names the 360 built-in evaluation prompts. Default: the pipe's prompts, else built-in ones.",
        show_default=False,
    ),
]
Prompt = Annotated[
    Optional[list[str]],
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="One prompt. Give the option again for each further prompt. Default: those of --prompts.",
        show_default=False,
    ),
]
Steps = Annotated[
    Optional[int],
    typer.Option(
        "--steps",
        min=1,
        metavar="INT",
        help="Number of denoising steps. Default: the checkpoint's own, else 20 (SANA-Sprint: 2).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
GuidanceScale = Annotated[
    Optional[float],
    typer.Option(
        "--guidance",
        metavar="FLOAT",
        help="Guidance scale; 1 turns guidance off. Default: the checkpoint's own, else 4.5.",
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
        help="Flow shift of the scheduler's noise levels. Default: the scheduler's own (SANA: 3).",
        show_default=False,
        rich_help_panel=SAMPLING,
    ),
]
Negative = Annotated[
    Optional[str],
    typer.Option(
        "--negative",
        metavar="TEXT",
        help="Negative prompt. Default: the checkpoint's own, else the empty prompt.",
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
VaeTiling = Annotated[
    str,
    typer.Option(
        "--vae-tiling",
        help="Whether the autoencoder decodes in tiles, which takes less memory and changes pixels at the seams; "
        "auto is on above 1024 pixels.",
        rich_help_panel=SAMPLING,
        **choices("auto", "on", "off"),
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the transformer with torch.compile, for long runs; it changes rounding.",
        rich_help_panel=SAMPLING,
    ),
]
Offload = Annotated[
    str,
    typer.Option(
        "--offload",
        help="Where models wait while a GPU does not need them: none is on the GPU, model moves whole models, "
        "group moves each block.",
        rich_help_panel=MACHINE,
        **choices("none", "model", "group"),
    ),
]
