"""`sanactl.sample` and `sanactl.iter_sample`: images for prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sanactl.api.guards import guarded
from sanactl.api.inputs import (
    CheckpointLike,
    DeviceLike,
    DtypeLike,
    PathLike,
    Prompts,
    Records,
    as_progress,
    as_prompts,
    as_records,
    check_seed,
    opened,
)
from sanactl.api.listed import CHECKED, checked, listed
from sanactl.api.models import placed
from sanactl.files.progress import Progress

if TYPE_CHECKING:
    from sanactl.records.records import Record
    from sanactl.records.types import ImageRecord

__all__ = ["iter_sample", "sample"]


@checked
def iter_sample(
    checkpoint: CheckpointLike,
    prompts: Prompts | Records | None = None,
    *,
    count: int | None = None,
    limit: int | None = None,
    redraw: bool = False,
    guard: str | None = None,
    guard_options: Mapping[str, Any] | None = None,
    steps: int | None = None,
    guidance: float | None = None,
    height: int | None = None,
    width: int | None = None,
    flow_shift: float | None = None,
    negative: str | None = None,
    instruction: PathLike | None = None,
    text_padding: str = "trim",
    fixed_batch: int | None = None,
    vae_tiling: str = "auto",
    compile: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    offload: str = "none",
    components: PathLike | None = None,
    revision: str | None = None,
    output: PathLike | None = None,
    sheet: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Iterator[ImageRecord]:
    """As `sanactl.sample`, one record after the other, each as soon as its image is drawn.

    Arguments are checked at the call. The folder is opened and the models are loaded when the first record is asked for;
    `images.jsonl` and the sheet are written after the last. Same arguments and errors as `sanactl.sample`.
    """
    from sanactl.errors import UsageError
    from sanactl.files.paths import user_path
    from sanactl.model.offload import check_offload
    from sanactl.model.processes import open_processes
    from sanactl.model.sampling_settings import sampling_settings, with_fixed_batch
    from sanactl.report.sheet import ContactSheet
    from sanactl.sampling.dataset_files import list_images
    from sanactl.sampling.inputs import instruction_settings, spread
    from sanactl.sampling.open_folder import folder_settings, shared_folder
    from sanactl.sampling.redraw import RedrawFolder, read_drafts
    from sanactl.sampling.room import check_room
    from sanactl.sampling.sample import sample_images
    from sanactl.sampling.sample_folder import SampleFolder

    if any(number is not None and number < 1 for number in (count, limit, batch_size)):
        raise UsageError(
            f"count, limit and batch_size have to be at least 1, got {count}, {limit} and {batch_size}"
        )
    if redraw and (count is not None or limit is not None or prompts is None):
        raise UsageError(
            "redraw takes image records as prompts, and neither count nor limit",
            hint="give the records of sanactl.judge",
        )
    if redraw and guard is not None:
        raise UsageError("redraw draws prompts that were drawn before", hint="give guard to the first sample")
    check_seed(seed)
    picture = None if sheet is None else ContactSheet(Path(sheet), force=force)
    found = opened(checkpoint, revision, components)
    settings = sampling_settings(
        found,
        steps=steps,
        guidance_scale=guidance,
        height=height,
        width=width,
        flow_shift=flow_shift,
        negative_prompt=negative,
        text_padding=text_padding,
        fixed_batch=fixed_batch,
        vae_tiling=vae_tiling,
        compile=compile,
        **instruction_settings(instruction),
    )
    where, kind = placed(found, device, dtype)
    check_offload(offload, where, compile=compile)
    pictures = as_records(cast("Records", prompts), "image") if redraw else None
    records = [] if redraw else spread(as_prompts(prompts, default="demo"), limit)
    yield CHECKED
    drafts = None if pictures is None else read_drafts(pictures, settings, seed)
    records = records if drafts is None else drafts.prompts
    safe = guarded(records, guard, guard_options, device, as_progress(progress))
    records = safe.passed
    planned = with_fixed_batch(
        found, settings, len(records) * (count or 4) if drafts is None else len(drafts.images)
    )
    if drafts is None:
        check_room(Path(output or f"{found.name}-samples"), len(records) * (count or 4), settings)
    wanted = folder_settings(found, planned, seed, kind, records, guard=safe.identity)
    drawn: list[Record] = []
    named = None if output is None else user_path(output)
    first = open_processes().is_main_process
    with shared_folder(named, f"{found.name}-samples", wanted, settings, force=force) as (folder, settings):
        samples = (
            SampleFolder(
                folder,
                found,
                settings,
                records,
                count=count or 4,
                seed=seed,
                dtype=kind,
                guard=safe.identity,
            )
            if drafts is None
            else RedrawFolder(folder, found, settings, drafts, seed=seed, dtype=kind)
        )
        images = sample_images(
            samples,
            device=where,
            batch_size=batch_size,
            offload=offload,
            renew=force,
            progress=as_progress(progress),
        )
        for record in images if picture is None else picture.watching(images):
            drawn.append(record)
            yield cast("ImageRecord", record)
        if first:
            list_images(folder, drawn, safe.blocked)
            if picture is not None:
                picture.write()


@listed(iter_sample)
def sample() -> None:
    """Draws images for prompts. A call that was stopped goes on where it was when it is made again.

    Args:
        checkpoint: a path, a Hub id, or an opened checkpoint.
        prompts: texts or records in a list, a file of them, one text with a space in it, or "shapes" for the built-in
            evaluation prompts; by default one built-in prompt a task.
        count: images of each prompt; None is 4.
        limit: take only this many prompts, evenly spread; None for all.
        redraw: `prompts` are image records (of `sanactl.judge`), and these images are drawn again with the same seeds.
        guard: check the prompts first, as `sanactl.guard` with this `model`; those that it blocks get no image, and a
            warning tells how many they are. None for no guard.
        guard_options: of the guard: `policy`, `threshold`, `non_english`, `device`, `dtype`.
        steps: of the sampler; None is the checkpoint's own, else 20 (SANA-Sprint: 2).
        guidance: guidance scale, 1 is none; None is the checkpoint's own, else 4.5.
        height, width: in pixels, multiples of a latent's pixels; None is the checkpoint's own, else 1024.
        flow_shift: of the scheduler; None is its own (SANA: 3).
        negative: the negative prompt; None is the checkpoint's own, else empty.
        instruction: what the text encoder gets before every prompt: "off", or a text file; None is the checkpoint's
            own, else SANA's complex human instruction.
        text_padding: "trim" pads the text to the next of a few lengths, "full" to the length of training. The images
            differ in rounding.
        fixed_batch: images computed together, which decides their rounding; None for the folder's, else a number that
            follows from model, size and the number of images.
        vae_tiling: whether the autoencoder decodes in tiles, "auto", "on" or "off"; it takes less memory and changes
            pixels at the seams. "auto" is on above 1024 pixels.
        compile: whether the transformer is compiled (`torch.compile`), for long runs; it changes rounding.
        batch_size: images at once. It does not change them.
        seed: 0 to 2^53 - 1. Each image's own is made of it, its prompt and its index.
        device: where the models run, a name or a `torch.device`; by default the best there is.
        dtype: of the weights, "bf16", "fp16", "fp32" or a `torch.dtype`; by default bf16 on a GPU, fp32 on a CPU.
        offload: where models wait while a GPU does not need them: "none" on the GPU, "model" moves whole models to the
            CPU's memory, "group" each block. Refused on a CPU.
        components, revision: see `sanactl.open_checkpoint`.
        output: the folder for the images, in GenEval's layout; by default `NAME-samples` in the current folder, or
            `NAME-samples-2` and so on where that holds other images.
        sheet: also draw the images into one picture, a .png, .jpg or .webp file.
        force: replace what sanactl drew into the folder before.
        progress: True for a bar of the images.

    Returns:
        a record for each image, prompt by prompt: `path` is a PNG, uint8 RGB [height, width, 3].

    Raises:
        UsageError: a setting out of its range, no such device or dtype.
        InputError: a bad checkpoint or prompt; a component that cannot be loaded; a guard that blocks every prompt.
        OutputExistsError: the folder holds something else, or images of other settings, and `force` was not given.

    Source: section 2.5 (many samples of a prompt); the sampler is that of diffusers' `SanaPipeline`.
    """
