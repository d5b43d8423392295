"""`sanactl judge`: the tournament of section 2.5."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import BatchSize, Device, Dtype, Force, Output, RecordsArgument, Sheet
from sanactl.judging.registry import DEFAULT, JUDGES, SCHEMES

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
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model",
            "-m",
            metavar="JUDGE",
            help=f"The judge: {DEFAULT}, oracle (the detector of eval geneval), the folder or Hub id of a "
            "vision-language model, or the address of a server with the name of its model "
            f"(http://localhost:8000/v1#MODEL). BACKEND:NAME also names the backend ({', '.join(JUDGES)}). Default: {DEFAULT}.",
            show_default=False,
            # The built-in one has its whole name, and a server's is an address.
            autocompletion=lambda: [
                DEFAULT,
                *(name for name in JUDGES if name not in ("builtin", *SCHEMES.values())),
            ],
        ),
    ] = None,
    judges: Annotated[
        Optional[list[str]],
        typer.Option(
            "--judge",
            metavar="JUDGE",
            help="A judge, as --model names one. Give the option again for each further judge: the mean of their "
            "probabilities counts. Default: the judge of --model.",
            show_default=False,
        ),
    ] = None,
    judge_options: Annotated[
        Optional[list[str]],
        typer.Option(
            "--judge-option",
            metavar="KEY=VALUE",
            help="An option of the judge's backend. Give the option again for each further one. With several judges "
            "it is for all that have it, and 2.KEY=VALUE for the second alone. Default: none.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Optional[list[Path]],
        typer.Option(
            "--calibration",
            metavar="FILE",
            help="Calibration of the judge, as eval judge writes it; one file can hold those of several judges. Give "
            "the option again for each further file. Default: none.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSize = 32,
    device: Device = None,
    dtype: Dtype = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
    ] = False,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Ask again about images whose verdicts are known from earlier runs. The new verdicts take their place.",
        ),
    ] = False,
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
    A folder in GenEval's layout, as sample writes it:
    [bold]sanactl judge base-samples/[/bold]

    Each image is scored once. The winners' records go to stdout and to
    judge.jsonl. Verdicts are kept in .sanactl/verdicts: a stopped run goes on
    where it was, and no later run asks about the same image and prompt again.
    """
    from sanactl.cli.frame.render import show_images
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records, first_reads_alone, is_first_process
    from sanactl.errors import UsageError
    from sanactl.files.paths import user_path
    from sanactl.judging.cache import VerdictCache
    from sanactl.judging.calibration import calibrations_of, read_calibrations
    from sanactl.judging.options import split_options
    from sanactl.judging.registry import DEFAULT, open_judges
    from sanactl.judging.select import judge_stream
    from sanactl.judging.several import SharedCache, leading, on_each, serve
    from sanactl.model.processes import agree, is_one_of_several, one_falls_all_fall

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
        run.sheet(sheet, force=force)

    def find() -> Any:
        """The first process's inputs and output; the others get only judges."""
        if not is_first_process():
            return None
        calibrations = [c for path in calibration or () for c in read_calibrations(user_path(path))]
        target = run.records_file(output, "judge", force=force)
        stream, source = find_records(
            records,
            ("image",),
            what="images to judge",
            hint="sanactl sample | sanactl judge",
            prefer="unjudged",
        )
        run.progress.start(None, f"loading the judge {' and '.join(named)}")
        return calibrations, target, stream, source

    with first_reads_alone(), one_falls_all_fall():
        agree(check)
        found = on_each(find)
        options = {name: value for name, value in given.items() if value is not None}
        chosen = on_each(lambda: open_judges(named, **options, **split_options(judge_options or ())))
        if found is None:
            serve(chosen)
            return
        calibrations, target, stream, source = found
        with leading():
            if notice := getattr(chosen, "notice", None):
                run.progress.note(notice)
            if calibrations:
                calibrations = calibrations_of(chosen, calibrations)
            run.uses(source)
            opened = SharedCache if several else VerdictCache
            winners = judge_stream(
                run.counted(stream, "images to judge"),
                chosen,
                keep=None if all_images else keep or 1,
                batch_size=batch_size,
                cache=opened(Path.cwd(), chosen, ask_again=no_cache, tell=run.progress.note),
                calibrations=calibrations,
                progress=run.progress,
            )
            try:
                run.emit(run.tee(winners, target, force=force), show=show_images, take_all=True)
            except KeyboardInterrupt:
                run.progress.note(
                    "stopped; the verdicts so far are kept, and the same command goes on from there"
                )
                raise
    run.finish((target, "image"), judge=chosen.name)
