"""The FID's InceptionV3 once more, as a list of layers, and random weights for it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional as f

# (name, kernel, padding, stride) after each other; a list is a choice of branches, which are joined.
A: list[Any] = [
    [("branch1x1", 1, 0, 1)],
    [("branch5x5_1", 1, 0, 1), ("branch5x5_2", 5, 2, 1)],
    [("branch3x3dbl_1", 1, 0, 1), ("branch3x3dbl_2", 3, 1, 1), ("branch3x3dbl_3", 3, 1, 1)],
    ["mean", ("branch_pool", 1, 0, 1)],
]
B: list[Any] = [
    [("branch3x3", 3, 0, 2)],
    [("branch3x3dbl_1", 1, 0, 1), ("branch3x3dbl_2", 3, 1, 1), ("branch3x3dbl_3", 3, 0, 2)],
    ["reduce"],
]
WIDE, HIGH = ((1, 7), (0, 3)), ((7, 1), (3, 0))
C: list[Any] = [
    [("branch1x1", 1, 0, 1)],
    [("branch7x7_1", 1, 0, 1), ("branch7x7_2", *WIDE, 1), ("branch7x7_3", *HIGH, 1)],
    [
        ("branch7x7dbl_1", 1, 0, 1),
        ("branch7x7dbl_2", *HIGH, 1),
        ("branch7x7dbl_3", *WIDE, 1),
        ("branch7x7dbl_4", *HIGH, 1),
        ("branch7x7dbl_5", *WIDE, 1),
    ],
    ["mean", ("branch_pool", 1, 0, 1)],
]
D: list[Any] = [
    [("branch3x3_1", 1, 0, 1), ("branch3x3_2", 3, 0, 2)],
    [
        ("branch7x7x3_1", 1, 0, 1),
        ("branch7x7x3_2", *WIDE, 1),
        ("branch7x7x3_3", *HIGH, 1),
        ("branch7x7x3_4", 3, 0, 2),
    ],
    ["reduce"],
]
ONE_THREE, THREE_ONE = ((1, 3), (0, 1), 1), ((3, 1), (1, 0), 1)


def last_blocks(pool: str) -> list[Any]:
    three, double = [("branch3x3_1", 1, 0, 1)], [("branch3x3dbl_1", 1, 0, 1), ("branch3x3dbl_2", 3, 1, 1)]
    return [
        [("branch1x1", 1, 0, 1)],
        [*three, ("branch3x3_2a", *ONE_THREE)],
        [*three, ("branch3x3_2b", *THREE_ONE)],
        [*double, ("branch3x3dbl_3a", *ONE_THREE)],
        [*double, ("branch3x3dbl_3b", *THREE_ONE)],
        [pool, ("branch_pool", 1, 0, 1)],
    ]


BLOCKS = {
    **{f"Mixed_5{x}": A for x in "bcd"},
    "Mixed_6a": B,
    **{f"Mixed_6{x}": C for x in "bcde"},
    "Mixed_7a": D,
    "Mixed_7b": last_blocks("mean"),
    "Mixed_7c": last_blocks("max"),
}
STEM: list[Any] = [
    ("Conv2d_1a_3x3", 3, 0, 2),
    ("Conv2d_2a_3x3", 3, 0, 1),
    ("Conv2d_2b_3x3", 3, 1, 1),
    "reduce",
    ("Conv2d_3b_1x1", 1, 0, 1),
    ("Conv2d_4a_3x3", 3, 0, 1),
    "reduce",
]


def run(state: dict[str, torch.Tensor], x: torch.Tensor, layers: list[Any], prefix: str = "") -> torch.Tensor:
    for layer in layers:
        if layer == "reduce":
            x = f.max_pool2d(x, 3, 2)
        elif layer == "max":
            x = f.max_pool2d(x, 3, 1, 1)
        elif layer == "mean":
            # Sums over sums of ones: outside the image nothing is counted.
            ones = torch.ones_like(x[:1, :1])
            x = f.avg_pool2d(x, 3, 1, 1) / f.avg_pool2d(ones, 3, 1, 1)
        else:
            name, _, padding, stride = layer
            t = {k: state[f"{prefix}{name}.{k}"].to(x.dtype) for k in KEYS}
            x = f.conv2d(x, t["conv.weight"], stride=stride, padding=padding)
            scale = (t["bn.weight"] / (t["bn.running_var"] + 1e-3).sqrt()).view(1, -1, 1, 1)
            x = ((x - t["bn.running_mean"].view(1, -1, 1, 1)) * scale + t["bn.bias"].view(1, -1, 1, 1)).relu()
    return x


KEYS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


def features(state: dict[str, torch.Tensor], x: torch.Tensor) -> dict[int, torch.Tensor]:
    """All that can be taken of [N, 3, 299, 299], -1 to 1, by the number of features."""
    found = {64: run(state, x, STEM[:4])}
    x = found[192] = run(state, found[64], STEM[4:])
    for block, branches in BLOCKS.items():
        x = torch.cat([run(state, x, layers, f"{block}.") for layers in branches], 1)
        if block == "Mixed_6e":
            found[768] = x
    found[2048] = x
    return {n: t.mean((2, 3)) for n, t in found.items()}


@lru_cache(maxsize=1)
def random_state() -> dict[str, torch.Tensor]:
    """Random weights under the names of the public file, float16, with its classifier; not to be changed."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes().items():
        if name.endswith("conv.weight"):
            value = torch.randn(shape, generator=generator) * (2 / math.prod(shape[1:])) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            value = 0.5 + torch.rand(shape, generator=generator)
        else:
            value = 0.1 * torch.randn(shape, generator=generator)
        state[name] = value.half()
    return state


@lru_cache(maxsize=1)
def first_layers() -> dict[str, torch.Tensor]:
    """Random weights up to the first 64 features, and ones that take no room in a file after them."""
    generator = torch.Generator().manual_seed(1)
    state = {name: torch.ones(1).half().expand(shape) for name, shape in shapes().items()}
    for layer in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        shape = state[f"{layer}.conv.weight"].shape
        state[f"{layer}.conv.weight"] = (torch.randn(shape, generator=generator) / 4).half()
        state[f"{layer}.bn.bias"] = torch.randn(shape[:1], generator=generator).half()
    return state


def shapes() -> dict[str, tuple[int, ...]]:
    """Of the tensors in the public file."""
    from sanactl.scoring.distances.inception import InceptionV3

    with torch.device("meta"):
        wanted = InceptionV3().state_dict()
    found = {name: tuple(t.shape) for name, t in wanted.items() if not name.endswith("num_batches_tracked")}
    return {**found, "fc.weight": (1008, 2048), "fc.bias": (1008,)}
