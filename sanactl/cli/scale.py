"""`sanactl scale`: adaptive best-of-N."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.guarding import GuardName, GuardOptions
from sanactl.cli.frame.judging import (
    CalibrationFiles,
    JudgeName,
    JudgeOptions,
    Judges,
    NoCache,
    TrustRemoteCode,
    named_judge,
    opened_judge,
)
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
def scale(
    checkpoint: CheckpointArgument = None,
    prompts: PromptsFile = None,
    prompt: Prompt = None,
    limit: Annotated[
        Optional[int],
        typer.Option(
            min=1,
            metavar="INT",
            help="Number of prompts to take, evenly spread over the list. Default: all.",
            show_default=False,
        ),
    ] = None,
    most: Annotated[
        int, typer.Option("--max", "-n", min=1, metavar="INT", help="The most images of each prompt.")
    ] = 64,
    per_round: Annotated[
        int, typer.Option("--round", min=1, metavar="INT", help="Images of a prompt that a round draws.")
    ] = 8,
    keep: Annotated[
        int,
        typer.Option(
            "--keep", "-k", min=1, metavar="INT", help="Number of images to pass on for each prompt."
        ),
    ] = 4,
    stop: Annotated[
        float,
        typer.Option(
            "--stop",
            metavar="FLOAT",
            help="A prompt stops when as many images as are kept are right with this probability.",
        ),
    ] = 0.95,
    futile: Annotated[
        float,
        typer.Option(
            "--futile",
            metavar="FLOAT",
            help="A prompt stops when all its other images together are expected to raise the share of right images "
            "among the kept by less than this.",
        ),
    ] = 0.01,
    budget: Annotated[
        Optional[int],
        typer.Option(
            "--budget",
            min=1,
            metavar="INT",
            help="Images of all prompts together: rounds go where the expected gain per image is largest. Default: no limit.",
            show_default=False,
        ),
    ] = None,
    model: JudgeName = None,
    judges: Judges = None,
    judge_options: JudgeOptions = None,
    calibration: CalibrationFiles = None,
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
    trust_remote_code: TrustRemoteCode = False,
    no_cache: NoCache = False,
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Draw and judge images in rounds, until more would not help (paper, section 2.5).

    The best 4 of at most 64 images of each prompt:
    [bold]sanactl scale base.st --prompts geneval.jsonl --max 64 --keep 4[/bold]
    The best image of each prompt, from 1,000 images in all:
    [bold]sanactl scale -p geneval.jsonl --max 16 --round 2 -k 1 --budget 1000[/bold]

    The second of four jobs of a cluster, which take the tasks in turn
    (prompts without a tag are one task, so one job has all of them):
    [bold]sanactl scale base.st -p geneval.jsonl -o images --shard 1/4[/bold]

    Images are those of sample -n MAX, in the same folder. The winners' records go
    to stdout and to scale.jsonl, with why each prompt stopped: enough, futile,
    max or budget. A stopped run goes on where it was when the same command is
    given again.
    """
    from dataclasses import asdict

    from sanactl.cli.frame.guarding import guarded
    from sanactl.cli.frame.inputs import choose_prompts, prompts_wanted, typed_prompts
    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation, given_key
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.errors import UsageError
    from sanactl.files.paths import user_path
    from sanactl.judging.cache import VerdictCache
    from sanactl.judging.calibration import read_calibrations
    from sanactl.judging.shipped import chosen_calibrations
    from sanactl.model.conditioning import pick_device
    from sanactl.model.hardware import hardware_facts
    from sanactl.model.loading import dtype_warning, resolve_dtype
    from sanactl.model.offload import check_offload
    from sanactl.model.sampling_settings import sampling_settings, with_fixed_batch
    from sanactl.records.shards import Ending, Whole, ranked, read_shard, shard_stem
    from sanactl.sampling.dataset_files import list_images, list_part
    from sanactl.sampling.inputs import instruction_settings, spread
    from sanactl.sampling.open_folder import folder_settings, shared_folder
    from sanactl.sampling.painter import Painter
    from sanactl.sampling.room import check_room_of_search
    from sanactl.sampling.sample_folder import SampleFolder
    from sanactl.sampling.search.policy import Rules
    from sanactl.sampling.search.rounds import Rounds
    from sanactl.sampling.search.run import Judging, Search
    from sanactl.sampling.search.shard import tasks_of

    rules = Rules(most, per_round, keep, stop, futile, budget)
    named = named_judge(model, judges)
    calibrations = [c for path in calibration or () for c in read_calibrations(user_path(path))]
    part = read_shard(shard)
    if part is not None and force:
        raise UsageError(
            "--force and --shard exclude each other, since the jobs share a folder",
            hint="remove the folder before the first job starts",
        )
    if part is not None and budget is not None:
        raise UsageError("--budget is for one job: all prompts together share it", hint="leave out --shard")
    run = Invocation("scale", seed=seed)
    run.sheet(sheet, force=force)
    if output is not None:
        check_folder(output, parents=True)
    stem = shard_stem("scale", part)
    target = run.records_file(None, "scale", force=force, shard=part)
    checkpoint, typed = typed_prompts(checkpoint, prompt, prompts)
    also = () if typed else prompts_wanted(prompts, checkpoint)
    found, piped = find_checkpoint(
        checkpoint, revision=revision, also=also, native=True, components=components
    )
    records, source = (typed, "--prompt") if typed else choose_prompts(prompts, piped, default="demo")
    records = spread(records, limit)
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
    where = pick_device(device)
    check_offload(offload, where, compile=compile)
    kind = resolve_dtype(dtype, where)
    if warning := dtype_warning(found, kind):
        note(f"warning: {warning}")
    checked = guarded(records, guard, guard_options, run.progress, device=device)
    records = checked.passed
    check_room_of_search(output or Path(f"{found.name}-samples"), len(records), rules, settings, note)
    planned = with_fixed_batch(found, settings, len(records) * rules.round)
    wanted = folder_settings(found, planned, seed, kind, records, guard=checked.identity)
    run.uses(found)
    run.uses(source)
    chosen = opened_judge(
        named, judge_options, run.progress, device=device, trust_remote_code=trust_remote_code or None
    )
    calibrations = chosen_calibrations(chosen, calibrations, run.progress.note)
    decides = {
        "digest": found.digest,
        **given_key(found),
        "prompts": records,
        "settings": settings.identity(),
        "rules": asdict(rules),
        "judge": [dict(one.identity) for one in getattr(chosen, "judges", None) or [chosen]],
        "calibrations": repr(calibrations),
        "seed": seed,
        "dtype": str(kind),
        **({} if checked.identity is None else {"guard": checked.identity}),
    }
    run.key(**decides, folder=str(output), **({} if part is None else {"shard": str(part)}))
    made = None if force or no_cache else run.made_under(stem)
    if made is not None:
        run.emit(run.again(made), show=show_images, take_all=True)
        run.finish(
            (made, "image" if part is None else "shard"), checkpoint=str(found.path), judge=chosen.name
        )
        return
    stem = f"{found.name}-samples"
    with shared_folder(output, stem, wanted, settings, force=force, shared=part is not None) as (
        folder,
        settings,
    ):
        places = tasks_of(records, part)
        if part is not None and (tasks := len({str(r.get("tag") or "") for r in records})) < part.of:
            note(
                f"warning: {tasks:,} task{'s' * (tasks != 1)} for {part.of:,} jobs; a job takes whole tasks, and prompts"
                " without a tag are one task"
            )
        cache = VerdictCache(Path.cwd(), chosen, ask_again=no_cache, tell=run.progress.note)
        images = SampleFolder(
            folder,
            found,
            settings,
            records,
            count=rules.most,
            seed=seed,
            dtype=kind,
            guard=checked.identity,
        )
        search = Search(
            Painter(images, device=where, batch_size=batch_size, offload=offload, progress=run.progress),
            Judging(cache, calibrations),
            rules,
            places=places,
            progress=run.progress,
        )

        def listed() -> Iterator[Record]:
            best = search.run(renew=force)
            if part is None:
                yield from best
                if is_first_process():
                    list_images(folder, search.drawn(), checked.blocked)
            elif not is_first_process():
                yield from best
            else:
                whole = Whole(len(records), len(places))
                yield from Ending(part, "scale", decides, lambda: whole).after(ranked(search.order, best))
                drawn = Ending(part, "scale-images", decides, lambda: whole).after(search.drawn_at())
                list_part(folder, list(drawn), checked.blocked, part)

        run.emit(run.tee(listed(), target, force=force), show=show_images, take_all=True)
    run.finish(
        (target, "image" if part is None else "shard"),
        checkpoint=str(found.path),
        judge=chosen.name,
        **hardware_facts(where),
    )
