"""`sanactl convert-detector`: GenEval's detector for transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import Force

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command()
def convert_detector(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The checkpoint of mmdet, a .pth.")],
    output: Annotated[
        Optional[Path],
        typer.Option(
            "-o",
            "--output",
            metavar="FOLDER",
            help="Folder to write. Default: the file's name without .pth.",
            show_default=False,
        ),
    ] = None,
    force: Force = False,
) -> None:
    """Convert the detector of GenEval's official scorer, mmdet's Mask2Former, for transformers.

    [bold]sanactl convert-detector mask2former.pth -o detector[/bold]
    [bold]sanactl eval geneval --detector mask2former:detector[/bold]

    The official file is OpenMMLab's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco
    (-743b7d99.pth; mmdet 3.x: -c9d0c4f2.pth). No mmdet is needed. Nothing of the
    file is run. The folder is loaded once before it gets its name.
    """
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.terminal import note
    from sanactl.errors import UsageError
    from sanactl.files.atomic import atomic_dir, check_target
    from sanactl.scoring.detectors.convert import convert_detector as convert

    target = output or Path(file.stem)
    if target.absolute() == file.absolute():
        raise UsageError("the folder cannot have the file's name", hint="name it with -o")
    check_target(target, force)
    run = Invocation("convert-detector")
    run.uses(file)
    with atomic_dir(target, force=force) as folder:
        found = convert(file, folder)
    run.finish((target, "detector", f"sha256:{found['sha256']}"))
    which = "the official detector" if found["official"] else "not the official detector's weights"
    note(f"wrote {target} ({found['tensors']} tensors; {which})")
