"""`sanactl importance`: the importance of each block (equation 3)."""

from __future__ import annotations

from pathlib import Path

import typer

from sanactl.cli.frame.options import (
    BatchSize,
    CheckpointArgument,
    ComponentsFrom,
    Device,
    Dtype,
    Force,
    Output,
    Plot,
    Revision,
    Seed,
)
from sanactl.cli.frame.sampling_options import (
    GuidanceScale,
    Instruction,
    Negative,
    Prompt,
    PromptsFile,
    Steps,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def importance(
    checkpoint: CheckpointArgument = None,
    prompts: PromptsFile = None,
    prompt: Prompt = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    negative: Negative = None,
    instruction: Instruction = None,
    plot: Plot = None,
    batch_size: BatchSize = 25,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Measure how much each block changes its input, over calibration prompts and timesteps (paper, equation 3).

    The built-in 100 calibration prompts, and a chart:
    [bold]sanactl importance base-d60.st --plot importance.svg[/bold]
    Calibration prompts of your own:
    [bold]sanactl importance base-d60.st --prompts calib.txt[/bold]

    One block record for each block goes to stdout and to NAME.importance.jsonl.
    """

    from sanactl.cli.frame.inputs import choose_prompts, prompts_wanted, typed_prompts
    from sanactl.cli.frame.outputs import check_file
    from sanactl.cli.frame.render import show_blocks
    from sanactl.cli.frame.run import Invocation, given_key
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.files.atomic import check_target
    from sanactl.model.conditioning import pick_device, sampling_settings
    from sanactl.model.loading import dtype_warning, resolve_dtype
    from sanactl.model.processes import agree
    from sanactl.sampling.importance import block_importance
    from sanactl.sampling.inputs import instruction_settings

    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise UsageError(f"{plot}: a chart is written as .png or .svg")
    run = Invocation("importance", seed=seed)
    checkpoint, typed = typed_prompts(checkpoint, prompt, prompts)
    also = () if typed else prompts_wanted(prompts, checkpoint)
    found, piped = find_checkpoint(
        checkpoint, revision=revision, also=also, native=True, components=components
    )
    target = output or Path(f"{found.name}.importance.jsonl")
    agree(lambda: check_file(target, "records", force=True))  # one from the same run may be there
    records, source = (typed, "--prompt") if typed else choose_prompts(prompts, piped, default="calib")
    settings = sampling_settings(
        found,
        steps=steps,
        guidance_scale=guidance,
        negative_prompt=negative,
        **instruction_settings(instruction),
    )
    where = pick_device(device)
    kind = resolve_dtype(dtype, where)
    if warning := dtype_warning(found, kind):
        note(f"warning: {warning}")
    texts = [r["prompt"] for r in records]
    run.uses(found)
    run.uses(source)
    run.key(
        digest=found.digest,
        **given_key(found),
        prompts=texts,
        settings=settings.identity(),
        seed=seed,
        dtype=str(kind),
    )

    def outputs() -> tuple[bool, Path | None]:
        """Whether the records are there already, and the chart that is to be drawn."""
        there = run.made_before(target, force=force)
        if plot is None or (there and plot.exists()):  # drawn by that run
            return there, None
        check_target(plot, force)
        return there, plot

    there, plot = agree(outputs)
    if there:
        blocks = run.again(target)
    else:
        measured = block_importance(
            found,
            texts,
            settings,
            device=where,
            dtype=kind,
            batch_size=batch_size,
            seed=seed,
            progress=run.progress,
        )
        blocks = run.tee(measured, target, force=force)
    kept = list(blocks)
    run.emit(kept, show=show_blocks, take_all=True)
    try:
        if plot is not None and is_first_process():
            from sanactl.report.plots import plot_importance

            plot_importance(kept, plot, force=force)
    finally:
        # What was measured is in the journal whatever becomes of the chart; `finish` says if stdout failed.
        run.finish((target, "block"), of=found.digest)
