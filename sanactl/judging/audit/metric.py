"""`eval judge`: how good a judge is, as a metric of `sanactl eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from sanactl.errors import InputError, UsageError
from sanactl.files.progress import SILENT, Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.scoring.metrics.protocol import DEVICE, DTYPE, Option

if TYPE_CHECKING:
    from sanactl.judging.protocol import Judge

__all__ = ["JudgeQuality"]


class JudgeQuality:
    """Compares verdicts with labels; see `sanactl.judging.audit.scores`.

    Args:
        truth: the field with the labels.
        calibration_out: where the calibration goes that is fitted on all prompts, or None.
        evaluation_prompts: allow it to be fitted on prompts of an evaluation set.
        pairs: ask a judge to choose between two images (`sanactl.judging.audit.pairs`), in place of reading verdicts.
        judge: the judge for `pairs`; None is the built-in one.
        more: `device`, `dtype` of that judge, `batch_size` (pairs at once), `pairs_per_prompt`; None for the default.

    Raises:
        UsageError: options that exclude each other.
    """

    help: ClassVar[str] = """Measure how far a judge can be trusted, by labelled images.

    Verdicts of all images, with the detector's labels:
    [bold]sanactl judge many/ --all | sanactl eval geneval | sanactl eval judge[/bold]
    A calibration for judge --calibration:
    [bold]sanactl eval judge geneval.jsonl --calibration-out shapes.json[/bold]
    Labels of people, in a field of the records:
    [bold]sanactl eval judge ranked.jsonl --truth human[/bold]

    Position bias of a model that chooses between two images:
    [bold]sanactl eval judge geneval.jsonl --pairs --judge my-judge[/bold]

    The records go to stdout as they are, then score records. All of them also go
    to judge-quality.jsonl.
    """
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "truth",
            "Field of the records with the label: true or false, 0 or 1, yes or no.",
            "correct",
        ),
        Option(
            "calibration_out",
            "File for the calibration of each judge, fitted on all prompts. Default: none.",
            short="-c",
        ),
        Option(
            "evaluation_prompts",
            "Allow a calibration from prompts of an evaluation set.",
            False,
            type=bool,
        ),
        Option(
            "pairs",
            "Let a judge choose between two images of a prompt, in both orders, in place of reading verdicts.",
            False,
            type=bool,
        ),
        Option(
            "judge",
            "Judge for --pairs: the folder or Hub id of a vision-language model, or the address of a server. "
            "Default: builtin:shapes.",
        ),
        Option("pairs_per_prompt", "Largest number of pairs of a prompt. Default: 4.", type=int, least=1),
        DEVICE,
        DTYPE,
        Option(
            "batch_size",
            "Number of pairs that the judge gets at once. Default: 8.",
            type=int,
            short="-b",
            least=1,
        ),
    )
    file: ClassVar[str] = "judge-quality"  # `judge` itself writes judge.jsonl
    # Whether files beside the records may be replaced; the command sets it.
    force = False

    def __init__(
        self,
        truth: str = "correct",
        calibration_out: str | None = None,
        evaluation_prompts: bool = False,
        pairs: bool = False,
        judge: str | None = None,
        **more: Any,
    ) -> None:
        self.truth, self.calibration_out, self.evaluation_prompts = truth, calibration_out, evaluation_prompts
        if evaluation_prompts and calibration_out is None:
            raise UsageError("--evaluation-prompts is for --calibration-out")
        given = {name: value for name, value in {"judge": judge, **more}.items() if value is not None}
        if given and not pairs:
            raise UsageError(f"--{next(iter(given)).replace('_', '-')} is for --pairs")
        if pairs and calibration_out is not None:
            raise UsageError("--pairs and --calibration-out exclude each other")
        self.identity: dict[str, Any] = {"truth": truth}
        self.judge: Judge | None = None
        self.pairs_per_prompt, self.batch_size = given.get("pairs_per_prompt", 4), given.get("batch_size", 8)
        if pairs:
            from sanactl.judging.registry import open_judge

            self.judge = open_judge(judge, device=given.get("device"), dtype=given.get("dtype"))
            self.identity["judge"] = self.judge.identity

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `Metric.evaluate`; the records pass unchanged, and nothing needs to be kept.

        Raises:
            InputError: no image has a verdict and a label, one of them is damaged, or a calibration would be fitted on
                evaluation prompts.
            OutputExistsError: the calibration's file is there.
        """
        return self._compare(records, progress) if self.judge is not None else self._read(records, progress)

    def _compare(self, records: Iterable[Record], progress: Progress) -> Iterator[Record]:
        from sanactl.judging.audit.pairs import pair_scores, pairs_of

        assert self.judge is not None
        held = list(records)
        pairs = pairs_of(held, self.truth, self.pairs_per_prompt)
        if not pairs:
            raise InputError("no prompt has two images", hint="sanactl sample -n 8 draws several of a prompt")
        scores = list(pair_scores(pairs, self.judge, self.batch_size, progress))
        yield from held
        yield from scores

    def _read(self, records: Iterable[Record], progress: Progress) -> Iterator[Record]:
        from pathlib import Path

        from sanactl.files.atomic import check_target
        from sanactl.files.paths import user_path
        from sanactl.judging.audit.fitted import fit_all
        from sanactl.judging.audit.gather import Gathered
        from sanactl.judging.audit.scores import judge_scores
        from sanactl.judging.audit.warnings import few_prompts, warnings_of
        from sanactl.judging.calibration import write_calibrations
        from sanactl.prompts.meaning import evaluation_set

        target: Path | None = None
        if self.calibration_out is not None:
            target = user_path(self.calibration_out)
            check_target(target, self.force)
        gathered = Gathered(self.truth)
        fitted_on: set[str] = set()
        # Nothing is passed on before all is known to be sound; verdicts are held in any case.
        held: list[Record] = []
        progress.start(None, "reading verdicts")
        for record in records:
            prompt = str(record["prompt"])
            if target is not None and not self.evaluation_prompts and prompt not in fitted_on:
                if (owner := evaluation_set(record)) is not None:
                    raise InputError(
                        f"prompt {prompt[:60]!r} means one of {owner}; a calibration must not be fitted on it",
                        hint="take other prompts (sanactl prompts shapes --split train), or --evaluation-prompts",
                    )
                fitted_on.add(prompt)
            gathered.add(record)
            held.append(record)
            progress.advance(1)
        progress.close()
        if not gathered.opinions:
            raise InputError("no verdict of a judge in these records", hint="sanactl judge --all writes them")
        judged = [found for name in gathered.opinions if (found := gathered.judged(name)) is not None]
        if not judged:
            raise InputError(
                f"no image has both a verdict and a label in {self.truth!r}",
                hint="sanactl eval geneval adds `correct`; --truth names another field",
            )
        calibrations = [] if target is None else fit_all(judged)
        for line in warnings_of(gathered, judged):
            progress.note(line)
        if target is not None:
            if line := few_prompts(min(c.prompts for c in calibrations)):
                progress.note(line)
            write_calibrations(target, calibrations, force=self.force)
            for c in calibrations:
                progress.note(
                    f"wrote {target}: judge {c.judge}, slope {c.slope:.4g}, intercept {c.intercept:.4g}, fitted on"
                    f" {c.images:,} images of {c.prompts:,} prompts"
                )
        yield from held
        for one in judged:
            yield from judge_scores(gathered, one)
