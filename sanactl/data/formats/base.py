"""A data format: how `--data` recognises it, and how it becomes examples."""

from __future__ import annotations

from abc import ABC, abstractmethod

from sanactl.data.references import Reference
from sanactl.data.settings import DataSettings
from sanactl.data.sources import TrainingData, check_buckets, training_source
from sanactl.data.tables import Examples
from sanactl.errors import UsageError

__all__ = ["DataFormat", "check_scored"]


class DataFormat(ABC):
    """One kind of thing that `--data` can name; `sanactl.data.formats.registry.FORMATS` lists them.

    A new format is a class with `name`, `recognises` and `open`, and a line in that list. `open` gives an `Examples`;
    where a function from a number to an image and its caption is all there is, `NumberedExamples` makes one of it.

    Attributes:
        name: for people and for docs/data.md.
        suffixes: how its files end. A name with such an ending that is not there is a missing file, never the id of a
            dataset on the Hub.
        scored: whether it can choose among captions by their scores.
        certain: whether a folder that it recognises is of no other format, whatever else is in it.
    """

    name: str
    suffixes: tuple[str, ...] = ()
    scored: bool = False
    certain: bool = False

    @abstractmethod
    def recognises(self, reference: Reference) -> str | None:
        """The file (or name) by which the reference is seen to be of this format; None where it is not."""

    @abstractmethod
    def open(self, reference: Reference, settings: DataSettings) -> Examples:
        """The images and captions, as they are stored.

        Raises:
            InputError: they cannot be read, or there are no images with captions.
        """

    def open_for_training(self, reference: Reference, settings: DataSettings) -> TrainingData:
        """The examples in the order of training, each image resized and cropped to its training size.

        Raises:
            InputError: as in `open`.
            UsageError: two settings exclude each other.
        """
        check_buckets(settings)
        check_scored(settings, self.scored, self.name)
        return training_source(self.open(reference, settings), settings)


def check_scored(settings: DataSettings, scored: bool, what: str) -> None:
    """Refuses a choice by scores of data that do not allow it.

    Args:
        scored: whether they do.
        what: what they are, for people.

    Raises:
        UsageError: they do not, and it was asked for; or the choice itself is none.
    """
    if settings.rule is not None and not scored:
        raise UsageError(
            f"--caption-choice is not for {what}",
            hint="it takes image records, images with metadata, .tar files and SANA's data format, without --streaming",
        )
