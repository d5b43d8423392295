"""GenEval as a metric of `sanactl eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.errors import UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.detectors.batch import facts_of
from sanactl.scoring.metrics.protocol import DEVICE, DTYPE, Option

if TYPE_CHECKING:
    from sanactl.scoring.geneval.scorer import Scorer

__all__ = ["GenEval"]


def detectors() -> list[str]:
    """The names of all detectors that are registered."""
    from sanactl.scoring.detectors.registry import DETECTORS

    return [*DETECTORS]


class GenEval:
    """Scores images by GenEval's rules; see `sanactl.scoring.geneval.evaluate`.

    Args: detector: see `sanactl.scoring.detectors.registry.open_detector`, as
    `colors`.
    device, dtype: of the detector; None for its own choice. batch_size: images
    that the detector gets at once; None for its own choice. rules: a name of
    `sanactl.scoring.geneval.rules.RULES`. detections: a file of detections, see
    `KeptDetections`, or "off". final: `allow_missing`, `top` and
    `round` of the scores at the end, see `FinalScores`.

    Raises: UsageError: there is no detector, device or dtype of that name.
    """

    help: ClassVar[str] = """Score images by GenEval's rules: six tasks, each with its 95 % interval.

    [bold]sanactl sample --prompts shapes | sanactl eval geneval[/bold]
    A folder in GenEval's layout, as sample writes it:
    [bold]sanactl eval geneval base-samples/[/bold]

    The image records go to stdout with their verdicts, then a score record. All
    of them also go to geneval.jsonl. A stopped run goes on where it was when the
    same command is given again.
    """
    shards = True
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "detector",
            "Detector that finds the objects: shapes (the built-in world's), or mask2former: and a folder or Hub id.",
            "shapes",
            choices=detectors,
        ),
        Option(
            "colors",
            "CLIP that tells colours for mask2former, a folder or Hub id; off scores no colours. "
            "Default: openai/clip-vit-large-patch14.",
        ),
        DEVICE,
        DTYPE,
        Option(
            "batch_size",
            "Number of images that the detector gets at once. Default: the detector's choice.",
            type=int,
            short="-b",
            least=1,
        ),
        Option(
            "rules",
            "Rules: geneval, or reward, those of reward servers, whose scores are no GenEval scores.",
            "geneval",
            choices=lambda: ("geneval", "reward"),
        ),
        Option(
            "detections",
            "File that keeps detections with masks and colours; what is in it is not detected again. off keeps none. "
            "Default: geneval.detections.jsonl for mask2former, none for shapes.",
        ),
        Option(
            "top",
            "Number of images that a judge keeps of each prompt: the scaling curve is the mean of the best so many of n.",
            1,
            type=int,
            least=1,
        ),
        Option(
            "round",
            "Also score a search that draws so many images at a time until one is right, or the judge says so. "
            "Default: no such score.",
            type=int,
            least=1,
        ),
        Option("allow_missing", "Score what is there where images are missing.", False, type=bool),
    )

    def __init__(
        self,
        detector: str = "shapes",
        colors: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
        rules: str = "geneval",
        detections: str | None = None,
        **final: Any,
    ) -> None:
        from sanactl.scoring.detectors.registry import open_detector
        from sanactl.scoring.geneval.evaluate import FinalScores
        from sanactl.scoring.geneval.rules import RULES

        if rules not in RULES:
            raise UsageError(f"no rules {rules!r}", hint=f"there are: {', '.join(RULES)}")
        self.detector = open_detector(detector, device=device, dtype=dtype, colors=colors)
        self.batch_size, self.rules = batch_size, rules
        self.final = FinalScores(**final)
        # A model's detections can cost hours, and other rules may be wanted of them.
        default = "geneval.detections.jsonl" if facts_of(self.detector) else "off"
        named = default if detections is None else detections
        self.detections = None if named == "off" else Path(named)
        self._scorer: Scorer | None = None
        self.identity: dict[str, Any] = {"detector": self.detector.label}
        if rules != "geneval":
            self.identity["rules"] = rules
        if self.detector.digest is not None:
            self.identity["digest"] = self.detector.digest
        self.identity |= facts_of(self.detector)

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `evaluate_geneval`."""
        from sanactl.scoring.geneval.evaluate import evaluate_geneval

        return evaluate_geneval(
            records,
            detector=self.detector,
            batch_size=self.batch_size,
            rules=self.rules,
            detections=self.detections,
            final=self.final,
            kept=kept,
            progress=progress,
        )

    def compute(self, batch: Sequence[Record]) -> Any:
        """See `Metric` and `sanactl.scoring.geneval.scorer.Scorer.compute`."""
        if self._scorer is None:
            from sanactl.scoring.geneval.kept_detections import KeptDetections
            from sanactl.scoring.geneval.rules import RULES
            from sanactl.scoring.geneval.scorer import Scorer

            file = None if self.detections is None else KeptDetections(self.detections, self.detector)
            self._scorer = Scorer(self.detector, RULES[self.rules], file)
        return self._scorer.compute(batch)
