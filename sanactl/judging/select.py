"""`judge`: a stream of images in, the best of each prompt out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.images import MAX_PIXELS, read_image
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.calibration import Calibration, calibrate
from sanactl.judging.check import check_verdicts
from sanactl.judging.protocol import Judge, judge_flops
from sanactl.judging.tournament import Verdict, keep_best
from sanactl.records.fields import FIELDS, LOGARITHM
from sanactl.records.partial import Partial, image_key
from sanactl.records.records import Record

__all__ = ["judge_stream"]

# Below this P(yes) + P(no) a judge has not answered the question.
LITTLE_MASS = 0.5
MASS = FIELDS["image"]["answer_mass"]
# Fields that not every judge gives: those of an earlier judge are not this one's.
_DETAILS = ("verdicts", "calibrated", "judge_flops")


@dataclass
class _Group:
    """The images of one prompt: their records, and the verdicts that there are so far."""

    size: int | None
    records: list[Record] = field(default_factory=list)
    verdicts: dict[int, Verdict] = field(default_factory=dict)

    @property
    def full(self) -> bool:
        return self.size is not None and len(self.records) >= self.size

    @property
    def judged(self) -> bool:
        return len(self.verdicts) == len(self.records)


def judge_stream(
    records: Iterator[Record],
    judge: Judge,
    *,
    keep: int | None = None,
    batch_size: int = 16,
    kept: Partial | None = None,
    calibrations: Sequence[Calibration] = (),
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Judges images and passes on the best of each prompt.

    A prompt's winners are passed on once all of its images have come, as many as its records' `samples` say; without
    `samples`, at the end of the stream. So a long stream needs little memory (`batch_size` images, and the records of
    unfinished prompts), and images of several prompts may come in any order.

    Args:
        records: `image` records with `path`, `prompt` and, from `sample`, `prompt_id` and `samples`. Images without
            a `prompt_id` belong together if their prompts are the same text.
        judge: see `sanactl.judging.registry.open_judge`.
        keep: how many of a prompt's images are passed on (the paper: 4); None for all.
        batch_size: images scored at once.
        kept: verdicts of an earlier run that was stopped; this run's are added. A batch is judged again unless all of
            its verdicts are there, so that the same records and batch size give the same verdicts to the last digit.
        calibrations: one for each judge, as `sanactl.judging.calibration.calibrations_of` gives them; records get
            `calibrated`, and several judges count by the mean of these probabilities.

    Yields:
        The records with their other fields as they were and `judge`, `verdict`, `yes_logprob`, `no_logprob`,
        `answer_mass`, `judge_score`, `rank` (0 the best) and, where the judge knows them, `judge_flops`, a prompt's best first, prompts in the order in which they
        were complete. Fields of an earlier judge are left out.

    Raises:
        InputError: an image cannot be read, a record's `samples` is no number of images, or the judge gives NaN.
        UsageError: `keep` or `batch_size` is less than one.
    """
    if batch_size < 1 or (keep is not None and keep < 1):
        raise UsageError(f"keep and batch size must be at least 1, got {keep} and {batch_size}")
    open_groups: dict[str, _Group] = {}
    closed: deque[_Group] = deque()
    waiting: list[tuple[_Group, int]] = []
    finished: set[str] = set()
    scorer = _Scorer(judge, kept, progress)
    progress.start(None, f"judging with {judge.name}")
    for record in records:
        key = _key(record)
        group = open_groups.get(key)
        if group is None:
            if key in finished:
                progress.note(
                    f"prompt {key}: more images than its `samples`; they are ranked apart from the first"
                )
            group = open_groups[key] = _Group(_samples(record))
        waiting.append((group, len(group.records)))
        group.records.append(record)
        if group.full:
            closed.append(open_groups.pop(key))
            finished.add(key)
        if len(waiting) == batch_size:
            scorer.score(waiting)
        while closed and closed[0].judged:
            yield from _winners(closed.popleft(), judge, keep, calibrations)
    scorer.score(waiting)
    scorer.tell()
    scorer.warn()
    closed.extend(open_groups.values())
    for group in closed:
        yield from _winners(group, judge, keep, calibrations)
    progress.close()


def _key(record: Record) -> str:
    return f"id {record['prompt_id']}" if "prompt_id" in record else f"text {record['prompt']}"


def _samples(record: Record) -> int | None:
    value: Any = record.get("samples")
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise InputError(f"{record['path']}: its record's 'samples' is {value!r}, not a number of images")
    return value


class _Scorer:
    """A judge with the verdicts that an earlier run has kept."""

    def __init__(self, judge: Judge, kept: Partial | None, progress: Progress) -> None:
        self._judge, self._kept, self._progress = judge, kept, progress
        self._taken = 0
        self._all: Counter[str] = Counter()  # images that each judge was asked about
        self._unanswered: Counter[str] = Counter()  # those with little probability on yes and no

    def score(self, waiting: list[tuple[_Group, int]]) -> None:
        """Judges all that wait, and empties the list."""
        if not waiting:
            return
        batch = [group.records[place] for group, place in waiting]
        keys = [image_key(record) for record in batch] if self._kept is not None else []
        verdicts = self._known(keys)
        if verdicts is None:
            self.tell()
            verdicts = self._judge.judge([read_image(Path(r["path"])) for r in batch], batch)
            check_verdicts(self._judge.name, verdicts, batch)
            if self._kept is not None:
                self._kept.put((key, asdict(v)) for key, v in zip(keys, verdicts, strict=True))
        else:
            self._taken += len(verdicts)
        for (group, place), verdict in zip(waiting, verdicts, strict=True):
            group.verdicts[place] = verdict
        self._count(verdicts)
        yes = sum(v.verdict == "yes" for v in verdicts)
        self._progress.advance(len(batch), yes=f"{yes}/{len(batch)}")
        waiting.clear()

    def _known(self, keys: Sequence[str | None]) -> list[Verdict] | None:
        """The verdicts of a whole batch, if all are there."""
        verdicts = []
        for key in keys:
            found = self._kept.get(key) if self._kept is not None else None
            logs = [found.get("yes_logprob"), found.get("no_logprob")] if found is not None else []
            if (
                found is None
                or found.get("verdict") not in ("yes", "no")
                or not all(map(LOGARITHM.fits, logs))
            ):
                return None
            mass, details = found.get("mass"), found.get("details")
            if not (mass is None or MASS.fits(mass)) or not (details is None or _are_details(details)):
                return None
            verdicts.append(
                Verdict(found["verdict"], found["yes_logprob"], found["no_logprob"], mass, details)
            )
        return verdicts or None

    def _count(self, verdicts: Sequence[Verdict]) -> None:
        """Counts the answers of the judge, or of each of several."""
        for v in verdicts:
            several = (v.details or {}).get("verdicts")
            masses = (
                [(each["judge"], each["answer_mass"]) for each in several]
                if several
                else [(self._judge.name, v.answer_mass)]
            )
            for name, mass in masses:
                self._all[name] += 1
                self._unanswered[name] += mass < LITTLE_MASS

    def warn(self) -> None:
        """Says so, for each judge, if it has not answered the question for most images."""
        for name, unanswered in self._unanswered.items():
            if 2 * unanswered > self._all[name]:
                self._progress.note(
                    f"warning: judge {name} puts less than half of its probability on yes and no for {unanswered:,} of"
                    f" {self._all[name]:,} images; it does not answer the question, and its ranking may mean nothing"
                    " (another judge or dialogue may do better)"
                )

    def tell(self) -> None:
        """Says, once, how many verdicts were taken over."""
        if self._taken:
            self._progress.note(f"{self._taken:,} verdicts are taken over from a run that was stopped")
            self._taken = 0


def _are_details(value: Any) -> bool:
    """Whether it can be `Verdict.details` of several judges."""
    several = value.get("verdicts") if isinstance(value, dict) else None
    return isinstance(several, list) and all(
        isinstance(each, dict)
        and isinstance(each.get("judge"), str)
        and MASS.fits(each.get("answer_mass"))
        and all(LOGARITHM.fits(each.get(f"{side}_logprob")) for side in ("yes", "no"))
        for each in several
    )


def _winners(
    group: _Group, judge: Judge, keep: int | None, calibrations: Sequence[Calibration]
) -> Iterator[Record]:
    verdicts = [group.verdicts[i] for i in range(len(group.records))]
    if calibrations:
        verdicts = [calibrate(v, calibrations) for v in verdicts]
    for place, index in enumerate(keep_best(verdicts, keep)):
        v = verdicts[index]
        yield {
            **{key: value for key, value in group.records[index].items() if key not in _DETAILS},
            "judge": judge.name,
            "verdict": v.verdict,
            # Nine digits, not nine decimals: log-probabilities near 0 differ in how near they are.
            "yes_logprob": float(f"{v.yes_logprob:.9g}"),
            "no_logprob": float(f"{v.no_logprob:.9g}"),
            "answer_mass": float(f"{v.answer_mass:.9g}"),
            "judge_score": float(f"{v.score:.9g}"),
            "rank": place,
            **(v.details or {}),
            **_cost(group.records[index], judge),
        }


def _cost(record: Record, judge: Judge) -> Record:
    """The FLOPs of judging an image, as far as the judge and the image's size are known."""
    height, width = record.get("height"), record.get("width")
    if type(height) is not int or type(width) is not int or height * width > MAX_PIXELS:
        return {}
    flops = judge_flops(judge, height, width)
    return {} if flops is None else {"judge_flops": flops}
