"""CAME and CAME-8bit (SANA-1.5, section 2.3) as torch optimizers; torch is all they need.

from sanactl.optim import CAME8bit

optimizer = CAME8bit(model.named_parameters(), lr=1e-4)
"""

from sanactl.optim.build import OPTIMIZERS, build_optimizer
from sanactl.optim.came import CAME, CAME8bit

__all__ = ["CAME", "OPTIMIZERS", "CAME8bit", "build_optimizer"]
