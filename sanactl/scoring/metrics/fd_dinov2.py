"""The Fréchet distance of DINOv2's features as a metric of `sanactl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from sanactl.scoring.metrics.fid import FrechetDistance
from sanactl.scoring.metrics.of_sets import COMMON, REFERENCE, OfSets
from sanactl.scoring.metrics.protocol import Option

if TYPE_CHECKING:
    import torch

    from sanactl.scoring.distances.compare import Distance
    from sanactl.scoring.distances.networks import Network

__all__ = ["FdDinov2"]

MODEL = "facebook/dinov2-large"


@dataclass
class FdDinov2(OfSets):
    """Scores images by the Fréchet distance of their DINOv2 features from a reference's; the fields are options.

    Source: Stein et al. 2023, dgm-eval.

    Raises:
        UsageError: no reference, or no such device or dtype.
        InputError: the reference or the model cannot be used.
    """

    model: str = MODEL

    help: ClassVar[str] = """Measure how far images are from a reference, by DINOv2 (FD-DINOv2).

    [bold]sanactl eval fd-dinov2 many/ --reference MJHQ-30K/[/bold]

    It agrees better with people than FID does. The image records go to stdout as
    they are, then a score record; lower is better. All of them also go to
    fd-dinov2.jsonl. A stopped run goes on where it was when the same command is
    given again.
    """
    options: ClassVar[tuple[Option, ...]] = (
        REFERENCE,
        Option("model", "DINOv2 whose features are compared, a folder or Hub id.", MODEL, short="-m"),
        *COMMON,
    )

    def network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """See `sanactl.scoring.distances.networks.Dinov2Features`."""
        from sanactl.scoring.distances.networks import Dinov2Features

        return Dinov2Features(self.model, device, dtype)

    def distance(self) -> Distance:
        """See `sanactl.scoring.metrics.fid.FrechetDistance`."""
        return FrechetDistance("fd_dinov2")
