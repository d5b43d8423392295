"""The plan of a checkpoint to be written: where each tensor's bytes come from. Nothing here touches a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sanactl.checkpoint.sana import forward_flops
from sanactl.checkpoint.table import Checkpoint, TensorRef
from sanactl.files.content import zeros_hash
from sanactl.files.passing import PassingHashes
from sanactl.files.safetensors import tensor_bytes

__all__ = [
    "Blend",
    "Bytes",
    "Normal",
    "Ones",
    "Plan",
    "PlannedTensor",
    "Summary",
    "TensorSource",
    "Zeros",
    "copy_of",
]


@dataclass(frozen=True, slots=True)
class Bytes:
    """The concatenated bytes of these spans: a tensor, rows of a tensor, or several tensors joined by rows."""

    refs: tuple[TensorRef, ...]


@dataclass(frozen=True, slots=True)
class Zeros:
    """All zero; a hole on disk where the file system supports it."""


@dataclass(frozen=True, slots=True)
class Ones:
    """All one."""


@dataclass(frozen=True, slots=True)
class Normal:
    """Values of N(0, sigma^2). They depend only on `seed` and `name`, not on the dtype, other tensors or the machine."""

    sigma: float
    seed: int
    name: str


@dataclass(frozen=True, slots=True)
class Blend:
    """A weighted sum of tensors of one shape, plus noise, computed in fp32 and rounded once to the target's dtype.

    One term of weight 1 without noise is a cast.
    """

    terms: tuple[tuple[Bytes, float], ...]
    noise: Normal | None = None


TensorSource = Bytes | Zeros | Ones | Normal | Blend


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the checkpoint to be written.

    Attributes:
        dtype: safetensors' name.
        shape: dimensions.
        source: the source of its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    source: TensorSource

    def __post_init__(self) -> None:
        if isinstance(self.source, Bytes):
            have = sum(ref.nbytes for ref in self.source.refs)
            assert have == self.nbytes, self
            assert all(ref.dtype == self.dtype for ref in self.source.refs), self
        elif isinstance(self.source, Blend):
            for term, _ in self.source.terms:
                assert sum(math.prod(ref.shape) for ref in term.refs) == math.prod(self.shape), self
                assert len({ref.dtype for ref in term.refs}) == 1, self

    @property
    def nbytes(self) -> int:
        return tensor_bytes(self.dtype, self.shape)


def copy_of(ref: TensorRef) -> PlannedTensor:
    """A tensor copied byte for byte."""
    return PlannedTensor(ref.dtype, ref.shape, Bytes((ref,)))


@dataclass(frozen=True)
class Summary:
    """The numbers of a plan, for `--dry-run`. FLOPs are those of one forward pass of one image (`forward_flops`)."""

    blocks_before: int
    blocks_after: int
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    bytes_copied: int
    bytes_generated: int
    bytes_zero: int
    flops_before: int
    flops_after: int

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class Plan:
    """A checkpoint to be written.

    Attributes:
        tensors: target name to planned tensor, in the order of the data in the file.
        config: of the resulting `SanaTransformer2DModel`.
        before: the checkpoint that the plan starts from; None if there is none.
        components, sampling, lineage: see `Checkpoint`.
        extra: header strings to keep (the parent's modelspec keys).
        warnings: lines that the user should see before the plan is executed.
        layout: "diffusers", or the name of another layout in `sanactl.checkpoint.layouts`; `tensors` has its names.
        made: hashes of tensors that were computed when the plan was written.
    """

    tensors: dict[str, PlannedTensor]
    config: Mapping[str, Any]
    before: Checkpoint | None = None
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    lineage: list[dict[str, Any]] = field(default_factory=list)
    extra: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    layout: str = "diffusers"
    made: dict[str, bytes] = field(default_factory=dict)

    def signed_lineage(self) -> list[dict[str, Any]]:
        """The lineage with the digests of the last step's parents, as it is written.

        A digest needs the parent to be read, so it is not computed for a plan that is only shown.
        """
        if self.before is None or not self.lineage:
            return self.lineage
        *earlier, last = self.lineage
        parents = [
            parent if "digest" in parent else {**parent, "digest": self.before.digest}
            for parent in last.get("parents", [])
        ]
        return [*earlier, {**last, **({"parents": parents} if parents else {})}]

    def keep_hashes(self, passing: PassingHashes) -> None:
        """Keep the hashes of tensors that were computed during the write; `passing` has them by the tensors' `id()`."""
        for name, tensor in self.tensors.items():
            if (found := passing.hash(id(tensor), tensor.nbytes)) is not None:
                self.made[name] = found

    def known_hashes(self) -> dict[str, bytes]:
        """The hashes of tensors that need not be read after the write: copies, zeros, computed ones."""
        before = self.before
        if before is None:
            return {}
        if self.layout != "diffusers":  # without a cast, they are the same bytes under other names
            copied = all(isinstance(tensor.source, Bytes) for tensor in self.tensors.values())
            return dict(before.hashes) if copied else {}
        places = {ref: before.hashes[name] for name, ref in before.tensors.items()}
        known = dict(self.made)
        for name, tensor in self.tensors.items():
            if isinstance(tensor.source, Zeros):
                known[name] = zeros_hash(tensor.nbytes)
            elif isinstance(tensor.source, Bytes) and len(tensor.source.refs) == 1:
                ref = tensor.source.refs[0]
                known |= {name: places[ref]} if ref in places else {}
        return known

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def summary(self) -> Summary:
        """Blocks, parameters, bytes and FLOPs, before and after."""
        by_kind: dict[type, int] = {}
        for tensor in self.tensors.values():
            kind = type(tensor.source)
            by_kind[kind] = by_kind.get(kind, 0) + tensor.nbytes
        total, copied, zero = self.nbytes, by_kind.get(Bytes, 0), by_kind.get(Zeros, 0)
        before = self.before
        return Summary(
            blocks_before=before.num_blocks if before else 0,
            blocks_after=int(self.config["num_layers"]),
            parameters_before=before.num_parameters if before else 0,
            parameters_after=sum(math.prod(tensor.shape) for tensor in self.tensors.values()),
            bytes_before=before.nbytes if before else 0,
            bytes_after=total,
            bytes_copied=copied,
            bytes_generated=total - copied - zero,
            bytes_zero=zero,
            flops_before=forward_flops(before.config) if before else 0,
            flops_after=forward_flops(self.config),
        )
