"""What a check is given, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sanactl.errors import SanactlError

if TYPE_CHECKING:
    import torch

__all__ = ["Finding", "Place", "State", "ok", "raised", "warning", "wrong"]

State = Literal["ok", "warning", "wrong"]
_LONGEST = 300  # characters of another library's error


@dataclass(frozen=True)
class Finding:
    """One row.

    Attributes:
        of: what was looked at, such as a device or a dtype.
        state: `wrong` means that results cannot be trusted or a command cannot work; `warning` means that something is
            missing, slow or scarce.
        says: one sentence without a full stop.
        value: the measured number; None if there is none.
        facts: further fields of the record, as JSON.
    """

    of: str
    state: State
    says: str
    value: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def ok(of: str, says: str, value: float | None = None, **facts: Any) -> Finding:
    return Finding(of, "ok", says, value, facts)


def warning(of: str, says: str, value: float | None = None, **facts: Any) -> Finding:
    return Finding(of, "warning", says, value, facts)


def wrong(of: str, says: str, value: float | None = None, **facts: Any) -> Finding:
    return Finding(of, "wrong", says, value, facts)


def raised(of: str, error: Exception) -> Finding:
    """The finding that a check of something failed with an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else "no message"
    if not isinstance(error, SanactlError):
        said = f"{type(error).__name__}: {said}"
    return wrong(of, said if len(said) <= _LONGEST else f"{said[: _LONGEST - 3]}...")


@dataclass(frozen=True)
class Place:
    """Where checks are made.

    Attributes:
        named: the device that the user named, or None.
        folder: the folder whose disk is looked at.
    """

    named: str | None = None
    folder: Path = Path(".")

    @cached_property
    def device(self) -> torch.device:
        """The device that models run on."""
        from sanactl.model.conditioning import pick_device

        return pick_device(self.named)

    @cached_property
    def devices(self) -> list[torch.device]:
        """The named device, or else all devices of this machine, the CPU first."""
        import torch

        if self.named is not None:
            return [self.device]
        found = [torch.device("cpu")]
        found += [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        return found + ([self.device] if self.device.type == "mps" else [])
