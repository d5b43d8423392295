"""The table of optimizers by name; reading it imports neither torch nor an optimizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sanactl.errors import UsageError
from sanactl.optim.state_bytes import Shape, adamw8bit_bytes, adamw_bytes, came8bit_bytes, came_bytes

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = ["OPTIMIZERS", "OptimizerEntry", "find_optimizer", "optimizers_with"]


@dataclass(frozen=True)
class OptimizerEntry:
    """An optimizer that can be named, as in `finetune --optimizer`.

    Attributes:
        name: its name in options.
        source: the class, or "module:Class", which is imported when the optimizer is built. It is called with the
        parameters, lr and options.
        state_bytes: gives the bytes of its state with default options, without step counters. Its arguments are the
        parameters' shapes and the bytes of one weight.
        package: the pip package that it needs besides torch.
        defaults: options that are used unless the caller gives others.
        options: the settings of `finetune` that it accepts, besides the learning rate and the weight decay.
        shards: whether it takes parameters that are divided among processes (FSDP2).
        offloads: whether its state can lie in the machine's memory (`sanactl.optim.offload`).
    """

    name: str
    source: str | Callable[..., Optimizer]
    state_bytes: Callable[[Sequence[Shape], int], int]
    package: str | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    shards: bool = False
    offloads: bool = True

    def load(self) -> Callable[..., Optimizer]:
        """The class.

        Raises:
            UsageError: the package that it needs is not installed.
        """
        if not isinstance(self.source, str):
            return self.source
        module, _, name = self.source.partition(":")
        try:
            loaded: Callable[..., Optimizer] = getattr(import_module(module), name)
        except ImportError as error:
            if self.package is None:
                raise
            raise UsageError(
                f"the optimizer {self.name} needs the package {self.package}", hint=self._way_out
            ) from error
        return loaded

    def check_installed(self, option: str) -> None:
        """Raise UsageError if its package is missing, without importing it; `option` is the option that asks for it."""
        if self.package is None or not isinstance(self.source, str):
            return
        if find_spec(self.source.partition(":")[0].partition(".")[0]) is None:
            raise UsageError(f"{option} {self.name} needs the package {self.package}", hint=self._way_out)

    @property
    def _way_out(self) -> str:
        return f"pip install {self.package}, or use came8bit, which needs torch alone"


# The first is `finetune`'s default.
OPTIMIZERS: dict[str, OptimizerEntry] = {
    entry.name: entry
    for entry in (
        OptimizerEntry(
            "came8bit", "sanactl.optim.came:CAME8bit", came8bit_bytes, options=("scheme",), shards=True
        ),
        OptimizerEntry("came", "sanactl.optim.came:CAME", came_bytes, shards=True),
        # Parameter by parameter, each of AdamW's operations on a DTensor takes its time: 0.19 ms a parameter and step on a
        # CPU, fused 0.03.
        OptimizerEntry(
            "adamw",
            "torch.optim:AdamW",
            adamw_bytes,
            defaults={"fused": True},
            shards=True,
        ),
        OptimizerEntry(
            "adamw8bit",
            "bitsandbytes.optim:AdamW8bit",
            adamw8bit_bytes,
            package="bitsandbytes",
            offloads=False,
        ),
    )
}


def find_optimizer(name: str) -> OptimizerEntry:
    """The entry of a name.

    Raises:
        UsageError: there is no such optimizer.
    """
    if name not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {name!r}", hint=f"use one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def optimizers_with(option: str) -> list[str]:
    """The names of the optimizers that take an option of `finetune`."""
    return [entry.name for entry in OPTIMIZERS.values() if option in entry.options]
