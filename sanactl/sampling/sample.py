"""`sample`: images for prompts, resumable and independent of how the work is divided."""

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
    """Draws the images of a folder that are missing, and yields all records in order, prompt by prompt.

    A run that was stopped goes on where it was. The work for a prompt begins when its turn comes. With several
    processes, each draws every n-th fixed batch, and the first yields all records when the last is done.

    Args:
        images: what to draw, and where. The first process has opened the folder (`open_folder.opened_folder`).
        device: where the models run.
        batch_size: images that a process takes at once, rounded up to whole fixed batches. It does not change them
            (see `sanactl.model.conditioning`).
        renew: remove what sanactl drew into the folder before. This is done after the models are loaded.

    Raises:
        OutputExistsError: in an image's place lies another image.
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
                # What is there goes out at once, in order: the reader may have started already.
                if world == 1:
                    yield from records[ready:end]
                ready = end
        if kept:
            progress.note(
                f"{kept} of {len(images)} images were there already{' for this process' * (world > 1)}"
            )
    except KeyboardInterrupt:
        progress.note("stopped; what is drawn stays, and the same command goes on from there")
        raise
    finally:
        progress.close()
    if world > 1:
        state.wait_for_everyone()
        if state.is_main_process:
            yield from map(images.record, range(len(images)))


def _batches(count: int, size: int, at_once: int, rank: int, world: int) -> Iterator[list[int]]:
    """The numbers below `count` that are this process's: every `world`-th fixed batch of `size`, some `at_once`."""
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
    """Draws and writes the images at these positions; yields, batch by batch, up to where all records have theirs."""
    chosen = [records[position] for position in missing]
    at = 0
    for pixels in sana.draw([r["prompt"] for r in chosen], [r["seed"] for r in chosen]):
        for record, image in zip(chosen[at:], pixels, strict=False):
            images.write(image, record)
        at += len(pixels)
        progress.advance(len(pixels) * world)
        yield missing[at - 1] + 1
