"""CAME and CAME-8bit (SANA-1.5, section 2.3) as torch optimizers; torch is all they need.

from sanactl.optim import CAME8bit

optimizer = CAME8bit(model.named_parameters(), lr=1e-4)

torch is imported when the first optimizer is used, so that light commands can read the table of optimizers.
"""

from typing import TYPE_CHECKING, Any

from sanactl.optim.build import build_optimizer
from sanactl.optim.table import OPTIMIZERS

if TYPE_CHECKING:
    from sanactl.optim.came import CAME, CAME8bit

__all__ = ["CAME", "OPTIMIZERS", "CAME8bit", "build_optimizer"]


def __getattr__(name: str) -> Any:
    if name in ("CAME", "CAME8bit"):
        from sanactl.optim import came

        return getattr(came, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
