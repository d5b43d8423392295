"""`sanactl inspect`: what is in a checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from sanactl.cli.frame.options import CheckpointArgument, Revision

_AT_ONCE = 256 << 20  # bytes, read in a fraction of a second

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def inspect(
    checkpoint: CheckpointArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on a terminal, too.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    digest: Annotated[
        bool,
        typer.Option(
            "--digest",
            help="Take the digest of a large checkpoint, too, which reads it once. Without it, only a known digest or that of a small file is shown.",
        ),
    ] = False,
    revision: Revision = None,
) -> None:
    """Show what is in a checkpoint: model, blocks, sizes, dtypes, config, components, lineage. It reads headers only.

    [bold]sanactl inspect base.st[/bold]
    [bold]sanactl inspect base.st --json | jq .blocks[/bold]
    """
    import sys

    from sanactl.checkpoint.kinds import model_name
    from sanactl.cli.frame.run import checkpoint_record
    from sanactl.cli.frame.stdout import write_line
    from sanactl.cli.frame.streams import find_checkpoint
    from sanactl.cli.frame.terminal import note
    from sanactl.records.records import dumps

    found, _ = find_checkpoint(checkpoint, revision=revision, native=True)
    for line in found.notes:
        note(line)
    record = {
        **checkpoint_record(found, digest=digest or found.unread_bytes <= _AT_ONCE),
        "model": model_name(found.config),
        "format": found.kind,
        "dtypes": found.dtypes,
        "config": dict(found.config),
        "components": found.components,
        "sampling": found.sampling,
        "lineage": found.lineage,
    }
    if tensors:
        record["tensors"] = {name: {"dtype": t.dtype, "shape": t.shape} for name, t in found.tensors.items()}
    if as_json or not sys.stdout.isatty():
        write_line(dumps(record))
        return
    from sanactl.cli.render_inspect import show_inspection

    show_inspection(record)
