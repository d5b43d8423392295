"""`sanactl merge`: the outputs of all shards as one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sanactl.cli.frame.options import Force, Output

if TYPE_CHECKING:
    from sanactl.records.merge import Part

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def merge(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES",
            help="What commands with --shard wrote: files of records (also one file of several, joined by cat, or - for "
            "stdin), the folder of samples that they share, or the folder or folders of encode. Default: none; it is needed.",
            show_default=False,
        ),
    ],
    output: Output = None,
    force: Force = False,
) -> None:
    """Join the outputs of --shard 0/N to --shard N-1/N, if they are complete.

    [bold]sanactl judge images.jsonl --shard 0/2 -o a.jsonl[/bold]
    [bold]sanactl judge images.jsonl --shard 1/2 -o b.jsonl[/bold]
    [bold]sanactl merge a.jsonl b.jsonl -o judge.jsonl[/bold]
    Images of several jobs in one folder; the list goes to images/images.jsonl:
    [bold]sanactl merge images/[/bold]

    The records are those of one run without --shard, in its order. It is an error
    if a shard is missing, there twice, cut short, changed, or of other settings
    or another input. Records also go to stdout.
    """
    from sanactl.cli.frame.stdin import held_files
    from sanactl.cli.frame.terminal import is_first_process
    from sanactl.data.encoded import is_encoded
    from sanactl.errors import UsageError

    if not is_first_process():
        return  # it computes nothing
    if not any(path.is_dir() for path in files):
        with held_files(files) as (there, names):
            _join(there, output, None, force=force, names=names)
    elif all(is_encoded(path) for path in files):
        _join_latents(files, output, force=force)
    elif len(files) == 1:
        from sanactl.errors import InputError
        from sanactl.sampling.dataset_files import LISTING, listed_parts

        parts = listed_parts(files[0])
        if not parts:
            raise InputError(f"{files[0]}: holds no outputs of --shard")
        _join(parts, output or files[0] / LISTING, files[0], force=force)
    else:
        raise UsageError(
            "several folders are merged only if all are of encode"
            if all(path.is_dir() for path in files)
            else "files and a folder are not merged together",
            hint="give the files of records, such as a/images.0-of-2.jsonl b/images.1-of-2.jsonl",
        )


def _join(
    files: list[Path],
    output: Path | None,
    folder: Path | None,
    *,
    force: bool,
    names: Mapping[Path, str] | None = None,
) -> None:
    """Joins files of records, `names` those of pipes; in a folder of samples, the files of a dataset are written, too."""
    from sanactl.cli.frame.render import show_images, show_prompts
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.records.merge import check_output, merged, read_parts
    from sanactl.records.records import load_records
    from sanactl.sampling.dataset_files import LISTING, write_dataset_files

    run = Invocation("merge")
    parts = read_parts(files, names)
    if output is not None:
        check_output(parts, output)
    target = run.records_file(output, _stem(parts), force=force)
    for part in parts:
        run.uses(part.name)
    # Nothing blocked is a result, too: the shards are complete.
    records = run.counted(merged(parts), "records", empty=True)
    run.emit(
        run.tee(records, target, force=force), show=show_images if folder else show_prompts, take_all=True
    )
    if folder is not None and target == folder / LISTING:
        write_dataset_files(folder, load_records(target))
    first = parts[0]
    shards, groups = (
        f"{n:,} {what}{'s' * (n != 1)}" for n, what in ((first.shard.of, "shard"), (first.groups, "group"))
    )
    note(f"merged {shards} of {first.outputs}: {groups}, complete")
    run.finish((target, run.kind_of_input or "prompt"))


def _join_latents(folders: list[Path], output: Path | None, *, force: bool) -> None:
    """Completes a folder of `encode`."""
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.data.join_encoded import join_encoded
    from sanactl.errors import UsageError
    from sanactl.files.human import human_bytes

    if output is None and len(folders) > 1:
        raise UsageError("several folders of encode are joined into another", hint="name it with -o")
    if force:
        raise UsageError("--force is for files of records", hint="leave it out")
    run = Invocation("merge")
    for folder in folders:
        run.uses(folder)
    target = output or folders[0]
    summary = join_encoded(folders, target)
    left = f"; {len(summary['skipped']):,} images could not be read" if summary["skipped"] else ""
    note(f"{summary['examples']:,} examples, {human_bytes(summary['bytes'])}, complete in {target}{left}")
    run.finish((target, "latents"))


def _stem(parts: list[Part]) -> str:
    """The name of the output: that of a run without --shard."""
    return "images" if parts[0].command in ("sample", "scale-images") else parts[0].command
