"""`judge`: a stream of images in, the best of each prompt out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sanactl.errors import InputError, UsageError
from sanactl.files.images import MAX_PIXELS
from sanactl.files.progress import SILENT, Progress
from sanactl.judging.answers import Answers
from sanactl.judging.cache import Question, VerdictCache, parts
from sanactl.judging.calibration import Calibration, calibrate
from sanactl.judging.protocol import Judge, judge_flops
from sanactl.judging.settings import settings_of
from sanactl.judging.tournament import Verdict, keep_best
from sanactl.records.records import Record

__all__ = ["group_key", "group_size", "judge_stream", "winners"]

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
    cache: VerdictCache | None = None,
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
        cache: this judge's verdicts of earlier runs; this run's are added. The images without a verdict are judged in
            full batches, each content with its prompt once. So a run that was stopped goes on with the batches of an
            undisturbed one, and gives its verdicts to the last digit. By default verdicts are kept for this call.
        calibrations: one for each judge, as `sanactl.judging.calibration.calibrations_of` gives them; records get
            `calibrated`, and several judges count by the mean of these probabilities.

    Yields:
        The records with their other fields as they were and `judge`, `judge_settings`
        (`sanactl.judging.settings.settings_of`), `verdict`, `yes_logprob`, `no_logprob`, `answer_mass`, `judge_score`,
        `rank` (0 the best) and, where the judge knows them, `judge_flops`, a prompt's best first, prompts in the order
        in which they were complete. Fields of an earlier judge are left out.

    Raises:
        InputError: an image cannot be read, a record's `samples` is no number of images, or the judge gives NaN.
        UsageError: `keep` or `batch_size` is less than one.
    """
    if batch_size < 1 or (keep is not None and keep < 1):
        raise UsageError(f"keep and batch size must be at least 1, got {keep} and {batch_size}")
    open_groups: dict[str, _Group] = {}
    closed: deque[_Group] = deque()
    finished: set[str] = set()
    settings = settings_of(judge)
    scorer = _Scorer(cache or VerdictCache(None, judge), batch_size, progress)
    progress.start(None, f"judging with {judge.name}")
    for record in records:
        key = group_key(record)
        group = open_groups.get(key)
        if group is None:
            if key in finished:
                progress.note(
                    f"prompt {key}: more images than its `samples`; they are ranked apart from the first"
                )
            group = open_groups[key] = _Group(group_size(record))
        group.records.append(record)
        scorer.take(group, len(group.records) - 1)
        if group.full:
            closed.append(open_groups.pop(key))
            finished.add(key)
        while closed and closed[0].judged:
            yield from _winners(closed.popleft(), judge, settings, keep, calibrations)
    scorer.ask()
    scorer.tell()
    scorer.warn()
    closed.extend(open_groups.values())
    for group in closed:
        yield from _winners(group, judge, settings, keep, calibrations)
    progress.close()


def group_key(record: Record) -> str:
    """What the images of one prompt have in common."""
    return f"id {record['prompt_id']}" if "prompt_id" in record else f"text {record['prompt']}"


def group_size(record: Record) -> int | None:
    """How many images a record's prompt has; None where it does not say.

    Raises:
        InputError: `samples` is no number of images.
    """
    value: Any = record.get("samples")
    if value is None:
        return None
    if type(value) is not int or value < 1:
        raise InputError(f"{record['path']}: its record's 'samples' is {value!r}, not a number of images")
    return value


class _Scorer:
    """A judge with its verdicts so far, and the images that wait for a full batch."""

    def __init__(self, cache: VerdictCache, batch_size: int, progress: Progress) -> None:
        self._cache, self._batch_size, self._progress = cache, batch_size, progress
        # By the keys of the verdict: an image that comes twice is asked about once.
        self._waiting: dict[tuple[bytes, ...], tuple[Question, list[tuple[_Group, int]]]] = {}
        self._taken = 0
        self._answered = self._yes = 0
        self._answers = Answers(cache.judge.name)

    def take(self, group: _Group, place: int) -> None:
        """Settles an image whose verdict is known; another waits for a full batch (of each process)."""
        question = self._cache.question(group.records[place])
        verdict = self._cache.known(question.keys)
        if verdict is not None:
            self._taken += self._cache.is_earlier(question.keys)
            group.verdicts[place] = verdict
            self._answers.count([verdict])
            self._progress.advance(1)
            return
        self._waiting.setdefault(question.keys, (question, []))[1].append((group, place))
        if len(self._waiting) == self._batch_size * self._cache.at_once:
            self.ask()

    def ask(self) -> None:
        """Judges all that wait."""
        if not self._waiting:
            return
        waiting = list(self._waiting.values())
        batches = parts([question for question, _ in waiting], self._batch_size)
        found = [verdict for some in self._cache.ask_all(batches) for verdict in some]
        self._waiting.clear()
        places = [place for _, some in waiting for place in some]
        verdicts = [v for v, (_, some) in zip(found, waiting, strict=True) for _ in some]
        for (group, place), verdict in zip(places, verdicts, strict=True):
            group.verdicts[place] = verdict
        self._answers.count(verdicts)
        self._answered += len(verdicts)
        self._yes += sum(v.verdict == "yes" for v in verdicts)
        self._progress.advance(len(verdicts), yes=f"{self._yes}/{self._answered}")

    def warn(self) -> None:
        """Says so if the judge has not answered the question for most images."""
        self._answers.warn(self._progress)

    def tell(self) -> None:
        """Says how many verdicts were taken over."""
        if self._taken:
            self._progress.note(f"{self._taken:,} verdicts are taken over from earlier runs")
            self._taken = 0


def _winners(
    group: _Group,
    judge: Judge,
    settings: Record,
    keep: int | None,
    calibrations: Sequence[Calibration],
) -> Iterator[Record]:
    verdicts = [group.verdicts[i] for i in range(len(group.records))]
    if calibrations:
        verdicts = [calibrate(v, calibrations) for v in verdicts]
    for place, index in enumerate(keep_best(verdicts, keep)):
        v = verdicts[index]
        yield {
            **{key: value for key, value in group.records[index].items() if key not in _DETAILS},
            "judge": judge.name,
            "judge_settings": settings,
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


def winners(
    records: Sequence[Record],
    verdicts: Sequence[Verdict],
    judge: Judge,
    *,
    keep: int | None = None,
    calibrations: Sequence[Calibration] = (),
) -> Iterator[Record]:
    """The best images of one prompt, as `judge_stream` yields them, from verdicts that are known.

    Args:
        records, verdicts: of each image of the prompt.
        judge, keep, calibrations: see `judge_stream`.
    """
    group = _Group(len(records), list(records), dict(enumerate(verdicts)))
    return _winners(group, judge, settings_of(judge), keep, calibrations)


def _cost(record: Record, judge: Judge) -> Record:
    """The FLOPs of judging an image, as far as the judge and the image's size are known."""
    height, width = record.get("height"), record.get("width")
    if type(height) is not int or type(width) is not int or height * width > MAX_PIXELS:
        return {}
    flops = judge_flops(judge, height, width)
    return {} if flops is None else {"judge_flops": flops}
