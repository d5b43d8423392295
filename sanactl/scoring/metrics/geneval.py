"""GenEval as a metric of `sanactl eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.protocol import DEVICE, DTYPE, Option

__all__ = ["GenEval"]


class GenEval:
    """Scores images by GenEval's rules; see `sanactl.scoring.geneval.evaluate`.

    Args:
        detector: a name of `sanactl.scoring.detectors.registry.DETECTORS`.
        device, dtype: of the detector; None for its own choice.
        batch_size: images that the detector gets at once; None for its own choice.

    Raises:
        UsageError: there is no detector, device or dtype of that name.
    """

    help: ClassVar[str] = """Score images by GenEval's rules: six tasks, each with its 95 % interval.

    [bold]sanactl sample --prompts shapes | sanactl eval geneval[/bold]
    [bold]sanactl eval geneval base-samples/[/bold]           a folder in GenEval's layout

    The records go on to stdout with their verdicts, then one score record; all also to geneval.jsonl.
    Stop it at any time: the same command goes on where it was.
    """
    options: ClassVar[tuple[Option, ...]] = (
        Option("detector", "What finds the objects: shapes, the built-in world's detector.", "shapes"),
        DEVICE,
        DTYPE,
        Option(
            "batch_size",
            "Images that the detector gets at once; default: the detector's choice.",
            type=int,
            short="-b",
            least=1,
        ),
    )

    def __init__(
        self,
        detector: str = "shapes",
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        from sanactl.scoring.detectors.registry import open_detector

        self.detector = open_detector(detector, device=device, dtype=dtype)
        self.batch_size = batch_size
        self.identity: dict[str, Any] = {"detector": self.detector.label}
        if self.detector.digest is not None:
            self.identity["digest"] = self.detector.digest

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `evaluate_geneval`."""
        from sanactl.scoring.geneval.evaluate import evaluate_geneval

        return evaluate_geneval(
            records, detector=self.detector, batch_size=self.batch_size, kept=kept, progress=progress
        )
