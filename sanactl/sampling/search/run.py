"""`scale`: draws images in rounds, judges them, and passes on the best of each prompt when it stops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sanactl.files.progress import SILENT, Progress
from sanactl.judging.answers import Answers
from sanactl.judging.cache import VerdictCache, parts
from sanactl.judging.calibration import IDENTITY, Calibration, calibrate
from sanactl.judging.select import winners
from sanactl.judging.tournament import Verdict
from sanactl.model.processes import gather, open_processes
from sanactl.records.records import Record
from sanactl.sampling.painter import Painter
from sanactl.sampling.search.policy import Rules
from sanactl.sampling.search.rounds import Rounds

if TYPE_CHECKING:
    pass

__all__ = ["Judging", "Search"]

# Images that the judge is asked about at once. The last digits of a verdict can depend on it, and decisions must not depend
# on the batch size.
JUDGED_AT_ONCE = 16
_PLACES = 2**32  # more than there are prompts


@dataclass(frozen=True)
class Judging:
    """A judge with its verdicts so far, and what its answers mean.

    Attributes:
        calibrations: one for each judge, as `sanactl.judging.calibration.calibrations_of` gives them; empty for a judge
            whose own probabilities count: P(yes) / (P(yes) + P(no)).
    """

    cache: VerdictCache
    calibrations: Sequence[Calibration] = field(default=())

    def probability(self, verdict: Verdict) -> float:
        """The probability that an image is right."""
        if not self.calibrations:
            return IDENTITY.probability(verdict)
        found: Any = (calibrate(verdict, self.calibrations).details or {})["calibrated"]
        return float(found)


class Search:
    """Adaptive best-of-N in a sample folder.

    With several processes, each draws its share of a round's images and judges its share of them. Then all know all
    verdicts, and take the same decisions.

    Args:
        painter: draws the images; the `count` of its folder is the most images of a prompt (`Rules.most`).
        judging: the judge.
        rules: when a prompt stops.
        places: numbers of the prompts to search for, by rising number; by default all. What is learned of a task decides
            about all of its prompts, so a task's prompts are all among them or none.

    Attributes:
        order: of each prompt that has stopped, in the order of the winners, where it would stand in a search for all
            prompts: by round, then by prompt.

    Raises:
        UsageError: the budget is too small for one image of each prompt.
    """

    def __init__(
        self,
        painter: Painter,
        judging: Judging,
        rules: Rules,
        *,
        places: Sequence[int] | None = None,
        progress: Progress = SILENT,
    ) -> None:
        images = painter.images
        assert images.count == rules.most
        self._painter, self._images, self._judging, self._progress = painter, images, judging, progress
        self._places = range(len(images.prompts)) if places is None else places
        self._rounds = Rounds([str(images.prompts[p].get("tag") or "") for p in self._places], rules)
        self.order: list[int] = []
        self._state = open_processes()
        self._verdicts: dict[int, Verdict] = {}
        self._answers = Answers(judging.cache.judge.name)

    def run(self, *, renew: bool = False) -> Iterator[Record]:
        """Draws and judges until all prompts have stopped. A stopped run continues where it stopped.

        Args:
            renew: remove the images that sanactl drew into the folder before.

        Yields:
            The best images of each prompt when it stops, as `sanactl.judging.select.judge_stream` yields them, with
            `round` (that drew the image, from 1), `drawn` (images of the prompt, also `samples`) and `stopped`. With
            several processes, the first yields them.

        Raises:
            OutputExistsError: another image has the path of an image to be drawn.
            InputError: an image cannot be read, or the judge cannot take it.
        """
        rounds, prompts, told = self._rounds, len(self._places), False
        turn = 0
        self._progress.start(rounds.rules.budget, "scaling")
        self._progress.keeps("the images and verdicts so far stay")
        try:
            if renew:
                self._painter.renew()
            while chosen := rounds.next_images():
                numbers = [self._number(place, i) for place, indexes in chosen for i in indexes]
                turn += 1
                for _ in self._painter.draw(numbers):
                    pass
                if self._painter.kept and not told:
                    self._progress.note("going on: images that are there are not drawn again")
                    told = True
                self._state.wait_for_everyone()
                verdicts = self._judge(numbers)
                self._answers.count(verdicts)
                self._verdicts.update(zip(numbers, verdicts, strict=True))
                ended = rounds.add(chosen, [self._judging.probability(v) for v in verdicts])
                done = sum(why is not None for why in rounds.stopped)
                self._progress.advance(0, prompts=f"{done}/{prompts}")
                self.order += [turn * _PLACES + self._places[place] for place in ended]
                for place in ended:
                    best = self._winners(place)
                    if self._state.is_main_process:
                        yield from best
            self._answers.warn(self._progress)
            if kept := self._painter.kept:
                of_this = " for this process" * (self._state.num_processes > 1)
                self._progress.note(f"{kept:,} of {rounds.drawn:,} images were there already{of_this}")
            self._progress.note(self._summary())
        finally:
            self._progress.close()

    def drawn(self) -> list[Record]:
        """The records of all images that were drawn, prompt by prompt, as `sample` writes them."""
        return [record for _, record in self.drawn_at()]

    def drawn_at(self) -> Iterator[tuple[int, Record]]:
        """`drawn`, with the number of each image's prompt."""
        for place, values in enumerate(self._rounds.values):
            for index in range(len(values)):
                yield self._places[place], self._record(place, index)

    def _number(self, place: int, index: int) -> int:
        """The number of an image in the folder."""
        return self._places[place] * self._images.count + index

    def _record(self, place: int, index: int) -> Record:
        record = self._images.record(self._number(place, index))
        return {**record, "samples": len(self._rounds.values[place])}

    def _judge(self, numbers: Sequence[int]) -> list[Verdict]:
        """The verdicts on these images. The images that are judged together depend on the numbers alone."""
        together = self._parts(numbers)
        world, rank = self._state.num_processes, self._state.process_index
        found: dict[int, list[Verdict]] = {}
        for part in range(rank, len(together), world):
            self._progress.doing("judging")
            records = [self._images.record(number) for number in together[part]]
            found[part] = self._judging.cache.verdicts(records, batch_size=JUDGED_AT_ONCE)
        self._progress.doing(None)
        if world > 1:
            found = {part: verdicts for some in gather(found) for part, verdicts in some.items()}
        known = {n: v for part, some in found.items() for n, v in zip(together[part], some, strict=True)}
        return [known[number] for number in numbers]

    def _parts(self, numbers: Sequence[int]) -> list[Sequence[int]]:
        """What is judged together: images of one task, so that a search for this task alone gives the same verdicts."""
        of_task: dict[str, list[int]] = {}
        for number in numbers:
            prompt = self._images.prompts[number // self._images.count]
            of_task.setdefault(str(prompt.get("tag") or ""), []).append(number)
        return [part for some in of_task.values() for part in parts(some, JUDGED_AT_ONCE)]

    def _winners(self, place: int) -> Iterator[Record]:
        """The best images of a prompt that has stopped."""
        rounds, first = self._rounds, self._number(place, 0)
        count = len(rounds.values[place])
        best = winners(
            [self._record(place, index) for index in range(count)],
            [self._verdicts.pop(first + index) for index in range(count)],
            self._judging.cache.judge,
            keep=rounds.rules.keep,
            calibrations=self._judging.calibrations,
        )
        for record in best:
            yield {
                **record,
                "round": rounds.round_of[place][record["index"]],
                "drawn": count,
                "stopped": rounds.stopped[place],
            }

    def _summary(self) -> str:
        rounds = self._rounds
        reasons = Counter(str(why) for why in rounds.stopped)
        prompts = len(rounds.values)
        if not prompts:
            return "no prompts for this job, so it has no work"
        return (
            f"{rounds.drawn:,} images for {prompts:,} prompts, {rounds.drawn / max(prompts, 1):.1f} each of at most"
            f" {rounds.rules.most}; prompts stopped: "
            + ", ".join(f"{count:,} {why}" for why, count in sorted(reasons.items()))
        )
