"""Two small real training tasks on which optimizers are compared: text and images, seconds on a CPU core."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MakeOptimizer = Callable[[list[tuple[str, nn.Parameter]]], torch.optim.Optimizer]


class WordModel(nn.Module):
    """Predict a word from the 8 before it. Most rows of the embedding have no gradient at most steps."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, 32)
        self.inner = nn.Linear(8 * 32, 128)
        self.norm = nn.LayerNorm(128)
        self.outer = nn.Linear(128, 160)
        self.head = nn.Linear(160, words)

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.inner(self.embed(x).flatten(1)))
        return self.head(F.gelu(self.outer(self.norm(h))))


class Denoiser(nn.Module):
    """Velocity of flow matching on 12 px images: SANA's GLU feed-forward (1x1, depth-wise 3x3, 1x1), twice."""

    def __init__(self, width: int = 80) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, width, 3, padding=1)
        self.time = nn.Linear(16, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "inverted": nn.Conv2d(width, 4 * width, 1),
                    "depth": nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
                    "point": nn.Conv2d(2 * width, width, 1, bias=False),
                }
            )
            for _ in range(2)
        )
        self.leave = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        waves = t[:, None] * 2.0 ** torch.arange(8)
        h = self.enter(x) + self.time(torch.cat([waves.sin(), waves.cos()], 1))[:, :, None, None]
        for block in self.blocks:
            y, gate = block["depth"](F.silu(block["inverted"](F.rms_norm(h, h.shape[1:])))).chunk(2, dim=1)
            h = h + block["point"](y * F.silu(gate))
        return self.leave(h)


def discs(n: int, generator: torch.Generator) -> Tensor:
    """Coloured discs on coloured ground, [n, 3, 12, 12] in [-1, 1]."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12), indexing="ij")
    centre = torch.rand(n, 2, 1, 1, generator=generator) - 0.5
    radius = torch.rand(n, 1, 1, generator=generator) * 0.4 + 0.3
    inside = ((x - centre[:, 0]) ** 2 + (y - centre[:, 1]) ** 2).sqrt() < radius
    fore, ground = (torch.rand(2, n, 3, 1, 1, generator=generator) * 2 - 1).unbind()
    return torch.where(inside[:, None], fore, ground)


def text_loss(make: MakeOptimizer, steps: int = 200, seed: int = 0) -> float:
    """Train `WordModel` on argparse's source; the mean loss over the last fifth of the steps."""
    words = re.findall(r"\w+|\s+|[^\w\s]", inspect.getsource(argparse))
    index = {word: i for i, word in enumerate(sorted(set(words)))}
    codes = torch.tensor([index[word] for word in words])
    torch.manual_seed(seed)
    model = WordModel(len(index))

    def loss(generator: torch.Generator) -> Tensor:
        at = torch.randint(len(codes) - 9, (128,), generator=generator)[:, None] + torch.arange(9)
        return F.cross_entropy(model(codes[at][:, :8]), codes[at][:, 8])

    return _train(model, loss, make, steps, seed)


def image_loss(make: MakeOptimizer, steps: int = 150, seed: int = 0) -> float:
    """Train `Denoiser` by flow matching; the mean loss over the last fifth of the steps."""
    torch.manual_seed(seed)
    model = Denoiser()

    def loss(generator: torch.Generator) -> Tensor:
        x = discs(8, generator)
        noise = torch.randn(x.shape, generator=generator)
        t = torch.randn(8, generator=generator).sigmoid()
        mixed = x + t[:, None, None, None] * (noise - x)
        return F.mse_loss(model(mixed, t), noise - x)

    return _train(model, loss, make, steps, seed)


def _train(
    model: nn.Module, loss: Callable[[torch.Generator], Tensor], make: MakeOptimizer, steps: int, seed: int
) -> float:
    generator = torch.Generator().manual_seed(seed)
    optimizer = make(list(model.named_parameters()))
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * min(1.0, (step + 1) / 20)
        optimizer.zero_grad()
        now = loss(generator)
        now.backward()
        optimizer.step()
        losses.append(now.item())
    return sum(losses[-steps // 5 :]) / len(losses[-steps // 5 :])
