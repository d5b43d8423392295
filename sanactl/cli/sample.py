"""`sanactl sample`: images for prompts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.guarding import GuardName, GuardOptions
from sanactl.cli.frame.options import (
    BatchSize,
    CheckpointArgument,
    ComponentsFrom,
    Device,
    Dtype,
    Force,
    Output,
    Revision,
    Seed,
    ShardOf,
    Sheet,
)
from sanactl.cli.frame.sampling_options import (
    Compile,
    FixedBatch,
    FlowShift,
    GuidanceScale,
    Height,
    Instruction,
    Negative,
    Offload,
    Prompt,
    PromptsFile,
    Steps,
    TextPadding,
    VaeTiling,
    Width,
)
from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def sample(
    checkpoint: CheckpointArgument = None,
    prompts: PromptsFile = None,
    prompt: Prompt = None,
    count: Annotated[
        Optional[int],
        typer.Option(
            "-n",
            "--count",
            min=1,
            metavar="INT",
            help="Number of images of each prompt. Default: 4.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of prompts to take, evenly spread over the list. Default: all.",
            show_default=False,
        ),
    ] = None,
    redraw: Annotated[
        bool,
        typer.Option(
            "--redraw",
            help="Draw the images of records again, with the same seeds: those of the pipe, of the file or folder "
            "that --prompts names, or the newest winners in this folder's journal.",
        ),
    ] = False,
    guard: GuardName = None,
    guard_options: GuardOptions = None,
    steps: Steps = None,
    guidance: GuidanceScale = None,
    height: Height = None,
    width: Width = None,
    flow_shift: FlowShift = None,
    negative: Negative = None,
    instruction: Instruction = None,
    text_padding: TextPadding = "trim",
    fixed_batch: FixedBatch = None,
    vae_tiling: VaeTiling = "auto",
    compile: Compile = False,
    batch_size: BatchSize = 128,
    shard: ShardOf = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = "none",
    components: ComponentsFrom = None,
    revision: Revision = None,
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Draw images for prompts.

    [bold]sanactl sample --prompt "a red circle"[/bold]
    [bold]sanactl sample base.st --prompts geneval.jsonl -n 32 -o images[/bold]
    [bold]sanactl sample -n 16 | sanactl judge --keep 4[/bold]
    The best 4 of 16 drafts with 6 steps, drawn again at full length:
    [bold]sanactl sample -n 16 --steps 6 | sanactl judge -k 4 | sanactl sample --redraw[/bold]
    The second of four jobs of a cluster, which share a folder:
    [bold]sanactl sample base.st -p prompts.txt -o images --shard 1/4[/bold]
    Only prompts that a safety model lets pass:
    [bold]sanactl sample -p prompts.txt --guard google/shieldgemma-2b[/bold]

    Images go to NAME-samples/ in GenEval's layout. One image record for each goes
    to stdout. A stopped run goes on where it was when the same command is given
    again.
    """
    from functools import partial

    from sanactl.cli.frame.guarding import guarded
    from sanactl.cli.frame.inputs import choose_prompts, draft_records, prompts_wanted, typed_prompts
    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation, given_key
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.model.conditioning import pick_device
    from sanactl.model.hardware import hardware_facts
    from sanactl.model.loading import dtype_warning, resolve_dtype
    from sanactl.model.offload import check_offload
    from sanactl.model.sampling_settings import sampling_settings, with_fixed_batch
    from sanactl.records.shards import Ending, Whole, read_shard
    from sanactl.sampling.dataset_files import list_images, list_part, listed_number
    from sanactl.sampling.inputs import instruction_settings, spread
    from sanactl.sampling.open_folder import folder_settings, shared_folder
    from sanactl.sampling.redraw import RedrawFolder, read_drafts
    from sanactl.sampling.room import check_room
    from sanactl.sampling.sample import sample_images
    from sanactl.sampling.sample_folder import SampleFolder

    if redraw and (count is not None or limit is not None or prompt):
        raise UsageError(
            "--redraw takes its prompts and the number of images from records",
            hint="leave out -n, --limit and --prompt",
        )
    if redraw and guard is not None:
        raise UsageError(
            "--redraw draws prompts that were drawn before", hint="give --guard to the first sample"
        )
    part = read_shard(shard)
    if part is not None and force:
        raise UsageError(
            "--force and --shard exclude each other, since the jobs share a folder",
            hint="remove the folder before the first job starts",
        )
    run = Invocation("sample", seed=seed)
    run.sheet(sheet, force=force)
    if output is not None:
        check_folder(output, parents=True)
    typed: list[Record] = []
    if not redraw:
        checkpoint, typed = typed_prompts(checkpoint, prompt, prompts)
    also = () if typed else prompts_wanted(prompts, checkpoint, images=redraw)
    found, piped = find_checkpoint(
        checkpoint, revision=revision, also=also, native=True, components=components
    )
    if redraw:
        pictures, source = draft_records(prompts, piped)
    else:
        records, source = (typed, "--prompt") if typed else choose_prompts(prompts, piped, default="demo")
        records = spread(records, limit)
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
    drafts = read_drafts(run.counted(pictures, "images to redraw"), settings, seed) if redraw else None
    records = drafts.prompts if drafts is not None else records
    where = pick_device(device)
    check_offload(offload, where, compile=compile)
    kind = resolve_dtype(dtype, where)
    if warning := dtype_warning(found, kind):
        note(f"warning: {warning}")
    checked = guarded(records, guard, guard_options, run.progress, device=device)
    records = checked.passed
    planned = with_fixed_batch(
        found, settings, len(records) * (count or 4) if drafts is None else len(drafts.images)
    )
    if drafts is None:
        check_room(output or Path(f"{found.name}-samples"), len(records) * (count or 4), settings)
    wanted = folder_settings(found, planned, seed, kind, records, guard=checked.identity)
    run.uses(found)
    run.uses(source)
    decides = {
        "digest": found.digest,
        **given_key(found),
        "prompts": wanted["prompts"],
        "count": (count or 4) if drafts is None else drafts.digest(),
        "settings": settings.identity(),
        "seed": seed,
        "dtype": str(kind),
        **({} if checked.identity is None else {"guard": checked.identity}),
    }
    run.key(**decides, **({} if part is None else {"shard": str(part)}))
    emitted: list[Record] = []

    def remembered(stream: Iterator[Record]) -> Iterator[Record]:
        for record in stream:
            emitted.append(record)
            yield record

    stem = f"{found.name}-samples"
    with shared_folder(output, stem, wanted, settings, force=force, shared=part is not None) as (
        folder,
        settings,
    ):
        if (kept := settings.fixed_batch or 0) < (planned.fixed_batch or 0):
            note(f"{folder} keeps its fixed batch of {kept}; a new folder would take {planned.fixed_batch}")
        before = 0 if part is not None or force else listed_number(folder)
        samples = (
            SampleFolder(
                folder,
                found,
                settings,
                records,
                count=count or 4,
                seed=seed,
                dtype=kind,
                guard=checked.identity,
            )
            if drafts is None
            else RedrawFolder(folder, found, settings, drafts, seed=seed, dtype=kind)
        )
        draw = partial(
            sample_images,
            samples,
            device=where,
            batch_size=batch_size,
            offload=offload,
            renew=force,
            progress=run.progress,
        )
        if part is None:
            images = draw()
        else:
            numbers = [n for n in range(len(samples)) if part.takes(samples.place(n)[0])]
            places = [samples.place(n)[0] for n in numbers]
            whole = Whole(len(records), len(set(places)))
            placed = zip(places, draw(numbers=numbers), strict=False)
            ending = Ending(part, "sample", decides, lambda: whole)
            # The other processes have no records.
            images = ending.after(placed) if is_first_process() else (record for _, record in placed)
        run.emit(remembered(images), show=show_images, take_all=True)
    if emitted:
        if (more := before - len(emitted)) > 0:
            note(f"images.jsonl lists this run's {len(emitted):,} images; {more:,} others stay in {folder}")
        lists = (
            partial(list_images, folder, emitted, checked.blocked)
            if part is None
            else partial(list_part, folder, emitted, checked.blocked, part)
        )
        run.finish(
            (lists(), "image" if part is None else "shard"),
            checkpoint=str(found.path),
            **hardware_facts(where),
        )
        if part is not None:
            note(
                f"{len(set(places)):,} of {len(records):,} prompts are this job's and are drawn; when all {part.of} jobs are done: sanactl merge {folder}"
            )
