"""The kernel Inception distance as a metric of `sanactl eval`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.errors import InputError, UsageError
from sanactl.scoring.metrics.of_sets import COMMON, INCEPTION, REFERENCE, OfInception
from sanactl.scoring.metrics.protocol import Option

if TYPE_CHECKING:
    from sanactl.scoring.distances.compare import Distance, Sets

__all__ = ["KernelDistance", "Kid"]


@dataclass(frozen=True)
class KernelDistance:
    """MMD^2 with a cubic kernel; see `sanactl.scoring.distances.kernels`.

    Attributes:
        subsets: how many random subsets. subset_size: images of each set in one. seed: of their choice.
        exact: one estimate of all images in place of the subsets.
    """

    subsets: int
    subset_size: int
    seed: int
    exact: bool
    name: ClassVar[str] = "kid"
    sums: ClassVar[bool] = False
    rows: ClassVar[bool] = True

    def measure(self, sets: Sets) -> dict[str, Any]:
        """See `sanactl.scoring.distances.compare.Distance`.

        Raises:
            InputError: a subset is larger than a set.
        """
        from sanactl.scoring.distances.kernels import kid, kid_of_subsets

        images, reference = sets.images.rows, sets.rows
        fewest = min(len(images), len(reference))
        if not self.exact and fewest < self.subset_size and not sets.small:
            raise InputError(
                f"there are {fewest:,} images, and a subset has {self.subset_size:,}",
                hint="give a smaller --subset-size, or --exact",
            )
        if self.exact or fewest <= self.subset_size:
            found = kid(images, reference, sets.images.groups)
            return {"value": found.value, "ci": found.ci, "estimate": "unbiased, of all images"}
        value, spread = kid_of_subsets(
            images, reference, subsets=self.subsets, size=self.subset_size, seed=self.seed
        )
        return {
            "value": value,
            "ci": None,
            "subset_std": spread,
            "subsets": self.subsets,
            "subset_size": self.subset_size,
            "seed": self.seed,
        }


@dataclass
class Kid(OfInception):
    """Scores images by the kernel distance of their Inception features from a reference's; the fields are options.

    Raises:
        UsageError: no reference, no weights, or no such protocol, device or dtype.
        InputError: the reference or the weights cannot be used.
    """

    subsets: int = 100
    subset_size: int = 1000
    seed: int = 2020
    exact: bool = False

    help: ClassVar[str] = """Measure how far images are from a reference, by a kernel on InceptionV3 (KID).

    [bold]sanactl eval kid many/ --reference MJHQ-30K/[/bold]
    One estimate of all images, with an interval, in place of random subsets:
    [bold]sanactl eval kid many/ -r MJHQ-30K/ --exact[/bold]

    The image records go to stdout as they are, then a score record; lower is
    better, and values just below 0 are possible. All of them also go to
    kid.jsonl. A stopped run goes on where it was when the same command is given
    again.
    """
    options: ClassVar[tuple[Option, ...]] = (
        REFERENCE,
        *INCEPTION,
        Option("subsets", "Number of random subsets; their mean is the score.", 100, type=int, least=2),
        Option("subset_size", "Number of images in a subset, of each set.", 1000, type=int, least=2),
        Option("seed", "Seed of the choice of subsets.", 2020, type=int, least=0),
        Option("exact", "Use all images at once in place of subsets.", False, type=bool),
        *COMMON,
    )

    def distance(self) -> Distance:
        """See `KernelDistance`."""
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: take 0 to 4,294,967,295")
        return KernelDistance(self.subsets, self.subset_size, self.seed, self.exact)
