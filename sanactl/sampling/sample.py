"""`sample`: images for prompts, resumable and independent of how the work is divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from sanactl.files.progress import SILENT, Progress
from sanactl.model.conditioning import SamplingSettings, Sana, lot_size
from sanactl.model.processes import open_processes
from sanactl.records.records import Record
from sanactl.sampling.sample_folder import SampleFolder, folder_settings, renew_folder

if TYPE_CHECKING:
    import torch

    from sanactl.checkpoint.open import Checkpoint

__all__ = ["sample_images"]


def sample_images(
    checkpoint: Checkpoint,
    prompts: Sequence[Record],
    folder: Path,
    settings: SamplingSettings,
    *,
    count: int,
    device: torch.device,
    dtype: torch.dtype,
    batch_size: int = 32,
    seed: int = 0,
    renew: bool = False,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Draws `count` images of each prompt and yields their records in order, prompt by prompt.

    Images that are there already are kept, so a run that was stopped goes on where it was. Nothing is done for a
    prompt before its turn comes. Under several processes each draws every n-th fixed batch, and the first yields all
    records when the last is done.

    Args:
        prompts: prompt records, each with an `id`; their other fields are passed on.
        folder: opened by `sample_folder.open_folder`, by the first process.
        batch_size: images that a process takes on at once, rounded up to whole fixed batches; it does not change them
            (see `conditioning`).
        renew: remove what sanactl drew into the folder before, once the models are loaded.

    Raises:
        OutputExistsError: in an image's place lies another image.
    """
    state = open_processes()
    world, rank = state.num_processes, state.process_index
    images = SampleFolder(folder, checkpoint, settings, prompts, count=count, seed=seed, dtype=dtype)
    lot = lot_size(checkpoint, settings)
    sana: Sana | None = None

    def load() -> Sana:
        loaded = Sana(checkpoint, settings, device=device, dtype=dtype)
        if rank == 0 and (line := loaded.cut_note([p["prompt"] for p in prompts])):
            progress.note(line)
        return loaded

    kept = 0
    progress.start(len(images), "sampling")
    try:
        if renew:
            sana = load()
            state.wait_for_everyone()
            if state.is_main_process:
                renew_folder(folder, folder_settings(checkpoint, settings, seed, dtype, prompts))
            state.wait_for_everyone()
        for numbers in _batches(len(images), lot, -(-batch_size // lot), rank, world):
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


def _batches(count: int, lot: int, lots: int, rank: int, world: int) -> Iterator[list[int]]:
    """The numbers, out of `count`, that are this process's: every `world`-th run of `lot`, so many runs at once."""
    batch: list[int] = []
    for start in range(rank * lot, count, world * lot):
        batch += range(start, min(start + lot, count))
        if len(batch) >= lots * lot:
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
