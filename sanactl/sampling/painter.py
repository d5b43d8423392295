"""Drawing chosen images of a folder, divided among processes; the models are loaded when the first image is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from sanactl.files.progress import SILENT, Progress
from sanactl.model.conditioning import Sana, fixed_batch_size
from sanactl.model.processes import open_processes
from sanactl.records.records import Record
from sanactl.sampling.open_folder import renew_folder
from sanactl.sampling.sample_folder import SampleFolder

if TYPE_CHECKING:
    import torch

__all__ = ["Painter", "portions"]


class Painter:
    """Draws images of a folder. With n processes, each draws every n-th fixed batch.

    Args:
        images: what to draw, and where. The first process has opened the folder (`open_folder.opened_folder`).
        device: of the models.
        batch_size: number of images that a process takes on at once, rounded up to whole fixed batches. It does not
            change the images (see `sanactl.model.conditioning`). Each fixed batch has texts of one length, so with fewer
            images more batches are partly empty.

    Attributes:
        kept: number of images that were there already, of this process.
    """

    def __init__(
        self,
        images: SampleFolder,
        *,
        device: torch.device,
        batch_size: int = 128,
        progress: Progress = SILENT,
    ) -> None:
        self.images, self.kept = images, 0
        self._device, self._batch_size, self._progress = device, batch_size, progress
        self._state = open_processes()
        self._sana: Sana | None = None

    def renew(self) -> None:
        """Removes the images that sanactl drew into the folder before, after the models are loaded."""
        self._load()
        self._state.wait_for_everyone()
        if self._state.is_main_process:
            renew_folder(self.images.folder, self.images.identity)
        self._state.wait_for_everyone()

    def draw(self, numbers: Sequence[int]) -> Iterator[list[Record]]:
        """Draws the images of these numbers that are missing.

        Yields:
            Records of this process's images that are there now, in order.

        Raises:
            OutputExistsError: another image has the path of an image to be drawn.
        """
        world = self._state.num_processes
        size = fixed_batch_size(self.images.checkpoint, self.images.settings)
        at_once = -(-self._batch_size // size)
        for places in portions(len(numbers), size, at_once, self._state.process_index, world):
            chosen = [numbers[place] for place in places]
            records = [self.images.record(number) for number in chosen]
            missing = list(self.images.missing(records))
            self.kept += len(records) - len(missing)
            self._progress.advance((len(records) - len(missing)) * world)
            if missing:
                self._load()
            self.images.describe(chosen)
            ready = 0
            for end in chain(self._draw(records, missing) if missing else (), [len(records)]):
                # Existing images are passed on at once, in order, because the next command may be waiting.
                yield records[ready:end]
                ready = end

    def _load(self) -> Sana:
        if self._sana is None:
            self._progress.doing(f"loading {self.images.checkpoint.name}")
            images = self.images
            self._sana = Sana(images.checkpoint, images.settings, device=self._device, dtype=images.dtype)
            prompts = [p["prompt"] for p in images.prompts]
            if self._state.is_main_process and (line := self._sana.texts.cut_note(prompts)):
                self._progress.note(line)
            self._progress.doing(None)
        return self._sana

    def _draw(self, records: list[Record], missing: list[int]) -> Iterator[int]:
        """Draw and write the images at these positions; after each batch, yield the number of leading records with images."""
        chosen = [records[position] for position in missing]
        waiting = set(missing)
        for places, pixels in self._load().draw([r["prompt"] for r in chosen], [r["seed"] for r in chosen]):
            for place, image in zip(places, pixels, strict=True):
                self.images.write(image, chosen[place])
                waiting.remove(missing[place])
            self._progress.advance(len(pixels) * self._state.num_processes)
            yield min(waiting, default=len(records))


def portions(count: int, size: int, at_once: int, rank: int, world: int) -> Iterator[list[int]]:
    """This process's numbers below `count`: every `world`-th fixed batch of `size`, in groups of `at_once`."""
    batch: list[int] = []
    for start in range(rank * size, count, world * size):
        batch += range(start, min(start + size, count))
        if len(batch) >= at_once * size:
            yield batch
            batch = []
    if batch:
        yield batch
