"""How good a judge is on held-out images, before and after its training, by the figures of `eval judge`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanactl.files.progress import Progress
from sanactl.judging.audit.figures import Figures, as_figures
from sanactl.judging.audit.gather import Gathered, Judged
from sanactl.judging.audit.scores import PROTOCOLS, figure_fields
from sanactl.judging.cache import VerdictCache
from sanactl.judging.settings import settings_of
from sanactl.records.records import Record
from sanactl.records.scores import new_score

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sanactl.judging.protocol import Judge
    from sanactl.training.judge.data import JudgeData

__all__ = ["compared", "verdicts_on"]

# The first of `Figures.names`, in their order.
FIGURES = ("auc", "pair_accuracy", "balanced_accuracy")
_BATCH = 8  # images that a judge is asked about at once
_SHARED = 8  # such batches that are known as a whole


def verdicts_on(
    judge: Judge,
    data: JudgeData,
    folder: Path | None,
    progress: Progress,
    *,
    process: tuple[int, int] = (0, 1),
) -> list[Record]:
    """The held-out images' records with a judge's verdicts. Each process judges its share.

    Args:
        folder: verdicts are kept in its memory, as those of `judge`; None for nowhere.
        process: this process's number, and how many there are.

    Raises:
        InputError: an image cannot be read, or the judge gives NaN.
    """
    from accelerate.utils import gather_object

    cache = VerdictCache(folder, judge, tell=progress.note)
    size = _BATCH * _SHARED
    every = [data.held_out[first : first + size] for first in range(0, len(data.held_out), size)]
    number, processes = process
    progress.start(len(data.held_out), f"judging with {judge.name}")
    found = []
    for place in range(number, len(every), processes):
        verdicts = cache.verdicts(every[place], batch_size=_BATCH)
        found.append((place, [(v.verdict, v.yes_logprob, v.no_logprob, v.answer_mass) for v in verdicts]))
        progress.advance(len(every[place]) * processes)
    progress.close()
    rows = [row for _, some in sorted(gather_object(found) if processes > 1 else found) for row in some]
    settings = settings_of(judge)
    names = ("verdict", "yes_logprob", "no_logprob", "answer_mass")
    return [
        {**record, "judge": judge.name, "judge_settings": settings, **dict(zip(names, row, strict=True))}
        for record, row in zip(data.held_out, rows, strict=True)
    ]


def compared(data: JudgeData, before: Sequence[Record], after: Sequence[Record]) -> list[Record]:
    """Score records of both judges, with intervals over prompts, and of the gain, with the interval of the difference.

    Args:
        before, after: of `verdicts_on`, of the same images.
    """
    import numpy as np

    from sanactl.scoring.intervals import bootstrap

    first, last = _judged(data, before), _judged(data, after)
    every = np.ones(len(first.prompts), bool)
    figures = [Figures(judged, None, every) for judged in (first, last)]
    count = len(FIGURES)

    def measure(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        one, two = (each(weights)[:count] for each in figures)
        return np.concatenate([one, two, two - one])

    assert tuple(figures[0].names[:count]) == FIGURES
    found = list(as_figures(bootstrap(measure, len(first.prompts))))
    about: dict[str, Any] = {"truth": data.label}
    if data.sources:
        about["detector"] = ", ".join(data.sources)
    about |= {"images": figures[0].images, "prompts": figures[0].prompts}
    scores = []
    for place, (judged, when) in enumerate(((first, "before"), (last, "after"), (last, "gain"))):
        for figure, name in zip(found[place * count :], FIGURES, strict=False):
            said = "difference of after and before" if when == "gain" else PROTOCOLS[name]
            scores.append(
                new_score(
                    f"judge_{name}" + ("_gain" if when == "gain" else ""),
                    **figure_fields(figure),
                    training=when,
                    protocol=f"{said}, held-out prompts, 95 % by drawing prompts anew",
                    judge=judged.name,
                    **about,
                )
            )
    return scores


def _judged(data: JudgeData, records: Sequence[Record]) -> Judged:
    gathered = Gathered(data.label)
    for record in records:
        gathered.add(record)
    (name,) = gathered.opinions
    judged = gathered.judged(name)
    assert judged is not None
    return judged
