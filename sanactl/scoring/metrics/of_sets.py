"""What the metrics share that compare sets of images: their options, and the comparison."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.protocol import DEVICE, Option

if TYPE_CHECKING:
    import torch

    from sanactl.scoring.distances.compare import Distance
    from sanactl.scoring.distances.networks import Network

__all__ = ["COMMON", "INCEPTION", "REFERENCE", "OfInception", "OfSets"]


def protocols() -> list[str]:
    """The ways from an image to InceptionV3."""
    from sanactl.scoring.distances.pixels import PROTOCOLS

    return [*PROTOCOLS]


REFERENCE = Option(
    "reference",
    "Images to compare with: a folder, a JSONL file of image records, or statistics (.npz). "
    "Default: none; one must be given.",
    short="-r",
)
# The last options of each.
COMMON = (
    Option("small", "Allow fewer than 2,048 images.", False, type=bool),
    Option("save_reference", "File (.npz) to write the reference's statistics to. Default: none."),
    DEVICE,
    Option("dtype", "Data type: fp32, bf16 or fp16.", "fp32"),
    Option(
        "batch_size", "Number of images that the network gets at once.", 32, type=int, short="-b", least=1
    ),
)
# InceptionV3's own.
INCEPTION = (
    Option(
        "protocol",
        "How images are resized: as SANA's code, pytorch-fid, torch-fidelity or clean-fid.",
        "sana",
        choices=protocols,
    ),
    Option("features", "Number of features: 64, 192, 768 or 2048.", 2048, type=int),
    Option(
        "weights",
        "File of InceptionV3's weights, pt_inception-2015-12-05-6726825d.pth, or the start of its sha256. "
        "Default: the one in torch.hub's cache.",
    ),
    Option("size", "Shorter side that --protocol sana resizes to, in pixels. Default: 512.", type=int),
)


@dataclass
class OfSets(ABC):
    """Compares image records with a reference; the fields are options. See `sanactl.scoring.distances.compare`.

    Raises:
        UsageError: no reference, or no such option's value, device or dtype.
        InputError: the reference or the network's weights cannot be used.
    """

    reference: str | None = None
    small: bool = False
    save_reference: str | None = None
    device: str | None = None
    dtype: str | None = "fp32"
    batch_size: int = 32

    # A folder of images need not be in GenEval's layout.
    plain_folders: ClassVar[bool] = True

    @abstractmethod
    def network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """What makes features."""

    @abstractmethod
    def distance(self) -> Distance:
        """What is measured of them."""

    def __post_init__(self) -> None:
        from sanactl.model.conditioning import pick_device
        from sanactl.model.loading import resolve_dtype
        from sanactl.scoring.distances.compare import Comparison, check_reference

        check_reference(self.reference, self.distance().name)  # before the weights, which take a download
        place = pick_device(self.device)
        self._comparison = Comparison(
            self.network(place, resolve_dtype(self.dtype or "fp32", place)),
            self.distance(),
            self.reference,
            batch_size=self.batch_size,
            small=self.small,
            save_reference=self.save_reference,
        )
        self.identity: dict[str, Any] = dict(self._comparison.about)

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `sanactl.scoring.metrics.protocol.Metric.evaluate`; the records get no fields."""
        return self._comparison.evaluate(records, kept, progress)

    def compute(self, part: Any) -> Any:
        """See `Metric` and `sanactl.scoring.distances.stream.Features.compute`."""
        return self._comparison.compute(part)


@dataclass
class OfInception(OfSets):
    """Of InceptionV3's features; see `OfSets`."""

    protocol: str = "sana"
    features: int = 2048
    weights: str | None = None
    size: int | None = None

    def network(self, device: torch.device, dtype: torch.dtype) -> Network:
        """See `sanactl.scoring.distances.networks.InceptionFeatures`."""
        from sanactl.scoring.distances.networks import InceptionFeatures

        return InceptionFeatures(self.weights, self.protocol, self.features, self.size, device, dtype)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.identity["features"] = self.features
