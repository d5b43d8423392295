"""Which images are drawn next: the rounds of all prompts, from the probabilities of the images that are there."""

from __future__ import annotations

from collections.abc import Sequence

from sanactl.errors import UsageError
from sanactl.sampling.search.policy import Belief, Rules, gain, learn, stop_reason

__all__ = ["AT_ONCE", "Rounds"]

# Rounds that a budget is spent on at once. It is a constant, because the choice must not depend on batch sizes.
AT_ONCE = 8


class Rounds:
    """The state of a run: each prompt's probabilities, and why it stopped.

    The next images follow from the tasks, the rules and the probabilities alone. So a run that is started again takes the
    same decisions, and a simulation with images that exist takes those of a real run.

    Args:
        tasks: the task of each prompt; prompts of one task share what is learned.
        rules: of the run.

    Attributes:
        values: calibrated probabilities of each prompt's images, by index.
        round_of: the rounds that these images were drawn in, from 1.
        stopped: why each prompt has stopped; None while it has not.

    Raises:
        UsageError: the budget is too small for one image of each prompt.
    """

    def __init__(self, tasks: Sequence[str], rules: Rules) -> None:
        if rules.budget is not None and rules.budget < len(tasks):
            raise UsageError(
                f"a budget of {rules.budget:,} images is less than one for each of {len(tasks):,} prompts"
            )
        self.rules, self._tasks = rules, list(tasks)
        self.values: list[list[float]] = [[] for _ in tasks]
        self.round_of: list[list[int]] = [[] for _ in tasks]
        self.stopped: list[str | None] = [None] * len(tasks)

    @property
    def drawn(self) -> int:
        """Images of all prompts so far."""
        return sum(map(len, self.values))

    def next_images(self) -> list[tuple[int, range]]:
        """The prompts that get images now, and the indexes of these images; [] when all prompts have stopped.

        Without a budget each prompt that has not stopped gets a round. With one, prompts without images come first. Then
        the `AT_ONCE` rounds of the largest expected gain per image are drawn.
        """
        going = [p for p, why in enumerate(self.stopped) if why is None]
        if self.rules.budget is None:
            return [self._round(p, self.rules.round) for p in going]
        left = self.rules.budget - self.drawn
        new = [p for p in going if not self.values[p]]
        if new:
            # Each prompt gets at least one image.
            size = max(1, min(self.rules.round, self.rules.budget // len(self.values)))
            return [self._round(p, size) for p in new]
        beliefs = self._beliefs()
        worth = {p: self._gain_per_image(p, beliefs[self._tasks[p]]) for p in going}
        chosen = []
        for p in sorted(going, key=lambda p: (-worth[p], p))[:AT_ONCE]:
            place, indexes = self._round(p, min(self.rules.round, left))
            if indexes:
                chosen.append((place, indexes))
                left -= len(indexes)
        return chosen

    def _round(self, prompt: int, size: int) -> tuple[int, range]:
        start = len(self.values[prompt])
        return prompt, range(start, min(start + size, self.rules.most))

    def _gain_per_image(self, prompt: int, belief: Belief) -> float:
        count = len(self._round(prompt, self.rules.round)[1])
        return gain(self.values[prompt], count, self.rules.keep, belief) / count

    def add(self, images: Sequence[tuple[int, range]], values: Sequence[float]) -> list[int]:
        """Takes in the probabilities of the images that were drawn.

        Args:
            images: as `next_images` gave them.
            values: calibrated probabilities of these images, in order.

        Returns:
            The prompts that stop now, in order; `stopped` says why.
        """
        at = 0
        for prompt, indexes in images:
            self.values[prompt] += values[at : at + len(indexes)]
            number = self.round_of[prompt][-1] + 1 if self.round_of[prompt] else 1
            self.round_of[prompt] += [number] * len(indexes)
            at += len(indexes)
        beliefs = self._beliefs()
        spent = self.rules.budget is not None and self.drawn >= self.rules.budget
        ended = []
        for prompt, why in enumerate(self.stopped):
            if why is None and self.values[prompt]:
                why = stop_reason(self.values[prompt], self.rules, beliefs[self._tasks[prompt]])
                self.stopped[prompt] = why or ("budget" if spent else None)
                ended += [prompt] if self.stopped[prompt] else []
        return ended

    def _beliefs(self) -> dict[str, Belief]:
        """What is known of each task, from all its images."""
        return {
            task: learn([v for v, of in zip(self.values, self._tasks, strict=True) if of == task])
            for task in dict.fromkeys(self._tasks)
        }
