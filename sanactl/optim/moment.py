"""The stored first moment of a matrix, in fp32 or 8 bits, read and written a few rows at a time.

The quantization is that of `blockwise`, the reference; here it works in place, on tiles that fit the cache.
"""

from __future__ import annotations

from itertools import pairwise
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from sanactl.optim.blockwise import TINY_RANGE, Scheme, dynamic_map, dynamic_midpoints, per_device

__all__ = ["Moment", "Scratch"]

# fp32 numbers near 1.5 * 2**23 are one apart: adding it rounds to the nearest integer, and the integer's low byte is
# the float's. That replaces round and a slow float-to-uint8 conversion (0.38 ns a value against 0.06 ns).
ROUND = 1.5 * 2.0**23

# Of `edge_places`, by device and shape: a model has few of these.
_places: dict[tuple[torch.device, int, int, int], Tensor] = {}


class Scratch(NamedTuple):
    """Three fp32 buffers of one tile each, reused by every tile and every matrix."""

    a: Tensor
    b: Tensor
    c: Tensor


class Moment(NamedTuple):
    """A matrix [R, C] of first moments.

    Attributes:
        values: fp32 [R, C], or uint8 codes [R, C], contiguous.
        scale, offset: as in `blockwise.Quantized`; None with fp32 values.
        block: flattened values a block; 1 with fp32 values.
        scheme: the quantization scheme; None with fp32 values.
        first: rows before these of the matrix that other processes have the rest of; blocks are that matrix's.
        edges: smallest and largest values [2, 2] that other processes are about to write into the first and the last
            block; infinite where they have none.
    """

    values: Tensor
    scale: Tensor | None = None
    offset: Tensor | None = None
    block: int = 1
    scheme: Scheme | None = None
    first: int = 0
    edges: Tensor | None = None

    @property
    def phase(self) -> int:
        """Values of the first block that other processes have."""
        return self.first * self.values.shape[1] % self.block

    def tiles(self, tile: int) -> list[tuple[int, int]]:
        """The matrix in runs of rows (first, last) of about `tile` values. They can be larger, since none cuts a block."""
        rows, cols = self.values.shape
        whole = self.block // gcd(self.block, cols)
        height = whole * max(1, tile // (whole * cols))
        cuts = range(height - self.first % height, rows, height)
        return list(pairwise([0, *cuts, rows])) if rows else []

    def read(self, first: int, last: int, out: Tensor) -> Tensor:
        """Rows first:last in fp32: in `out` [last - first, C], or the fp32 state itself."""
        if self.scheme is None:
            return self.values[first:last]
        for codes, x, scale, offset, _ in self._pieces(first, last, out):
            if self.scheme == "dynamic":
                torch.index_select(dynamic_map(out.device), 0, codes.flatten().int(), out=x.view(-1))
                x.mul_(scale)
            elif self.scheme == "linear":
                x.copy_(codes).mul_(scale).add_(offset)
            else:
                x.copy_(codes).sub_(offset).mul_(scale)
        return out

    def write(self, first: int, last: int, rows: Tensor, scratch: Tensor) -> None:
        """Store `rows` [last - first, C] as rows first:last; `scratch` has the same shape and is overwritten.

        fp32 values need no writing, because `read` returned the state itself.
        """
        if self.scheme is None:
            return
        pieces = zip(self._pieces(first, last, rows), self._pieces(first, last, scratch), strict=True)
        for (codes, x, scale, offset, blocks), (_, t, _, _, _) in pieces:
            if self.scheme == "dynamic":
                torch.abs(x, out=t)
                high = t.amax(dim=1, keepdim=True)
                low = -high
                self._widen(low, high, blocks)
                scale.copy_(torch.maximum(-low, high))
                torch.mul(x, torch.where(scale > TINY_RANGE, scale, 1.0).reciprocal(), out=t)
                codes.copy_(_dynamic_codes(t))
                continue
            low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
            self._widen(low, high, blocks)
            if self.scheme == "zero":
                low, high = low.clamp_(max=0), high.clamp_(min=0)
            scale.copy_((high - low) / 255)
            scale.masked_fill_(scale <= TINY_RANGE / 255, 0)
            per = torch.where(scale > 0, 1 / scale, 0.0)
            if self.scheme == "linear":
                offset.copy_(low)  # equation 1
                torch.sub(x, low, out=t).mul_(per).add_(ROUND)
            else:
                zero = (-low * per).round_()
                offset.copy_(zero)
                torch.mul(x, per, out=t).add_(zero + ROUND).clamp_(ROUND, ROUND + 255)
            codes.copy_(t.view(torch.int32))

    def _widen(self, low: Tensor, high: Tensor, blocks: slice) -> None:
        """Take the values of other processes into the bounds [N, 1] of some blocks, in place."""
        if self.edges is None:
            return
        assert self.scale is not None
        for edge, which in ((0, 0), (1, len(self.scale) - 1)):
            if blocks.start <= which < blocks.stop:
                at = which - blocks.start
                torch.minimum(low[at], self.edges[0, edge], out=low[at])
                torch.maximum(high[at], self.edges[1, edge], out=high[at])

    def edge_places(self) -> Tensor:
        """Flat places [2, block] of the first and of the last block's values; a shorter block's last place is repeated."""
        key = (self.values.device, self.values.numel(), self.block, self.phase)
        if key not in _places:
            size = self.values.numel()
            last = (size + self.phase - 1) // self.block * self.block - self.phase
            ends = ((0, min(self.block - self.phase, size)), (max(0, last), size))
            rows = [torch.arange(begin, begin + self.block).clamp_(max=end - 1) for begin, end in ends]
            _places[key] = torch.stack(rows).to(self.values.device)
        return _places[key]

    def edge_values(self, places: Tensor) -> Tensor:
        """The values at `edge_places`, in fp32 [2, block]."""
        assert self.scale is not None
        codes = self.values.view(-1)[places]
        scale = self.scale[[0, -1]].unsqueeze(1)
        if self.scheme == "dynamic":
            return dynamic_map(codes.device)[codes.int()] * scale
        assert self.offset is not None
        offset = self.offset[[0, -1]].unsqueeze(1)
        return codes * scale + offset if self.scheme == "linear" else (codes - offset.float()) * scale

    def _pieces(self, first: int, last: int, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor, Tensor, slice]]:
        """Rows first:last as (codes, x, scale, offset) in whole blocks [N, block], and the parts of blocks around them.

        The last of each is which blocks these are.
        """
        assert self.scale is not None
        cols = self.values.shape[1]
        start, stop = first * cols, last * cols
        head = min(-(start + self.phase) % self.block, stop - start)
        assert head == 0 or first == 0, "tiles begin at a block"
        offsets = self.scale if self.offset is None else self.offset
        flat_x, flat_codes = x.view(-1), self.values.view(-1)[start:stop]
        whole = (stop - start - head) // self.block
        tail = head + whole * self.block
        pieces = []
        for begin, end, n in ((0, head, 1), (head, tail, whole), (tail, stop - start, 1)):
            if end > begin:
                b = (start + self.phase + begin) // self.block
                blocks = slice(b, b + n)
                shape = (n, (end - begin) // n)
                pieces.append(
                    (
                        flat_codes[begin:end].view(shape),
                        flat_x[begin:end].view(shape),
                        self.scale[blocks].unsqueeze(1),
                        offsets[blocks].unsqueeze(1),
                        blocks,
                    )
                )
        return pieces


def _dynamic_codes(unit: Tensor) -> Tensor:
    """Codes of values in [-1, 1], the same as a binary search of the midpoints (25 ns a value on a CPU; this: 2)."""
    first, edge = _dynamic_table(unit.device)
    key = ((unit.view(torch.int32) >> 16) & 0xFFFF).flatten()
    codes = first.index_select(0, key).view(unit.shape)
    return codes.add_(unit > edge.index_select(0, key).view(unit.shape))


@per_device
def _dynamic_table(device: torch.device) -> tuple[Tensor, Tensor]:
    """For each upper half of an fp32 number: the code of the least number with that half, and the midpoint after it.

    The upper half holds 7 fraction bits: numbers that share it are less than 0.8 % apart, midpoints more, so at most
    one midpoint lies between two of them.
    """
    midpoints = dynamic_midpoints(torch.device("cpu"))
    halves = torch.arange(1 << 16, dtype=torch.int64)
    halves = torch.where(halves >= 1 << 15, halves - (1 << 16), halves) << 16
    ends = torch.stack([halves, halves + 0xFFFF]).to(torch.int32).view(torch.float32).nan_to_num(0.0)
    first = torch.bucketize(ends.amin(dim=0), midpoints)
    last = torch.bucketize(ends.amax(dim=0), midpoints)
    edge = torch.where(last > first, midpoints[first.clamp(max=254)], torch.inf)
    return first.to(torch.uint8).to(device), edge.to(device)
