"""Where the time of drawing one batch goes, for sanactl and for diffusers' pipeline: text, attention, feed-forward, VAE."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sanactl.bench.optim_cost import Timer
from sanactl.bench.programs import Draw, Parts
from sanactl.model import sampling_transformer

__all__ = ["PARTS", "our_places", "seconds_of_parts", "their_places"]

PARTS = ("text", "self-attention", "cross-attention", "feed-forward", "VAE", "rest")

# (the owner of a function, its name there, the part of `PARTS` that it is)
Place = tuple[Any, str, str]


def our_places(parts: Parts) -> list[Place]:
    """The functions of sanactl's parts."""
    return [
        *_around(parts),
        (sampling_transformer, "linear_attention", "self-attention"),
        (sampling_transformer, "cross_attention", "cross-attention"),
        (sampling_transformer, "feed_forward", "feed-forward"),
    ]


def their_places(parts: Parts) -> list[Place]:
    """The functions of diffusers' parts."""
    inner = {"attn1": "self-attention", "attn2": "cross-attention", "ff": "feed-forward"}
    blocks = parts.transformer.published.transformer_blocks
    return [
        *_around(parts),
        *((getattr(block, name), "forward", part) for block in blocks for name, part in inner.items()),
    ]


def _around(parts: Parts) -> list[Place]:
    return [(parts.text_encoder, "forward", "text"), (parts.vae, "decode", "VAE")]


def seconds_of_parts(
    draw: Draw, places: Sequence[Place], images: int, steps: int, device: torch.device
) -> dict[str, float]:
    """Seconds of each of `PARTS` in one call. A GPU is waited for after each part, so that the sum is more than a usual call's."""
    found = dict.fromkeys(PARTS, 0.0)
    with _timed(places, found, device):
        timer = Timer(device)
        draw(images, steps)
        total = timer.stop()[0] / 1000
    return {**found, "rest": total - sum(found.values())}


@contextmanager
def _timed(places: Sequence[Place], found: dict[str, float], device: torch.device) -> Iterator[None]:
    before: list[tuple[Any, str, bool, Any]] = []
    try:
        for owner, name, part in places:
            own = name in vars(owner)
            before.append((owner, name, own, getattr(owner, name)))
            setattr(owner, name, _watched(getattr(owner, name), part, found, device))
        yield
    finally:
        for owner, name, own, function in reversed(before):
            if own:
                setattr(owner, name, function)
            else:
                delattr(owner, name)


def _watched(
    function: Callable[..., Any], part: str, found: dict[str, float], device: torch.device
) -> Callable[..., Any]:
    def timed(*args: Any, **options: Any) -> Any:
        timer = Timer(device)
        try:
            return function(*args, **options)
        finally:
            found[part] += timer.stop()[0] / 1000

    return timed
