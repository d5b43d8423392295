"""Images against a reference: features of both, a distance between them, and its score record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

from sanactl.errors import InputError, OutputExistsError, UsageError
from sanactl.files.progress import Progress
from sanactl.records.partial import Partial
from sanactl.records.records import Record
from sanactl.records.scores import new_score, same_checkpoint
from sanactl.scoring.detectors.check import place_of
from sanactl.scoring.distances.moments import GROUPS, Gaussian, Moments
from sanactl.scoring.distances.networks import Network
from sanactl.scoring.distances.reference import Reference, open_reference, save_statistics
from sanactl.scoring.distances.stream import Collected, Features

__all__ = ["LEAST", "Comparison", "Distance", "Sets", "check_reference"]

# Images below which a covariance of 2,048 features is singular, and other distances are mostly noise.
LEAST = 2048


@dataclass(frozen=True)
class Sets:
    """What a distance is measured of.

    Attributes:
        images: those that are scored.
        reference: the reference's mean and covariance; None if the distance needs none.
        rows: the reference's features, float32 [M, D]; None if the distance needs none.
        small: whether fewer than `LEAST` images are allowed.
    """

    images: Collected
    reference: Gaussian | None
    rows: Any
    small: bool


class Distance(Protocol):
    """A distance between two sets.

    Attributes:
        name: of the metric.
        sums, rows: whether it needs mean and covariance, and the features themselves.
    """

    @property
    def name(self) -> str: ...

    @property
    def sums(self) -> bool: ...

    @property
    def rows(self) -> bool: ...

    def measure(self, sets: Sets) -> dict[str, Any]:
        """{"value", "ci", ...}: the distance, its 95 % interval or None, and more fields of its score."""


def check_reference(reference: str | None, name: str) -> Reference:
    """Opens a reference; see `open_reference`.

    Args:
        reference: as the user named it.
        name: of the distance.

    Raises:
        UsageError: there is none.
        InputError: it cannot be read.
    """
    if reference is None:
        raise UsageError(
            f"{name} compares images with others",
            hint="give --reference a folder of images, image records, or statistics (.npz)",
        )
    return open_reference(reference)


class Comparison:
    """Compares image records with a reference.

    Args:
        network: what makes features.
        distance: of the two sets of features.
        reference: see `open_reference`; None is an error.
        batch_size: images that the network gets at once.
        small: allow fewer than `LEAST` images.
        save_reference: a .npz to write the reference's statistics to.

    Raises:
        UsageError: no reference, or statistics that are statistics already are to be saved.
        OutputExistsError: `save_reference` is there.
        InputError: the reference cannot be read, is too small, or was made in another way.
    """

    def __init__(
        self,
        network: Network,
        distance: Distance,
        reference: str | None,
        *,
        batch_size: int,
        small: bool,
        save_reference: str | None,
    ) -> None:
        self.network, self.distance, self.batch_size, self.small = network, distance, batch_size, small
        self.save_reference = None if save_reference is None else Path(save_reference)
        self._features: Features | None = None
        self.reference = check_reference(reference, distance.name)
        if self.save_reference is not None:
            self._check_target(self.save_reference)
        self.about = {
            "model": network.label,
            "weights": network.digest,
            "protocol": network.protocol,
            "size": network.size,
            "dtype": str(network.dtype).removeprefix("torch."),
        }
        self._check_count(self.reference.count, f"the reference {self.reference.name} has")
        # The width of some networks is known only when they are loaded; the statistics' other facts are not.
        self.reference.check(self.about, _width_of(self.reference))
        lacks = self._lacks(self.reference)
        if lacks:
            raise InputError(
                f"{self.reference.name}: no {lacks} in it, which {distance.name} needs",
                hint="give the reference's images; --save-reference writes what this metric needs",
            )

    def _check_target(self, path: Path) -> None:
        from sanactl.files.atomic import check_target

        if self.reference.paths is None:
            raise UsageError(f"--save-reference: {self.reference.name} is a file of statistics already")
        if path.suffix.lower() != ".npz":
            raise UsageError(f"--save-reference {path}: the name of statistics ends with .npz")
        try:
            check_target(path, False)
        except OutputExistsError as error:
            raise OutputExistsError(
                error.message, hint=f"use it with --reference {path}, or remove it"
            ) from None

    def _check_count(self, count: int | None, who: str) -> None:
        if count is None:
            return
        if count < 2:
            raise InputError(f"{who} {count} image{'' if count == 1 else 's'}; a distance needs two or more")
        if count < LEAST and not self.small:
            raise InputError(
                f"{who} {count:,} images, fewer than {LEAST:,}: {self.distance.name} would be mostly bias and noise",
                hint="--small measures them nevertheless; such a score compares only with others of as many images",
            )

    def _lacks(self, reference: Reference) -> str | None:
        if reference.paths is not None:
            return None
        if self.distance.sums and reference.gaussian is None and reference.features is None:
            return "mu and sigma"
        return "features" if self.distance.rows and reference.features is None else None

    def evaluate(
        self, records: Iterable[Record], kept: Partial | None, progress: Progress
    ) -> Iterator[Record]:
        """The image records as they are, then the score.

        Raises:
            InputError: no images, too few, or one that cannot be read.
        """
        stream = iter(records)
        # Fewer images than are needed are refused before any work.
        first = list(islice(stream, 2 if self.small else LEAST))
        if not first:
            raise InputError("no image records to score", hint="sanactl sample makes some")
        if len(first) < LEAST:
            self._check_count(len(first), "there are" if len(first) > 1 else "there is")
        stream = chain(first, stream)
        features = Features(self.network, self.batch_size, kept, progress.note)
        gaussian, rows = self._of_reference(features, progress)
        images = Collected(self.network.width, sums=self.distance.sums, rows=self.distance.rows)
        prompts: dict[str, int] = {}
        drawn: dict[tuple[str, str], Record] = {}
        progress.start(None, f"{self.distance.name} of images")
        try:
            for batch, computed in features.of(stream, generated=True):
                images.add(computed, [_prompt(r, prompts) % GROUPS for r in batch])
                for record in batch:
                    drawn.setdefault((str(record.get("checkpoint")), str(record.get("digest"))), record)
                    progress.advance(1)
                    yield record
        finally:
            progress.close()
        count = len(images.groups)
        if features.taken:
            progress.note(
                f"features of {features.taken:,} images were taken over from a run that was stopped"
            )
        found = self.distance.measure(Sets(images, gaussian, rows, self.small))
        if self.save_reference is not None:
            counted = {**self.about, "count": self.reference.count}
            save_statistics(self.save_reference, counted, gaussian, rows)
            progress.note(f"wrote {self.save_reference}")
        yield self._score(found, count, len(prompts), same_checkpoint([*drawn.values()]))

    def compute(self, part: Any) -> Any:
        """See `Features.compute`; for the processes beside the first."""
        if self._features is None:
            self._features = Features(self.network, self.batch_size, None, lambda line: None)
        return self._features.compute(part)

    def _of_reference(self, features: Features, progress: Progress) -> tuple[Gaussian | None, Any]:
        """The reference's mean and covariance, and its features, as far as they are needed."""
        reference, width = self.reference, self.network.width
        reference.check(self.about, width)
        if reference.paths is None:
            if not reference.about:
                progress.note(
                    f"{reference.name} does not say how it was made; {self.about['protocol']} is taken for granted"
                )
            gaussian = reference.gaussian
            if self.distance.sums and gaussian is None:
                gaussian = _gaussian_of(reference.features)
            return gaussian, reference.features
        collected = Collected(width, sums=self.distance.sums, rows=self.distance.rows)
        progress.start(len(reference.paths), "features of the reference")
        try:
            for batch, computed in features.of(({"path": str(p)} for p in reference.paths), generated=False):
                collected.add(computed, [0] * len(batch))
                progress.advance(len(batch))
        finally:
            progress.close()
        gaussian = collected.moments.gaussian() if collected.moments is not None else None
        return gaussian, collected.rows if self.distance.rows else None

    def _score(self, found: dict[str, Any], count: int, prompts: int, drawn: Record) -> Record:
        ci = found["ci"]
        return new_score(
            self.distance.name,
            _brief(found["value"]),
            ci=None if ci is None else [_brief(end) for end in ci],
            protocol=self.network.protocol,
            model=self.network.label,
            model_digest=self.network.digest,
            **{name: value for name, value in found.items() if name not in ("value", "ci")},
            images=count,
            reference_images=self.reference.count,
            reference=self.reference.name,
            prompts=prompts,
            features=self.network.width,
            size=self.network.size,
            dtype=self.about["dtype"],
            device=place_of(self.network),
            **drawn,
        )


def _gaussian_of(rows: Any) -> Gaussian:
    moments = Moments(rows.shape[1])
    moments.add(rows, [0] * len(rows))
    return moments.gaussian()


def _brief(value: float) -> float:
    return float(f"{value:.8g}")


def _width_of(reference: Reference) -> int:
    """The number of features of statistics; 0 for images."""
    if reference.features is not None:
        return int(reference.features.shape[1])
    return 0 if reference.gaussian is None else len(reference.gaussian.mu)


def _prompt(record: Record, known: dict[str, int]) -> int:
    """A number for the record's prompt; an image without a prompt is one of its own."""
    name = str(record.get("prompt_id") or record["prompt"] or record["path"])
    return known.setdefault(name, len(known))
