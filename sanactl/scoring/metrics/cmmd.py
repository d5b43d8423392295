"""CMMD, the maximum mean discrepancy of CLIP's vectors, as a metric of `sanactl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.scoring.metrics.of_sets import COMMON, REFERENCE, OfSets
from sanactl.scoring.metrics.protocol import Option

if TYPE_CHECKING:
    import torch

    from sanactl.scoring.distances.compare import Distance, Sets
    from sanactl.scoring.distances.networks import Network

__all__ = ["ClipDistance", "Cmmd"]

MODEL = "openai/clip-vit-large-patch14-336"


class ClipDistance:
    """1,000 times MMD^2 with a Gaussian kernel of sigma 10; see `sanactl.scoring.distances.kernels`."""

    name, sums, rows = "cmmd", False, True

    def measure(self, sets: Sets) -> dict[str, Any]:
        """See `sanactl.scoring.distances.compare.Distance`."""
        from sanactl.scoring.distances.kernels import cmmd

        found = cmmd(sets.images.rows, sets.rows, sets.images.groups)
        return {"value": found.value, "ci": found.ci}


@dataclass
class Cmmd(OfSets):
    """Scores images by the discrepancy of their CLIP vectors from a reference's; the fields are options.

    Source: Jayasumana et al. 2024.

    Raises:
        UsageError: no reference, or no such device or dtype.
        InputError: the reference or the model cannot be used.
    """

    model: str = MODEL

    help: ClassVar[str] = """Measure how far images are from a reference, by a kernel on CLIP (CMMD).

    [bold]sanactl eval cmmd many/ --reference MJHQ-30K/[/bold]

    The image records go to stdout as they are, then a score record; lower is
    better. All of them also go to cmmd.jsonl. A stopped run goes on where it was
    when the same command is given again.
    """
    options: ClassVar[tuple[Option, ...]] = (
        REFERENCE,
        Option("model", "CLIP whose vectors are compared, a folder or Hub id.", MODEL, short="-m"),
        *COMMON,
    )

    def network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """See `sanactl.scoring.distances.networks.ClipFeatures`."""
        from sanactl.scoring.distances.networks import ClipFeatures

        return ClipFeatures(self.model, device, dtype)

    def distance(self) -> Distance:
        """See `ClipDistance`."""
        return ClipDistance()
