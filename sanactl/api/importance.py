"""`sanactl.importance`: equation 3."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from sanactl.api.inputs import (
    CheckpointLike,
    DeviceLike,
    DtypeLike,
    PathLike,
    Prompts,
    as_progress,
    as_prompts,
    check_seed,
    opened,
)
from sanactl.api.models import placed
from sanactl.files.progress import Progress

if TYPE_CHECKING:
    from sanactl.records.types import BlockRecord

__all__ = ["importance"]


def importance(
    checkpoint: CheckpointLike,
    prompts: Prompts | None = None,
    *,
    steps: int | None = None,
    guidance: float | None = None,
    negative: str | None = None,
    instruction: PathLike | None = None,
    plot: PathLike | None = None,
    batch_size: int = 25,
    seed: int = 0,
    device: DeviceLike | None = None,
    dtype: DtypeLike | None = None,
    components: PathLike | None = None,
    revision: str | None = None,
    output: PathLike | None = None,
    force: bool = False,
    progress: bool | Progress = False,
) -> list[BlockRecord]:
    """Measures how much each block changes its input, over calibration prompts and the steps of the sampler.

    BI_i = 1 - E[cos(X_i,t, X_i+1,t)], the cosine taken for each token and averaged over tokens, prompts and steps.

    Args:
        checkpoint: a path, a Hub id, or an opened checkpoint.
        prompts: the calibration prompts: texts or records in a list, a file of them, or "shapes" for the built-in
            evaluation prompts; by default the built-in world's 100 calibration prompts. The paper uses 100.
        steps, guidance, negative, instruction: of the sampling, see `sanactl.sample`.
        plot: also draw a chart, a .png or .svg file.
        batch_size: prompts at once.
        seed: of the noise, 0 to 2^53 - 1.
        device: where the model runs, a name or a `torch.device`; by default the best there is.
        dtype: of the weights, "bf16", "fp16", "fp32" or a `torch.dtype`; by default bf16 on a GPU, fp32 on a CPU.
        components, revision: see `sanactl.open_checkpoint`.
        output: also write the records to this .jsonl file.
        force: replace `output` and `plot` where they are there.
        progress: True for a bar of the prompts.

    Returns:
        a record for each block, from the first: `importance` (0 to 2, no unit), `stderr` over prompts, and
        `by_timestep`, the importance at each of `timesteps`.

    Raises:
        UsageError: a setting out of its range, no such device or dtype.
        InputError: a bad checkpoint or prompt; a component that cannot be loaded.
        OutputExistsError: `output` or `plot` is there, and `force` was not given.

    Source: section 2.4, equation 3 (Block Influence of ShortGPT and Minitron, over the timesteps of diffusion).
    """
    from sanactl.files.atomic import check_target
    from sanactl.model.sampling_settings import sampling_settings
    from sanactl.records.records import write_records
    from sanactl.sampling.importance import block_importance
    from sanactl.sampling.inputs import instruction_settings

    check_seed(seed)
    for path in (output, plot):
        if path is not None:
            check_target(Path(path), force)
    found = opened(checkpoint, revision, components)
    texts = [record["prompt"] for record in as_prompts(prompts, default="calib")]
    settings = sampling_settings(
        found,
        steps=steps,
        guidance_scale=guidance,
        negative_prompt=negative,
        **instruction_settings(instruction),
    )
    where, kind = placed(found, device, dtype)
    blocks = list(
        block_importance(
            found,
            texts,
            settings,
            device=where,
            dtype=kind,
            batch_size=batch_size,
            seed=seed,
            progress=as_progress(progress),
        )
    )
    if output is not None:
        write_records(blocks, Path(output), force=force)
    if plot is not None:
        from sanactl.report.plots import plot_importance

        plot_importance(blocks, Path(plot), force=force)
    return cast("list[BlockRecord]", blocks)
