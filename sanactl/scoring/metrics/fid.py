"""The Fréchet Inception distance as a metric of `sanactl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.scoring.metrics.of_sets import COMMON, INCEPTION, REFERENCE, OfInception
from sanactl.scoring.metrics.protocol import Option

if TYPE_CHECKING:
    from sanactl.scoring.distances.compare import Distance, Sets

__all__ = ["Fid", "FrechetDistance"]


class FrechetDistance:
    """Between the normal distributions of two sets of features; see `sanactl.scoring.distances.moments`."""

    sums, rows = True, False

    def __init__(self, name: str) -> None:
        self.name = name

    def measure(self, sets: Sets) -> dict[str, Any]:
        """See `sanactl.scoring.distances.compare.Distance`."""
        from sanactl.scoring.distances.moments import frechet_interval

        assert sets.images.moments is not None and sets.reference is not None
        value, ci = frechet_interval(sets.images.moments, sets.reference)
        return {"value": value, "ci": ci}


@dataclass
class Fid(OfInception):
    """Scores images by the distance of their Inception features from those of a reference; the fields are options.

    Raises:
        UsageError: no reference, no weights, or no such protocol, device or dtype.
        InputError: the reference or the weights cannot be used.
    """

    help: ClassVar[str] = """Measure how far images are from a reference, by InceptionV3 (FID).

    [bold]sanactl eval fid many/ --reference MJHQ-30K/[/bold]
    The reference's statistics can be kept, and given in place of the images:
    [bold]sanactl eval fid many/ -r MJHQ-30K/ --save-reference mjhq.npz[/bold]
    [bold]sanactl eval fid others/ -r mjhq.npz[/bold]

    The image records go to stdout as they are, then a score record; lower is
    better. All of them also go to fid.jsonl. A stopped run goes on where it was
    when the same command is given again.
    """
    options: ClassVar[tuple[Option, ...]] = (
        REFERENCE,
        *INCEPTION,
        *COMMON,
    )

    def distance(self) -> Distance:
        """See `FrechetDistance`."""
        return FrechetDistance("fid")
