"""`sanactl judge`: the tournament of section 2.5."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.judging import (
    CalibrationFiles,
    JudgeName,
    JudgeOptions,
    Judges,
    NoCache,
    TrustRemoteCode,
)
from sanactl.cli.frame.options import (
    Device,
    Dtype,
    Force,
    Output,
    RecordsArgument,
    ShardOf,
    Sheet,
    batch_size_option,
)

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def judge(
    records: RecordsArgument = None,
    keep: Annotated[
        Optional[int],
        typer.Option(
            "--keep",
            "-k",
            min=1,
            metavar="INT",
            help="Number of images to pass on for each prompt. Default: 1.",
            show_default=False,
        ),
    ] = None,
    all_images: Annotated[
        bool, typer.Option("--all", help="Pass on all images of each prompt, with their ranks.")
    ] = False,
    model: JudgeName = None,
    judges: Judges = None,
    judge_options: JudgeOptions = None,
    calibration: CalibrationFiles = None,
    batch_size: Annotated[
        int,
        batch_size_option("Images that are computed at once. Jobs with --shard all need the same number."),
    ] = 32,
    shard: ShardOf = None,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: TrustRemoteCode = False,
    no_cache: NoCache = False,
    output: Output = None,
    sheet: Sheet = None,
    force: Force = False,
) -> None:
    """Let a vision-language model pick the best images of each prompt (paper, section 2.5).

    The best 4 of 16 images of each prompt:
    [bold]sanactl sample -n 16 | sanactl judge --keep 4[/bold]
    Another judge:
    [bold]sanactl judge images.jsonl --model oracle[/bold]
    The mean of two judges:
    [bold]sanactl judge images.jsonl --judge builtin:shapes --judge my-judge[/bold]
    The second of four jobs of a cluster:
    [bold]sanactl judge images.jsonl --keep 4 --shard 1/4[/bold]
    A folder in GenEval's layout, as sample writes it:
    [bold]sanactl judge base-samples/[/bold]

    Each image is scored once. The winners' records go to stdout and to
    judge.jsonl. Verdicts are kept in .sanactl/verdicts: a stopped run goes on
    where it was, and no later run asks about the same image and prompt again.
    """
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import is_first_process
    from sanactl.errors import UsageError
    from sanactl.files.paths import user_path
    from sanactl.judging.cache import VerdictCache
    from sanactl.judging.calibration import read_calibrations
    from sanactl.judging.registry import DEFAULT, open_judges
    from sanactl.judging.select import judge_stream
    from sanactl.judging.several import SharedCache, serve_judge
    from sanactl.judging.shard import TakenImages
    from sanactl.judging.shipped import chosen_calibrations
    from sanactl.model.processes import agree, is_one_of_several
    from sanactl.model.sharing import leading, on_each
    from sanactl.records.options import split_options
    from sanactl.records.shards import Ending, ranked, read_shard

    named = judges or [model or DEFAULT]
    given = {"device": device, "dtype": dtype, "trust_remote_code": trust_remote_code or None}
    run = Invocation("judge")
    several = is_one_of_several()

    def check() -> None:
        if keep is not None and all_images:
            raise UsageError("--keep and --all exclude each other")
        if model is not None and judges:
            raise UsageError("--model and --judge exclude each other", hint="give --judge for each judge")
        if several and ":" in (device or ""):
            raise UsageError("--device is for one process; a launcher gives each of several its own")
        named_twice = {name for name in split_options(judge_options or ()) if given.get(name) is not None}
        for name in sorted(named_twice):
            raise UsageError(f"the judge's {name} is given twice", hint="leave out the --judge-option")
        read_shard(shard)
        run.sheet(sheet, force=force)

    def find() -> Any:
        """The first process's inputs and output; the others get only judges."""
        if not is_first_process():
            return None
        calibrations = [c for path in calibration or () for c in read_calibrations(user_path(path))]
        target = run.records_file(output, "judge", force=force, shard=part)
        stream, source = find_records(
            records,
            ("image",),
            what="images to judge",
            hint="sanactl sample | sanactl judge",
            prefer="unjudged",
        )
        run.progress.start(None, f"loading the judge {' and '.join(named)}")
        return calibrations, target, stream, source

    with first_reads_alone():
        agree(check)
        part = read_shard(shard)
        found = on_each(find)
        options = {name: value for name, value in given.items() if value is not None}
        chosen = on_each(lambda: open_judges(named, **options, **split_options(judge_options or ())))
        if found is None:
            serve_judge(chosen)
            return
        calibrations, target, stream, source = found
        with leading():
            if notice := getattr(chosen, "notice", None):
                run.progress.note(notice)
            calibrations = chosen_calibrations(chosen, calibrations, run.progress.note)
            run.uses(source)
            opened = SharedCache if several else VerdictCache
            every = run.counted(stream, "images to judge", source=source)
            taken = None if part is None else TakenImages(part, batch_size)
            kept = None if all_images else keep or 1
            winners = judge_stream(
                every if taken is None else taken.of(every),
                chosen,
                keep=kept,
                batch_size=batch_size,
                cache=opened(Path.cwd(), chosen, ask_again=no_cache, tell=run.progress.note),
                calibrations=calibrations,
                progress=run.progress,
            )
            if part is not None and taken is not None:
                decides = {
                    "judge": [dict(one.identity) for one in getattr(chosen, "judges", None) or [chosen]],
                    "calibrations": repr(calibrations),
                    "keep": kept,
                    "batch_size": batch_size,
                }
                winners = Ending(part, "judge", decides, taken.whole).after(ranked(taken.places, winners))
            run.progress.keeps("the verdicts so far are kept")
            run.emit(run.tee(winners, target, force=force), show=show_images, take_all=True)
    run.finish((target, "image" if part is None else "shard"), judge=chosen.name)
