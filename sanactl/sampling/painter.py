"""Drawing chosen images of a folder, divided among processes; the models are loaded when the first image is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

from sanactl.files.progress import SILENT, Progress
from sanactl.model.conditioning import Sana, fixed_batch_size
from sanactl.model.processes import open_processes
from sanactl.records.records import Record
from sanactl.sampling.open_folder import renew_folder
from sanactl.sampling.sample_folder import SampleFolder
from sanactl.sampling.writer import Writer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["Painter", "portions"]


class Painter:
    """Draws images of a folder. With n processes, each draws every n-th fixed batch.

    Args:
        images: what to draw, and where. The first process has opened the folder (`open_folder.opened_folder`).
        device: of the models.
        batch_size: number of images that a process takes on at once, rounded up to whole fixed batches. It does not
            change the images (see `sanactl.model.conditioning`). Each fixed batch has texts of one length, so with fewer
            images more batches are partly empty.
        offload: where the models wait (`sanactl.model.offload.OFFLOADS`).

    Attributes:
        kept: number of images that were there already, of this process.
    """

    def __init__(
        self,
        images: SampleFolder,
        *,
        device: torch.device,
        batch_size: int = 128,
        offload: str = "none",
        progress: Progress = SILENT,
    ) -> None:
        self.images, self.kept = images, 0
        self._device, self._batch_size, self._progress = device, batch_size, progress
        self._offload = offload
        self._fixed_batch = fixed_batch_size(images.checkpoint, images.settings)
        self._state = open_processes()
        self._sana: Sana | None = None

    def renew(self) -> None:
        """Removes the images that sanactl drew into the folder before, after the models are loaded."""
        mine = chain.from_iterable(self._portions(range(len(self.images))))
        prompts = (self.images.record(number)["prompt"] for number in mine)
        self._load(list(islice(prompts, self._fixed_batch)), prompts)
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
        # A record comes out when its image is on disk. The next images are drawn meanwhile.
        with Writer[tuple[Record, "NDArray[np.uint8]"], tuple[int, list[Record]]](
            self.images.write
        ) as writer:
            for portion, chosen in enumerate(self._portions(numbers)):
                for drawn, records in self._batches(numbers, portion, chosen):
                    yield from self._told(writer.put(drawn, (len(drawn), records)))
            yield from self._told(writer.rest())

    def _batches(
        self, numbers: Sequence[int], portion: int, chosen: list[int]
    ) -> Iterator[tuple[list[tuple[Record, NDArray[np.uint8]]], list[Record]]]:
        """Draw the images of a portion that are missing.

        Yields:
            images to be written with their records, and the records that can be passed on then, in order.
        """
        records = [self.images.record(number) for number in chosen]
        missing = list(self.images.missing(records))
        self.kept += len(records) - len(missing)
        self._progress.advance((len(records) - len(missing)) * self._state.num_processes)
        if missing:
            later = chain.from_iterable(islice(self._portions(numbers), portion, None))
            now = [records[position]["prompt"] for position in missing[: self._fixed_batch]]
            self._load(now, self.images.missing_prompts(later))
        self.images.describe(chosen)
        # Existing images are passed on at once, in order, because the next command may be waiting.
        ready = missing[0] if missing else len(records)
        yield [], records[:ready]
        if not missing:
            return
        assert self._sana is not None
        wanted, waiting = [records[position] for position in missing], set(missing)
        for places, pixels in self._sana.draw([r["prompt"] for r in wanted], [r["seed"] for r in wanted]):
            waiting -= {missing[place] for place in places}
            end = min(waiting, default=len(records))
            yield (
                [(wanted[place], image) for place, image in zip(places, pixels, strict=True)],
                records[ready:end],
            )
            ready = end

    def _told(self, finished: Iterator[tuple[int, list[Record]]]) -> Iterator[list[Record]]:
        for count, records in finished:
            self._progress.advance(count * self._state.num_processes)
            yield records

    def _portions(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """This process's share of these images, as many as are drawn at once."""
        at_once = -(-self._batch_size // self._fixed_batch)
        rank, world = self._state.process_index, self._state.num_processes
        for places in portions(len(numbers), self._fixed_batch, at_once, rank, world):
            yield [numbers[place] for place in places]

    def _load(self, prompts: Sequence[str], later: Iterable[str]) -> None:
        """Loads the models; these prompts are encoded, and some of those that are drawn later."""
        images = self.images
        if self._sana is None:
            self._progress.doing(f"loading {images.checkpoint.name}")
            self._sana = Sana(
                images.checkpoint,
                images.settings,
                device=self._device,
                dtype=images.dtype,
                offload=self._offload,
            )
            every = [p["prompt"] for p in images.prompts]
            if self._state.is_main_process and (line := self._sana.texts.cut_note(every)):
                self._progress.note(line)
            if self._state.is_main_process and images.settings.compile:
                self._progress.note("the first batch compiles the transformer: it may take a minute or more")
        if self._sana.texts.lack(prompts):
            self._progress.doing("encoding prompts")
            self._sana.texts.prepare(prompts, later)
            self._progress.doing(f"loading {images.checkpoint.name}")
        assert self._sana.transformer is not None
        self._progress.doing(None)


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
