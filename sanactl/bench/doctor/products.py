"""A matrix product in each dtype on each device, against float64 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sanactl.bench.doctor.finding import Finding, Place, ok, raised, warning, wrong

__all__ = ["check_dtypes"]

# The largest difference, relative to the result (root mean square). Rounding the result alone gives 2e-3 in bf16 and
# 2e-4 in fp16; sums over 512 products in fp32 give 1e-6 at most, and in the dtype itself some times its rounding.
MOST = {"fp32": 1e-5, "bf16": 1e-2, "fp16": 2e-3, "fp8": 1e-2}
# Of products in TF32, which rounds the factors to 10 bits.
MOST_TF32 = 2e-3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
# torch's fp8 products need a GPU of this compute capability.
FP8_CAPABILITY = (8, 9)


def check_dtypes(place: Place) -> Iterator[Finding]:
    """A row for each device and dtype."""
    for device in place.devices:
        try:
            for name, dtype in DTYPES.items():
                yield _finding(device, name, dtype)
            yield _fp8(device)
        except Exception as error:  # of a driver; the other devices do not depend on this one
            yield raised(str(device), error)


def product(a: Tensor, b: Tensor) -> Tensor:
    """The product as models compute it."""
    return a @ b


def _finding(device: torch.device, name: str, dtype: torch.dtype) -> Finding:
    of = f"{device} {name}"
    a, b = (t.to(dtype) for t in _factors())
    try:
        found = product(a.to(device), b.to(device)).cpu()
    except (RuntimeError, TypeError, NotImplementedError) as error:
        reason = (str(error).splitlines() or ["no message"])[0]
        if name == "fp32":
            return wrong(of, f"a matrix product fails: {reason}")
        return warning(of, f"there are no matrix products in {name}: {reason}")
    difference = _difference(found, a, b)
    if difference <= MOST[name]:
        return ok(of, f"differs from float64 by {difference:.1e}", difference)
    if name == "fp32" and difference <= MOST_TF32:
        return warning(
            of,
            f"differs from float64 by {difference:.1e}, as TF32 does: fp32 results are less exact than fp32",
            difference,
        )
    return wrong(
        of, f"differs from float64 by {difference:.1e}, at most {MOST[name]:g} is allowed", difference
    )


def _fp8(device: torch.device) -> Finding:
    """fp8 is a dtype to store weights in; some GPUs also multiply in it."""
    of, dtype = f"{device} fp8", torch.float8_e4m3fn
    a, b = _factors()
    # The CPU's conversion is the measure: both ends of it are exact in float64.
    stored, second = a.to(dtype), b.t().contiguous().to(dtype)
    try:
        back = a.to(device).to(dtype).float().cpu()
    except (RuntimeError, TypeError, NotImplementedError):
        return ok(of, "not there: fp8 checkpoints are read in another dtype")
    if not torch.equal(back, stored.float()):
        return wrong(of, "converting to fp8 and back gives other numbers than on the CPU")
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        return ok(of, "for storage alone: no products in fp8 on this device")
    one = torch.ones((), device=device)
    found = torch._scaled_mm(
        stored.to(device), second.to(device).t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16
    )
    difference = _difference(found.cpu(), stored, second.t())
    says = f"differs from float64 by {difference:.1e}"
    if difference <= MOST["fp8"]:
        return ok(of, says, difference)
    return wrong(of, f"{says}, at most {MOST['fp8']:g} is allowed", difference)


def _factors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(64, 512, generator=generator), torch.randn(512, 96, generator=generator)


def _difference(found: Tensor, a: Tensor, b: Tensor) -> float:
    """Of a product from that of the same factors in float64; infinity where it is NaN."""
    exact = a.double() @ b.double()
    apart = ((found.double() - exact).norm() / exact.norm()).item()
    return apart if apart == apart else float("inf")
