"""`sanactl log`: what was made from what."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def log(
    checkpoint: Annotated[
        Optional[str],
        typer.Argument(
            metavar="CHECKPOINT",
            help="A checkpoint whose lineage is shown. Default: this folder's journal.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the journal's lines, or the lineage, as JSON.")
    ] = False,
) -> None:
    """Show what was made from what, as a tree.

    This folder's journal:
    [bold]sanactl log[/bold]
    One checkpoint's lineage, which is in its header:
    [bold]sanactl log base-d60.st[/bold]
    """
    from sanactl.cli.frame.stdout import write_line, write_text
    from sanactl.cli.frame.terminal import note
    from sanactl.records.journal import Journal
    from sanactl.records.records import dumps
    from sanactl.report.lineage import journal_tree, lineage_tree, outline

    if checkpoint is not None:
        from sanactl.checkpoint.open import open_checkpoint

        found = open_checkpoint(checkpoint, native=True)
        if as_json:
            write_line(dumps({"checkpoint": str(found.path), "lineage": found.lineage}))
            return
        roots = lineage_tree(found.lineage, found.path.name)
    else:
        journal = Journal()
        if as_json:
            for entry in journal.runs():
                write_line(dumps(entry))
            return
        roots = journal_tree(journal)
    if not roots:
        note("nothing yet")
    for branch, node in outline(roots):
        run = node.run or {}
        parts = [branch + (node.name or "?")]
        if run.get("command"):
            parts.append(f"[{run['command']}]")
        if node.also_from:
            parts.append(f"with {', '.join(node.also_from)}")
        if node.exists is False:
            parts.append("(gone)")
        if node.outdated:
            parts.append("(its source has changed since)")
        write_text("  ".join(parts))
