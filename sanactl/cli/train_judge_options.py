"""The options of `train-judge --model`; those that `finetune` has, too, are declared there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import choices
from sanactl.training.judge.settings import TRAINED

_BUILTIN, _DATA, _STEPS, _WHAT, _STATE = (
    "The built-in world's judge",
    "Data",
    "Steps",
    "What is trained",
    "Watching and restarting",
)


def option(panel: str, *names: str, help: str, **more: Any) -> Any:
    """An option in a panel of the command's help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Model = Annotated[
    Optional[str],
    typer.Option(
        "--model",
        "-m",
        metavar="VLM",
        help="The vision-language model to fine-tune: the folder or Hub id of an image-text-to-text model of transformers. "
        "Default: a small judge of the built-in world, from random weights.",
        show_default=False,
    ),
]
Label = Annotated[
    str,
    option(
        _DATA,
        "--label",
        metavar="FIELD",
        help="Field of the records with the label: true or false, 0 or 1, yes or no.",
    ),
]
HeldOut = Annotated[
    Optional[str],
    option(
        _DATA,
        "--held-out",
        metavar="FILE",
        help="Labelled image records to measure on. Their prompts are not trained on. Default: a share of the prompts.",
        show_default=False,
    ),
]
HeldOutShare = Annotated[
    float,
    option(
        _DATA,
        "--held-out-share",
        metavar="FLOAT",
        min=0,
        max=1,
        help="Share of the prompts that is kept from training and measured, without --held-out.",
    ),
]
Balance = Annotated[
    bool,
    option(
        _DATA,
        "--balance/--no-balance",
        help="Draw right and wrong images in turn, or all images as they are.",
    ),
]
Dialogue = Annotated[
    str,
    option(
        _DATA,
        "--dialogue",
        metavar="NAME|FILE",
        help="The question: paper, reference, vqascore, or a text file, as for judge --judge-option dialogue=NAME.",
    ),
]
MaxPixels = Annotated[
    int,
    option(
        _DATA,
        "--max-pixels",
        metavar="INT",
        min=0,
        help="Larger images are made smaller first; 0 for no limit.",
    ),
]
Epochs = Annotated[
    float,
    option(
        _STEPS,
        "--epochs",
        metavar="FLOAT",
        min=0,
        help="Images to draw, as a multiple of the images that there are; --steps is in its place where it is given.",
    ),
]
WarmupRatio = Annotated[
    float,
    option(
        _STEPS,
        "--warmup-ratio",
        metavar="FLOAT",
        min=0,
        max=1,
        help="Share of the steps over which the learning rate rises linearly to its value.",
    ),
]
Clip = Annotated[
    float,
    option(
        _STEPS,
        "--clip",
        metavar="FLOAT",
        min=0,
        help="Largest norm of the gradient; 0 turns clipping off.",
    ),
]
Train = Annotated[
    str,
    option(
        _WHAT,
        "--train",
        **choices(*TRAINED),
        help="Weights to train: all (as NVILA is trained), all but the vision tower (as LLaVA is), or the language model.",
    ),
]
Lora = Annotated[
    int,
    option(
        _WHAT,
        "--lora",
        metavar="INT",
        min=0,
        help="Rank of LoRA adapters on the language model, which are trained in place of weights; 0 trains weights.",
    ),
]
Quantize = Annotated[
    str,
    option(
        _WHAT,
        "--quantize",
        **choices("4bit"),
        help="With --lora, load the language model in 4 bits by bitsandbytes (QLoRA). Default: not quantized.",
        show_default=False,
    ),
]
Merge = Annotated[
    bool,
    option(
        _WHAT,
        "--merge/--no-merge",
        help="Add the adapters to the weights at the end, or write a folder of the adapters alone.",
    ),
]
Steps = Annotated[
    Optional[int],
    option(
        _STEPS,
        "--steps",
        metavar="INT",
        min=0,
        help="Number of training steps. Default: what --epochs needs; without --model 4000.",
        show_default=False,
    ),
]
Batch = Annotated[
    Optional[int],
    option(
        _STEPS,
        "--batch-size",
        "-b",
        metavar="INT",
        min=1,
        help="Images of a step, over all processes and accumulated parts. Default: 8; without --model 32.",
        show_default=False,
    ),
]
LearningRate = Annotated[
    Optional[float],
    option(
        _STEPS,
        "--lr",
        metavar="FLOAT",
        min=0,
        help="Largest learning rate, after the warm-up. Default: 2e-5; without --model 2e-3.",
        show_default=False,
    ),
]
SaveEvery = Annotated[
    Optional[int],
    option(
        _STATE,
        "--save-every",
        metavar="INT",
        min=0,
        help="Number of steps from one saved state to the next; 0 saves every ten minutes. Default: 0; without --model 200.",
        show_default=False,
    ),
]
Rendered = Annotated[
    bool,
    option(
        _BUILTIN, "--rendered", help="Train only on rendered pictures with faults, without image records."
    ),
]
Start = Annotated[
    Optional[Path],
    option(
        _BUILTIN,
        "--start",
        metavar="FOLDER",
        help="Folder of a judge to start from. Default: random weights.",
        exists=True,
        show_default=False,
    ),
]
WarmupSteps = Annotated[
    int,
    option(
        _BUILTIN,
        "--warmup-steps",
        min=0,
        metavar="INT",
        help="Number of steps that train the vision tower alone.",
    ),
]
PoolSize = Annotated[
    int,
    option(_BUILTIN, "--pool-size", min=1, metavar="INT", help="Number of rendered pictures to train on."),
]
