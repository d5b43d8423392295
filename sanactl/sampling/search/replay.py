"""`eval scale`: what the rules of `scale` would reach with images that exist, as a metric of `sanactl eval`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from sanactl.errors import InputError
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.audit.gather import label_of
from sanactl.judging.calibration import IDENTITY
from sanactl.judging.tournament import Verdict
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_field
from sanactl.sampling.search.policy import Rules
from sanactl.sampling.search.simulate import Pooled, Simulated, simulate
from sanactl.scoring.geneval.pools import by_prompt
from sanactl.scoring.metrics.protocol import Option

__all__ = ["ScaleReplay"]

_RULES = Rules()


class ScaleReplay:
    """Replays `scale` with judged and labelled images, so that its settings can be chosen before images are drawn.

    Args:
        max, round, keep, stop, futile, budget: see `sanactl.scale`; `max` None for all images of each prompt.
        truth: the field with the labels. The decisions do not see them.

    Raises:
        UsageError: a setting is out of its range.
    """

    help: ClassVar[str] = """Show what scale would reach with images that exist, and how many it would draw.

    The rules of scale, on all images of prompts for training:
    [bold]sanactl judge many/ --all | sanactl eval geneval | sanactl eval scale -k 1[/bold]
    Another probability at which a prompt stops:
    [bold]sanactl eval scale geneval.jsonl -k 1 --round 2 --stop 0.9[/bold]

    The records go to stdout as they are, then score records: the score and the
    images per prompt of these rules, of all images, and of an oracle judge. All
    of them also go to scale-replay.jsonl.
    """
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "max", "The most images of each prompt. Default: all that each prompt has.", type=int, least=1
        ),
        Option("round", "Images of a prompt that a round draws.", _RULES.round, type=int, least=1),
        Option(
            "keep", "Number of images to keep of each prompt.", _RULES.keep, type=int, short="-k", least=1
        ),
        Option(
            "stop",
            "A prompt stops when as many images as are kept are right with this probability.",
            _RULES.stop,
            type=float,
        ),
        Option(
            "futile",
            "A prompt stops when all its other images together are expected to raise the share of right images among "
            "the kept by less than this.",
            _RULES.futile,
            type=float,
        ),
        Option("budget", "Images of all prompts together. Default: no limit.", type=int, least=1),
        Option("truth", "Field of the records with the label: true or false, 0 or 1, yes or no.", "correct"),
    )
    file: ClassVar[str] = "scale-replay"  # `scale` itself writes scale.jsonl

    def __init__(
        self,
        max: int | None = None,
        round: int = _RULES.round,
        keep: int = _RULES.keep,
        stop: float = _RULES.stop,
        futile: float = _RULES.futile,
        budget: int | None = None,
        truth: str = "correct",
    ) -> None:
        self.most, self.truth = max, truth
        self.rules = Rules(keep if max is None else max, round, keep, stop, futile, budget)
        self.identity: dict[str, Any] = {"rules": repr(self.rules), "max": max, "truth": truth}

    def evaluate(
        self, records: Iterable[Record], *, kept: Partial | None = None, progress: Progress = SILENT
    ) -> Iterator[Record]:
        """See `Metric.evaluate`; the records pass unchanged, and nothing needs to be kept.

        Raises:
            InputError: a record has no verdict of a judge or no label, or a prompt has not all of its images.
            UsageError: there are fewer images of a prompt than are kept, or the budget is too small.
        """
        held = list(records)
        prompts = [sorted(images, key=lambda r: int(r.get("index") or 0)) for images in by_prompt(held)]
        if not prompts:
            raise InputError("no image records", hint="sanactl judge --all | sanactl eval geneval makes some")
        pool = [self._pooled(images) for images in prompts]
        least = min(len(p.values) for p in pool)
        rules = replace(self.rules, most=least if self.most is None else min(self.most, least))
        if self.most is not None and least < self.most:
            progress.note(f"max is {least}, the number of images of the prompt that has fewest")
        found = simulate(pool, rules)
        yield from held
        yield from _scores(found, rules, held)

    def _pooled(self, images: Sequence[Record]) -> Pooled:
        first = images[0]
        samples = first.get("samples")
        if isinstance(samples, int) and samples > len(images):
            raise InputError(
                f"prompt {str(first.get('prompt'))[:60]!r} has {len(images)} of its {samples} images",
                hint="all of them are needed: sanactl judge --all",
            )
        labels = [label_of(record, self.truth) for record in images]
        if None in labels:
            raise InputError(
                f"{images[labels.index(None)].get('path')}: no label {self.truth!r} in its record",
                hint="sanactl eval geneval adds `correct`; --truth names another field",
            )
        return Pooled(
            str(first.get("tag") or ""), [_probability(r) for r in images], [bool(x) for x in labels]
        )


def _probability(record: Record) -> float:
    """The probability that an image is right, as `scale` takes it from the judge."""
    if (found := record.get("calibrated")) is not None:
        return float(found)
    yes, no = record.get("yes_logprob"), record.get("no_logprob")
    if yes is None or no is None:
        raise InputError(
            f"{record.get('path')}: no verdict of a judge in its record", hint="sanactl judge --all writes it"
        )
    return IDENTITY.probability(Verdict.of(float(yes), float(no)))


def _scores(found: Simulated, rules: Rules, records: Sequence[Record]) -> Iterator[Record]:
    """The score records: each of the three ways with its score and its images per prompt."""
    import numpy as np

    from sanactl.scoring.intervals import mean_of_prompts, mean_of_tasks

    about = {
        **same_field(records, "judge"),
        **same_field(records, "detector"),
        "images": len(records),
        "prompts": len(found.score),
    }
    of_rules = (
        f"best {rules.keep} of at most {rules.most}, rounds of {rules.round}, stop {rules.stop:g}, futile {rules.futile:g}"
        + (f", budget {rules.budget}" if rules.budget is not None else "")
    )
    ways: list[tuple[str, str, list[float], list[int]]] = [
        ("scale", of_rules, found.score, found.images),
        ("scale_full", f"best {rules.keep} of {rules.most}", found.full_score, found.full_images),
        (
            "scale_oracle",
            f"stops at {rules.keep} right, at most {rules.most}",
            found.oracle_score,
            found.oracle_images,
        ),
    ]
    ones = np.ones(len(found.score))
    for name, protocol, score, images in ways:
        share, _ = mean_of_tasks({"": np.array(score)}, {"": ones})
        count = mean_of_prompts([[float(n)] for n in images])
        stopped = {"stopped": found.stopped} if name == "scale" else {}
        for metric, estimate, what, more in (
            (f"{name}_score", share, "share right of the kept images", {}),
            (f"{name}_images", count, "images per prompt", stopped),
        ):
            ci = None
            if estimate.low is not None and estimate.high is not None:
                ci = [round(float(estimate.low.item()), 6), round(float(estimate.high.item()), 6)]
            value = round(float(estimate.value.item()), 6)
            yield new_score(metric, value, ci=ci, protocol=f"{what}: {protocol}", **more, **about)
