"""The interface of guards, which say how likely a prompt violates each of some policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Finding", "Guard"]


@dataclass(frozen=True)
class Finding:
    """What a guard found about a prompt.

    Attributes:
        probabilities: that the prompt violates each of the guard's policies, 0 to 1, in their order; None where there is
            none.
        fault: why there is none. Such a prompt is blocked.
        mass: the probability that the answer is yes or no at all, the lowest of the policies; 1 where that is not known.
    """

    probabilities: tuple[float, ...] | None
    fault: str | None = None
    mass: float = 1.0


class Guard(Protocol):
    """Looks at prompts.

    Attributes:
        name: what records call this guard.
        policies: the names of the policies that it checks.
        keeps: whether its findings are worth keeping for later runs.

    A guard can also have `notice`: a line that the user sees at every use.
    """

    name: str
    keeps: bool

    @property
    def policies(self) -> Sequence[str]: ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything except the prompt that its findings depend on, as JSON: weights, dtype, device, policies."""

    def check(self, prompts: Sequence[str]) -> list[Finding]:
        """One finding for each prompt, which does not depend on the other prompts.

        Args:
            prompts: none is empty.

        Raises:
            InputError: the guard cannot check any prompt (any longer).
        """
