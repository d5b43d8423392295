"""`sanactl export`: a dataset of image records, in a format that other tools read."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import OUTPUT, Force, Output, RecordsArgument, choices
from sanactl.exporting.formats.registry import EXPORTS
from sanactl.exporting.settings import SHARD_SIZE

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def export(
    records: RecordsArgument = None,
    to: Annotated[
        str, typer.Option("--to", help="Format of the dataset.", **choices(*EXPORTS))
    ] = "imagefolder",
    shard_size: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="Largest size of a shard, such as 1GB, or its number of images, such as 1000. A stopped run loses at "
            "most one shard.",
        ),
    ] = SHARD_SIZE,
    text_field: Annotated[
        Optional[list[str]],
        typer.Option(
            "--text-field",
            metavar="FIELD",
            help="Field of the records that becomes the text. Give the option again for each further caption. "
            "Default: prompt.",
            show_default=False,
        ),
    ] = None,
    label_field: Annotated[
        Optional[str],
        typer.Option(
            metavar="FIELD",
            help="Field with yes or no, true or false, for nvila-json. Default: correct.",
            show_default=False,
        ),
    ] = None,
    max_bad: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="INT",
            help="Number of records to leave out before the run stops, because an image cannot be read or a field is "
            "missing; each is named.",
        ),
    ] = 0,
    link: Annotated[
        bool,
        typer.Option(
            "--link/--copy",
            help="With imagefolder or nvila-json, make hard links to the images instead of copies.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """Write images with their captions and fields as a dataset, with a dataset card.

    [bold]sanactl filter geneval.jsonl --correct | sanactl export -o sft[/bold]
    [bold]sanactl export filter.jsonl --to parquet --shard-size 500MB[/bold]
    [bold]sanactl export geneval.jsonl --to nvila-json -o judge-data[/bold]
    Then train on it:
    [bold]sanactl finetune base.st --data sft[/bold]

    The output is a folder of shards with a README.md. Images are copied byte for
    byte. The records go on to stdout. A stopped run goes on where it was when the
    same command is given again.
    """
    from pathlib import Path

    from sanactl.cli.frame.outputs import check_folder
    from sanactl.cli.frame.render import show_dataset
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.cli.frame.terminal import is_first_process, note
    from sanactl.exporting.formats.registry import open_format
    from sanactl.exporting.run import Export, target_name
    from sanactl.exporting.settings import export_settings
    from sanactl.files.human import human_bytes
    from sanactl.report.text import counted

    if not is_first_process():
        return
    settings = export_settings(
        to,
        shard_size=shard_size,
        text_field=text_field,
        label_field=label_field,
        max_bad=max_bad,
        link=link,
    )
    open_format(to).check(settings)  # before it waits for records
    run = Invocation("export")
    if output is not None:
        check_folder(output)
    stream, source = find_records(
        records,
        ("image",),
        what="images to export",
        hint="sanactl sample | sanactl export",
        checked=False,
    )
    run.uses(source)
    named = None if source == "stdin" else source
    target = output or Path(target_name(named, to))
    check_folder(target)
    with Export(target, settings, force=force) as dataset:
        run.progress.keeps("the shards so far are kept")
        made = dataset.write(
            run.counted(stream, "images to export", source=source),
            source=named,
            journal=run.journal,
            progress=run.progress,
        )
        run.key(dataset=made["key"])
        run.emit(dataset.records(), show=lambda _: show_dataset(made), take_all=True)
    left_out = f"; {counted(made['skipped'], 'record')} left out" if made["skipped"] else ""
    size = f"{counted(made['images'], 'image')}, {human_bytes(made['bytes'])}, {counted(made['shards'], 'shard')}"
    note(
        f"wrote {target} ({size}){left_out}"
        if made["made"]
        else f"{target} is there already, from the same records and settings"
    )
    run.finish((target, "dataset"), images=made["images"])
