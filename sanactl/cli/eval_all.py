"""`sanactl eval all`: every metric of the paper's table 1 that can be run, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from sanactl.cli.frame.options import OUTPUT, Device, Force, Output, RecordsArgument
from sanactl.records.records import Record

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


def _text(help: str, metavar: str = "TEXT") -> Any:
    return typer.Option(metavar=metavar, help=help, show_default=False)


@app.command(name="all", short_help="All that can be measured, as the paper's table 1.")
def every(
    records: RecordsArgument = None,
    detector: Annotated[
        Optional[str],
        _text("Detector of geneval: shapes, or mask2former: and a folder or Hub id. Default: shapes."),
    ] = None,
    colors: Annotated[
        Optional[str],
        _text("CLIP that tells colours for mask2former; off scores no colours. Default: that of --clip."),
    ] = None,
    clip: Annotated[
        Optional[str], _text("CLIP of clip, a folder or Hub id. Default: openai/clip-vit-large-patch14.")
    ] = None,
    reference: Annotated[
        Optional[str],
        _text("Images that fid compares with: a folder, records or statistics (.npz). Default: no fid."),
    ] = None,
    weights: Annotated[
        Optional[str], _text("File of InceptionV3's weights for fid. Default: the one in torch.hub's cache.")
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="Allow fid of fewer than 2,048 images.")] = False,
    questions: Annotated[
        Optional[str], _text("DPG-Bench's table of questions, dpg_bench.csv. Default: no dpg.")
    ] = None,
    vqa: Annotated[
        Optional[str], _text("What answers the questions of dpg. Default: as of eval dpg.")
    ] = None,
    table: Annotated[
        Optional[Path],
        typer.Option(
            metavar="FILE",
            help="Also write the table as Markdown. Default: it is only shown.",
            show_default=False,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    device: Device = None,
    output: Output = None,
    force: Force = False,
) -> None:
    """Score images by all metrics of the paper's table 1 that can be run, and show the table.

    [bold]sanactl eval all base-samples/[/bold]
    Only the table, of scores that are there:
    [bold]sanactl eval all scores.jsonl --table table1.md[/bold]

    It runs geneval, clip, fid and dpg on the images of their prompts, with the
    models that are on this machine; a line says why one is left out. Score
    records that come in, such as those of eval speed, stand in the table, too.
    """
    from sanactl.cli.frame.render_table_one import show_table_one
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import is_first_process
    from sanactl.files.atomic import atomic_path, check_target
    from sanactl.model.processes import is_one_of_several
    from sanactl.records.partial import Partial
    from sanactl.scoring.every import Wanted, evaluate_all
    from sanactl.scoring.table_one import as_markdown, table_one
    from sanactl.version import __version__

    if not is_first_process():
        return
    run = Invocation("eval all")
    if is_one_of_several():
        run.progress.note("eval all needs one process; the others have nothing to do")
    target = run.records_file(output, "all", force=force)
    if table is not None:
        check_target(table, force)
    with first_reads_alone():
        stream, source = find_records(
            records, ("image", "score"), what="images to score", hint="sanactl sample | sanactl eval all"
        )
        run.uses(source)
        held = list(run.counted(stream, "image or score records", source=source))
    options: dict[str, dict[str, Any]] = {
        "geneval": {"detector": detector, "colors": colors or (clip if detector else None), "device": device},
        "clip": {"model": clip, "device": device},
        "fid": {"reference": reference, "weights": weights, "small": small or None, "device": device},
        "dpg": {"questions": questions, "vqa": vqa, "device": device},
    }
    given = {name: {k: v for k, v in some.items() if v is not None} for name, some in options.items()}
    partials: list[Partial] = []

    def kept(name: str, identity: Any) -> Partial:
        known = {"version": __version__, "metric": name, **identity}
        partials.append(Partial(target.parent, "eval-all", known, tell=run.progress.note))
        return partials[-1]

    scored: list[Record] = []

    def remembered() -> Any:
        for record in evaluate_all(held, Wanted(given, kept), progress=run.progress):
            if record["kind"] == "score":
                scored.append(record)
            yield record

    run.progress.keeps("the results so far are kept")
    try:
        run.emit(run.tee(remembered(), target, force=force), show=lambda shown: None, take_all=True)
        run.progress.keeps(None)
        for partial in partials:  # not before all is written: a stopped run takes them over
            partial.done()
    finally:
        for partial in partials:
            partial.close()
    found = table_one(scored)
    show_table_one(found)
    if table is not None:
        with atomic_path(table, force=force) as temporary:
            temporary.write_text(as_markdown(found), encoding="utf-8")
        run.progress.note(f"wrote {table}")
    run.finish((target, "score"))
