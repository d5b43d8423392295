"""The options of `finetune` that decide how it runs: memory, watching and restarting."""

from __future__ import annotations

from typing import Annotated, Optional

from sanactl.cli.finetune_options import option
from sanactl.cli.frame.options import choices

_MEMORY, _STATE = "Memory", "Watching and restarting"

Accumulate = Annotated[
    int,
    option(
        _MEMORY,
        "--accumulate",
        metavar="INT",
        min=1,
        help="Number of parts that a process divides its share of a step into (gradient accumulation).",
    ),
]
Checkpointing = Annotated[
    bool,
    option(
        _MEMORY,
        "--gradient-checkpointing",
        help="Compute each block a second time in the backward pass, which takes less memory and more time.",
    ),
]
Fsdp = Annotated[
    bool,
    option(
        _MEMORY,
        "--fsdp",
        help="Divide weights, gradients and optimizer state among the processes of a launcher (FSDP2): less memory for each, more traffic.",
    ),
]
OffloadOptimizer = Annotated[
    bool,
    option(
        _MEMORY,
        "--offload-optimizer",
        help="On a GPU, keep the optimizer's state in the machine's memory; each step copies it there and back. Same results.",
    ),
]
Precision = Annotated[
    Optional[str],
    option(
        _MEMORY,
        "--precision",
        **choices("fp32", "bf16"),
        help="Precision of the forward and backward pass; bf16 is autocast. Default: bf16 on a GPU, fp32 on a CPU.",
        show_default=False,
    ),
]
TrainDevice = Annotated[
    Optional[str],
    option(
        _MEMORY,
        "--device",
        metavar="NAME",
        autocompletion=lambda: ["cpu", "cuda", "mps"],
        help="Device to train on: cpu, cuda, cuda:1, mps. Default: a GPU if there is one, else the CPU.",
        show_default=False,
    ),
]
Cache = Annotated[
    int,
    option(
        _MEMORY,
        "--cache",
        metavar="INT",
        min=0,
        help="Number of images to encode once before training, which then uses only these; 0 encodes at each step.",
    ),
]

SaveEvery = Annotated[
    int,
    option(
        _STATE,
        "--save-every",
        metavar="INT",
        min=0,
        help="Number of steps from one saved state to the next; 0 saves every ten minutes.",
    ),
]
KeepLast = Annotated[
    int, option(_STATE, "--keep-last", metavar="INT", min=1, help="Number of saved states that are kept.")
]
Resume = Annotated[
    bool,
    option(
        _STATE,
        "--resume/--restart",
        help="Continue an interrupted run with the same settings, or start it again.",
    ),
]
Tracker = Annotated[
    Optional[str],
    option(
        _STATE,
        "--tracker",
        **choices("tensorboard", "wandb", "trackio"),
        help="Also log every step to this tracker. Default: none.",
        show_default=False,
    ),
]
