"""Drawing images for prompts. A run can be resumed, and its images do not depend on batches or processes."""

from __future__ import annotations

from collections.abc import Iterator
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

__all__ = ["sample_images"]


def sample_images(
    images: SampleFolder,
    *,
    device: torch.device,
    batch_size: int = 32,
    renew: bool = False,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Draw the missing images of a folder, and yield the records of all images in order, prompt by prompt.

    A stopped run continues where it stopped. With n processes, each draws every n-th fixed batch, and the first process
    yields all records when all are done.

    Args:
        images: what to draw, and where. The first process has opened the folder (`open_folder.opened_folder`).
        device: of the models.
        batch_size: number of images that a process draws at once, rounded up to whole fixed batches. It does not change
        the images (see `sanactl.model.conditioning`).
        renew: remove the images that sanactl drew into the folder before. This is done after the models are loaded.

    Raises:
        OutputExistsError: another image has the path of an image to be drawn.
    """
    state = open_processes()
    world, rank = state.num_processes, state.process_index
    size = fixed_batch_size(images.checkpoint, images.settings)
    sana: Sana | None = None

    def load() -> Sana:
        progress.doing(f"loading {images.checkpoint.name}")
        loaded = Sana(images.checkpoint, images.settings, device=device, dtype=images.dtype)
        if rank == 0 and (line := loaded.cut_note([p["prompt"] for p in images.prompts])):
            progress.note(line)
        progress.doing(None)
        return loaded

    kept = 0
    progress.start(len(images), "sampling")
    try:
        if renew:
            sana = load()
            state.wait_for_everyone()
            if state.is_main_process:
                renew_folder(images.folder, images.identity)
            state.wait_for_everyone()
        for numbers in _batches(len(images), size, -(-batch_size // size), rank, world):
            records = [images.record(number) for number in numbers]
            missing = list(images.missing(records))
            kept += len(records) - len(missing)
            progress.advance((len(records) - len(missing)) * world)
            if missing:
                sana = sana or load()
            images.describe(numbers)
            drawn = _draw(sana, images, records, missing, progress, world) if sana and missing else iter(())
            ready = 0
            for end in chain(drawn, [len(records)]):
                # Existing images are yielded at once, in order, because the next command may be waiting.
                if world == 1:
                    yield from records[ready:end]
                ready = end
        if kept:
            progress.note(
                f"{kept} of {len(images)} images were there already{' for this process' * (world > 1)}"
            )
    except KeyboardInterrupt:
        progress.note("stopped; the images drawn so far stay, and the same command goes on from there")
        raise
    finally:
        progress.close()
    if world > 1:
        state.wait_for_everyone()
        if state.is_main_process:
            yield from map(images.record, range(len(images)))


def _batches(count: int, size: int, at_once: int, rank: int, world: int) -> Iterator[list[int]]:
    """This process's numbers below `count`: every `world`-th fixed batch of `size`, in groups of `at_once`."""
    batch: list[int] = []
    for start in range(rank * size, count, world * size):
        batch += range(start, min(start + size, count))
        if len(batch) >= at_once * size:
            yield batch
            batch = []
    if batch:
        yield batch


def _draw(
    sana: Sana,
    images: SampleFolder,
    records: list[Record],
    missing: list[int],
    progress: Progress,
    world: int,
) -> Iterator[int]:
    """Draw and write the images at these positions; after each batch, yield the number of leading records with images."""
    chosen = [records[position] for position in missing]
    at = 0
    for pixels in sana.draw([r["prompt"] for r in chosen], [r["seed"] for r in chosen]):
        for record, image in zip(chosen[at:], pixels, strict=False):
            images.write(image, record)
        at += len(pixels)
        progress.advance(len(pixels) * world)
        yield missing[at - 1] + 1
