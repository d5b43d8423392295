"""From image records to what each judge said of each image, and what is true of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sanactl.errors import InputError
from sanactl.judging.tournament import Verdict
from sanactl.records.fields import LOGARITHM, OBJECTS, number
from sanactl.records.records import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Gathered", "Judged", "Opinion", "label_of"]

_LABELS = {
    **dict.fromkeys(("true", "yes", "1"), True),
    **dict.fromkeys(("false", "no", "0"), False),
}
_SHARE = number(0, 1)

Image = tuple[str, str]  # prompt, path


@dataclass(frozen=True)
class Opinion:
    """What a judge says of an image.

    Attributes:
        settings: see `sanactl.judging.settings.settings_of`; empty where the record has none.
        calibrated: the record's own probability, or None.
    """

    verdict: Verdict
    settings: Mapping[str, Any]
    calibrated: float | None = None


@dataclass
class Judged:
    """A judge's opinions, and the truth, of the images that have both.

    Attributes:
        name: the judge's.
        verdicts: the first one of each image.
        truth: bool [N].
        prompts: the texts of the P prompts, and `groups`, int64 [N], each image's prompt among them.
        tags: each prompt's task, "" where none is known.
        calibrated: float64 [N], the records' own probabilities, or None where one is missing.
        settings: the different settings among the verdicts.
    """

    name: str
    verdicts: list[Verdict]
    truth: NDArray[np.bool_]
    prompts: list[str]
    groups: NDArray[np.int64]
    tags: list[str]
    calibrated: NDArray[np.float64] | None
    settings: list[Mapping[str, Any]]


@dataclass
class Gathered:
    """Image records, read one by one.

    Args:
        label: the field with the truth.

    Attributes:
        truth: of each image that has one.
        opinions: for each judge, of each image all opinions in the order in which they came.
        tags: of prompts.
        sources: what found the truth, where records name it (`detector`).
    """

    label: str = "correct"
    truth: dict[Image, bool] = field(default_factory=dict)
    opinions: dict[str, dict[Image, list[Opinion]]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    _samples: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Takes a record.

        Raises:
            InputError: its truth is no yes or no, or another one than that of an earlier record of the image; or a
                verdict is damaged.
        """
        prompt, path = str(record["prompt"]), str(record["path"])
        image = prompt, path
        truth = label_of(record, self.label)
        if truth is not None:
            if self.truth.setdefault(image, truth) != truth:
                raise InputError(f"{path}: two records of it differ in {self.label!r}")
            if self.label == "correct" and isinstance(record.get("detector"), str):
                self.sources[record["detector"]] = None
        if isinstance(record.get("tag"), str):
            self.tags.setdefault(prompt, record["tag"])
        if isinstance(record.get("samples"), int):
            self._samples[prompt] = max(record["samples"], self._samples.get(prompt, 0))
        for name, opinion in _opinions(record):
            self.opinions.setdefault(name, {}).setdefault(image, []).append(opinion)

    def partly(self) -> int:
        """How many prompts have fewer images than were drawn for them."""
        found: dict[str, int] = {}
        for prompt, _ in {image for of_judge in self.opinions.values() for image in of_judge}:
            found[prompt] = found.get(prompt, 0) + 1
        return sum(count < self._samples.get(prompt, 0) for prompt, count in found.items())

    def judged(self, name: str) -> Judged | None:
        """What there is of a judge; None if no image has its verdict and a truth."""
        import numpy as np

        images = [image for image in self.opinions[name] if image in self.truth]
        if not images:
            return None
        first = [self.opinions[name][image][0] for image in images]
        number_of = {prompt: n for n, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in images))}
        own = [opinion.calibrated for opinion in first]
        settings: dict[str, Mapping[str, Any]] = {
            repr(sorted(o.settings.items(), key=lambda item: item[0])): o.settings for o in first
        }
        return Judged(
            name,
            [opinion.verdict for opinion in first],
            np.array([self.truth[image] for image in images], dtype=bool),
            list(number_of),
            np.array([number_of[prompt] for prompt, _ in images], dtype=np.int64),
            [self.tags.get(prompt, "") for prompt in number_of],
            None if None in own else np.array(own, dtype=np.float64),
            list(settings.values()),
        )


def label_of(record: Mapping[str, Any], name: str) -> bool | None:
    """The truth in a field of a record: true or false, 0 or 1, yes or no; None where the field is absent.

    Raises:
        InputError: it is something else.
    """
    value = record.get(name)
    if value is None or value == "":
        return None
    found = _LABELS.get(str(value).strip().lower()) if isinstance(value, bool | int | float | str) else None
    if isinstance(value, float) and value in (0.0, 1.0):
        found = bool(value)
    if found is None:
        raise InputError(
            f"{record.get('path')}: its record's {name!r} is {str(value)[:40]!r}, and not a label",
            hint="a label is true or false, 0 or 1, yes or no",
        )
    return found


def _opinions(record: Record) -> Iterator[tuple[str, Opinion]]:
    """The opinion of the record's judge and, where it is of several, that of each."""
    settings = record.get("judge_settings") or {}
    several = settings.get("judges")
    if several is not None and not OBJECTS.fits(several):
        raise InputError(
            f"{record['path']}: the 'judge_settings' of its record are damaged", hint="judge it again"
        )
    name = record.get("judge")
    if name is None or record.get("yes_logprob") is None or record.get("no_logprob") is None:
        return
    yield str(name), _opinion(record, settings, record)
    for place, each in enumerate(record.get("verdicts") or ()):
        own = several[place] if several and place < len(several) else {}
        if not isinstance(each.get("judge"), str):
            raise InputError(f"{record['path']}: a verdict in its record names no judge")
        yield each["judge"], _opinion(each, own, record)


def _opinion(found: Mapping[str, Any], settings: Mapping[str, Any], record: Record) -> Opinion:
    yes, no, calibrated = found.get("yes_logprob"), found.get("no_logprob"), found.get("calibrated")
    answer, mass = found.get("verdict"), found.get("answer_mass")
    if (
        not (LOGARITHM.fits(yes) and LOGARITHM.fits(no))
        or answer not in ("yes", "no", None)
        or not all(value is None or _SHARE.fits(value) for value in (calibrated, mass))
    ):
        raise InputError(f"{record['path']}: a verdict in its record is damaged", hint="judge it again")
    assert isinstance(yes, int | float) and isinstance(no, int | float)  # LOGARITHM has seen to it
    said = answer or ("yes" if yes > no else "no")
    return Opinion(Verdict(said, float(yes), float(no), mass), settings, calibrated)
