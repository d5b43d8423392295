"""The optimizer: Triton kernels against torch, and steps of CAME-8bit against the reference."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sanactl.bench.doctor.finding import Finding, Place, ok, warning, wrong
from sanactl.optim.blockwise import Quantized, dequantize, quantize
from sanactl.optim.came import CAME8bit
from sanactl.optim.reference import Hyper, came8bit_step
from sanactl.optim.state import block_size, moment_of

__all__ = ["check_kernels", "check_optimizer"]

# The largest difference of a kernel's results, relative to torch's (root mean square). Sums differ by the order of their
# terms. Of `apply`, a code of 8 bits may be one level off.
MOST = {"square_sums": 1e-4, "residual_sums": 1e-4, "apply": 1e-2}
# The largest difference of a parameter's change, relative to it.
MOST_OF_STEP = 1e-3
_STEPS = 3


def check_kernels(place: Place) -> Iterator[Finding]:
    """The Triton kernels against their torch twin, on a GPU or in Triton's interpreter."""
    device = place.device
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        yield ok("kernels", "not checked: no GPU; other devices use the same arithmetic in torch")
        return
    try:
        from sanactl.bench.kernels import SMALL_SHAPES, kernel_differences
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "triton":
            raise
        yield warning(
            "kernels", "triton is not installed: the optimizer uses torch, which is slower on a GPU"
        )
        return
    worst: dict[str, float] = {}
    for name, difference in kernel_differences(device, SMALL_SHAPES):
        worst[name] = max(worst.get(name, 0.0), difference)
    for name, difference in worst.items():
        says = f"differs from torch by {difference:.1e}"
        if difference <= MOST[name]:
            yield ok(name, says, difference)
        else:
            yield wrong(
                name,
                f"{says}, at most {MOST[name]:g} is allowed; SANACTL_NO_TRITON=1 makes the optimizer use torch",
                difference,
            )


def check_optimizer(place: Place) -> Iterator[Finding]:
    """A few steps of CAME-8bit on the device, and the same steps by the reference on the CPU."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(200, 128, generator=generator)
    gradients = torch.randn(_STEPS, *start.shape, generator=generator) * 1e-3
    expected, expected_moment = reference_steps(start, gradients)
    p = nn.Parameter(start.to(place.device, copy=True))
    optimizer = CAME8bit([p], lr=1e-2)
    for gradient in gradients:
        p.grad = gradient.to(p.device)
        optimizer.step()
    m = moment_of(p, optimizer.state[p], optimizer.param_groups[0])
    assert m.scale is not None and m.scheme is not None
    moment = dequantize(Quantized(m.values, m.scale, m.offset), m.block, m.scheme)
    found = {
        "parameter": (p.detach().cpu() - start, expected - start),
        "8-bit moment": (moment.cpu(), expected_moment),
    }
    for name, (ours, theirs) in found.items():
        apart = _apart(ours, theirs)
        says = f"after {_STEPS} steps on {place.device} it differs from the reference by {apart:.1e}"
        most = MOST_OF_STEP if name == "parameter" else MOST["apply"]
        if apart <= most:
            yield ok(name, says, apart)
        else:
            yield wrong(name, f"{says}, at most {most:g} is allowed; finetune would train wrongly", apart)


def reference_steps(start: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter and its first moment after the steps of `came8bit_step`, on the CPU."""
    group = CAME8bit([nn.Parameter(start.clone())], lr=1e-2).param_groups[0]
    size, scheme = block_size(start, group), group["scheme"]
    assert size is not None
    h = Hyper(group["lr"], group["betas"], group["eps"], group["clip_threshold"], group["weight_decay"])
    rows, cols = torch.zeros(start.shape[0]), torch.zeros(start.shape[1])
    state = {
        f"exp_avg_{name}_{side}": t for name in ("sq", "res") for side, t in (("row", rows), ("col", cols))
    }
    p, m = start, quantize(torch.zeros_like(start), size, scheme)
    for gradient in gradients:
        p, state, m = came8bit_step(p, gradient, state, m, h, block_size=size, scheme=scheme)
    return p, dequantize(m, size, scheme)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    apart = ((ours.double() - theirs.double()).norm() / theirs.double().norm()).item()
    return apart if apart == apart else float("inf")
