"""Drawing images for prompts. A run can be resumed, and its images do not depend on batches or processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sanactl.files.progress import SILENT, Progress
from sanactl.model.processes import open_processes
from sanactl.records.records import Record
from sanactl.sampling.painter import Painter
from sanactl.sampling.sample_folder import SampleFolder

if TYPE_CHECKING:
    import torch

__all__ = ["sample_images"]


def sample_images(
    images: SampleFolder,
    *,
    device: torch.device,
    batch_size: int = 128,
    offload: str = "none",
    numbers: Sequence[int] | None = None,
    renew: bool = False,
    progress: Progress = SILENT,
) -> Iterator[Record]:
    """Draw the missing images of a folder, and yield the records of all images in order, prompt by prompt.

    A stopped run continues where it stopped. With n processes, each draws every n-th fixed batch, and the first process
    yields all records when all are done.

    Args:
        images: what to draw, and where. The first process has opened the folder (`open_folder.opened_folder`).
        device: of the models.
        batch_size, offload: see `sanactl.sampling.painter.Painter`.
        numbers: of the images to draw, by rising number; by default all.
        renew: remove the images that sanactl drew into the folder before. This is done after the models are loaded.

    Raises:
        OutputExistsError: another image has the path of an image to be drawn.
    """
    state = open_processes()
    world = state.num_processes
    painter = Painter(images, device=device, batch_size=batch_size, offload=offload, progress=progress)
    wanted = range(len(images)) if numbers is None else numbers
    progress.start(len(wanted), "sampling")
    progress.keeps("the images drawn so far stay")
    try:
        if renew:
            painter.renew()
        for records in painter.draw(wanted):
            if world == 1:
                yield from records
        if painter.kept:
            progress.note(
                f"{painter.kept} of {len(wanted)} images were there already{' for this process' * (world > 1)}"
            )
    finally:
        progress.close()
    if world > 1:
        state.wait_for_everyone()
        if state.is_main_process:
            yield from map(images.record, wanted)
