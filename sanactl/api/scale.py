"""`sanactl.scale` and `sanactl.iter_scale`: images for prompts by adaptive best-of-N."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sanactl.api.guards import guarded
from sanactl.api.inputs import (
    CheckpointLike,
    DeviceLike,
    DtypeLike,
    PathLike,
    Prompts,
    as_progress,
    as_prompts,
    check_seed,
    device_name,
    opened,
)
from sanactl.api.judges import chosen_judge
from sanactl.api.listed import CHECKED, checked, listed
from sanactl.api.models import placed
from sanactl.files.progress import Progress

if TYPE_CHECKING:
    from sanactl.judging.protocol import Judge
    from sanactl.records.types import ImageRecord

__all__ = ["iter_scale", "scale"]


@checked
def iter_scale(
    checkpoint: CheckpointLike,
    prompts: Prompts | None = None,
    *,
    limit: int | None = None,
    max: int = 64,
    round: int = 8,
    keep: int = 4,
    stop: float = 0.95,
    futile: float = 0.01,
    budget: int | None = None,
    model: str | Judge | None = None,
    judges: Sequence[str] | None = None,
    judge_options: Mapping[str, Any] | None = None,
    calibration: Sequence[PathLike] | None = None,
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
    trust_remote_code: bool = False,
    no_cache: bool = False,
    output: PathLike | None = None,
    sheet: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> Iterator[ImageRecord]:
    """As `sanactl.scale`, one record after the other: those of a prompt when it stops.

    Arguments are checked at the call. Same arguments and errors as `sanactl.scale`.
    """
    from sanactl.errors import UsageError
    from sanactl.files.paths import user_path
    from sanactl.judging.cache import VerdictCache
    from sanactl.judging.calibration import read_calibrations
    from sanactl.judging.shipped import chosen_calibrations
    from sanactl.model.offload import check_offload
    from sanactl.model.processes import open_processes
    from sanactl.model.sampling_settings import sampling_settings, with_fixed_batch
    from sanactl.report.sheet import ContactSheet
    from sanactl.sampling.dataset_files import list_images
    from sanactl.sampling.inputs import instruction_settings, spread
    from sanactl.sampling.open_folder import folder_settings, shared_folder
    from sanactl.sampling.painter import Painter
    from sanactl.sampling.room import check_room_of_search
    from sanactl.sampling.sample_folder import SampleFolder
    from sanactl.sampling.search.policy import Rules
    from sanactl.sampling.search.rounds import Rounds
    from sanactl.sampling.search.run import Judging, Search

    if batch_size < 1 or (limit is not None and limit < 1):
        raise UsageError(f"limit and batch_size have to be at least 1, got {limit} and {batch_size}")
    check_seed(seed)
    rules = Rules(max, round, keep, stop, futile, budget)
    read = [c for path in calibration or () for c in read_calibrations(Path(path))]
    picture = None if sheet is None else ContactSheet(Path(sheet), force=force)
    found = opened(checkpoint, revision, components)
    records = spread(as_prompts(prompts, default="demo"), limit)
    Rounds([""] * len(records), rules)  # whether the budget is enough for them
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
    chosen = chosen_judge(
        model,
        judges,
        judge_options,
        device=device_name(device) if model is None or isinstance(model, str) else None,
        trust_remote_code=trust_remote_code,
    )
    sink = as_progress(progress)
    calibrations = chosen_calibrations(chosen, read, sink.note)
    yield CHECKED
    safe = guarded(records, guard, guard_options, device, as_progress(progress))
    records = safe.passed
    place = Path(output or f"{found.name}-samples")
    check_room_of_search(place, len(records), rules, settings, sink.note)
    planned = with_fixed_batch(found, settings, len(records) * rules.round)
    wanted = folder_settings(found, planned, seed, kind, records, guard=safe.identity)
    named = None if output is None else user_path(output)
    first = open_processes().is_main_process
    with shared_folder(named, f"{found.name}-samples", wanted, settings, force=force) as (folder, settings):
        images = SampleFolder(
            folder, found, settings, records, count=max, seed=seed, dtype=kind, guard=safe.identity
        )
        search = Search(
            Painter(images, device=where, batch_size=batch_size, offload=offload, progress=sink),
            Judging(VerdictCache(Path.cwd(), chosen, ask_again=no_cache, tell=sink.note), calibrations),
            rules,
            progress=sink,
        )
        best = search.run(renew=force)
        for record in best if picture is None else picture.watching(best):
            yield cast("ImageRecord", record)
        if first:
            list_images(folder, search.drawn(), safe.blocked)
            if picture is not None:
                picture.write()


@listed(iter_scale)
def scale() -> None:
    """Draws and judges images in rounds, until more would not help a prompt. A call that was stopped goes on where it was.

    Args:
        checkpoint, prompts, limit: see `sanactl.sample`.
        max: the most images of a prompt.
        round: images of a prompt that a round draws.
        keep: images of each prompt that are returned.
        stop: a prompt has enough if `keep` of its images are right with this probability, above 0 and at most 1.
        futile: a prompt stops if all its other images together are expected to raise the share of right images among
            the kept by less than this.
        budget: images of all prompts together; rounds go where the expected gain per image is largest. None for no limit.
        model, judges, judge_options, trust_remote_code, no_cache: see `sanactl.judge`.
        calibration: see `sanactl.judge`; without one, the probability of yes counts.
        guard, guard_options: see `sanactl.sample`.
        steps, guidance, height, width, flow_shift, negative, instruction, seed: see `sanactl.sample`.
        text_padding, fixed_batch, vae_tiling, compile: see `sanactl.sample`.
        batch_size: images drawn at once. It changes neither the images nor the decisions.
        device: where all models run.
        dtype: of the checkpoint's weights; the judge's is one of `judge_options`.
        offload: see `sanactl.sample`; the judge stays where it is.
        components, revision: see `sanactl.open_checkpoint`.
        output: the folder for the images, as of `sanactl.sample` with `count` = `max`.
        sheet: also draw the returned images into one picture, a .png, .jpg or .webp file.
        force: replace what sanactl drew into the folder before.
        progress: True for a bar of the images.

    Returns:
        the records of the best images, as of `sanactl.judge`, with `round` (that drew it, from 1), `drawn` (images of the
        prompt) and `stopped` ("enough", "futile", "max" or "budget"); prompts in the order in which they stopped.

    Raises:
        UsageError: a setting out of its range, no such judge, or a budget of less than one image a prompt.
        InputError: a bad checkpoint or prompt, or one that the judge cannot take.
        OutputExistsError: the folder holds something else, or images of other settings, and `force` was not given.

    Source: section 2.5; docs/scaling.md has the rule and its sources.
    """
