"""Compile every kernel for a GPU that need not be there: `compiled_kernels.py CAPABILITY`. Used by `test_triton`."""

from __future__ import annotations

import sys
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sanactl.optim import triton_kernels as kernels

OFFSETS = {kernels.FP32: "*fp32", kernels.LINEAR: "*fp32", kernels.ZERO: "*u8", kernels.DYNAMIC: "*fp32"}


def build(kernel: Any, types: str, constants: dict[str, Any], capability: int) -> None:
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types.split(), strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(kernel, signature, constants)
    built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=kernels.LAUNCH)
    assert built.asm["ptx"]
    assert built.asm["cubin"]


def main(capability: int) -> None:
    tile = {"TR": kernels.TILE_ROWS, "TC": kernels.TILE_COLS}
    build(kernels._square_kernel, "*bf16 *fp32 *fp32 i32 i32", tile, capability)
    for kind, offset in OFFSETS.items():
        values = "*fp32" if kind == kernels.FP32 else "*u8"
        moment = f"{values} *fp32 {offset} *fp32"
        types = f"*bf16 {moment} *fp32 *fp32 *fp32 *fp32 i32 i32 i32 i32"
        build(kernels._residual_kernel, types, {"KIND": kind, **tile}, capability)
        types = f"*bf16 *bf16 {moment} *fp32 *fp32 *fp32 *fp32 *fp32 *fp32 i32 i32 i32 i32 fp32 fp32 i32"
        constants = {
            "KIND": kind,
            "EDGES": kind != kernels.FP32,
            "STOCHASTIC": True,
            "TINY": 1e-35,
            "B": 2048,
        }
        build(kernels._apply_kernel, types, constants, capability)
    print("compiled")


if __name__ == "__main__":
    main(int(sys.argv[1]))
