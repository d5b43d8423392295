"""`sanactl eval detector-check`: whether a detector can be trusted on this machine."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sanactl.cli.frame.options import Device, Dtype, choices

app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(
    name="detector-check", short_help="Check a detector on this machine before its scores are believed."
)
def detector_check(
    detector: Annotated[
        str,
        typer.Option(
            help="Detector to check: shapes, or mask2former: and a folder or Hub id.",
            **choices("shapes", "mask2former"),
        ),
    ] = "shapes",
    colors: Annotated[
        Optional[str],
        typer.Option(
            metavar="CLIP",
            help="CLIP that tells colours, a folder or Hub id; off for none. Default: openai/clip-vit-large-patch14.",
            show_default=False,
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Check a detector on this machine: its numbers on a device against the CPU's in float64.

    [bold]sanactl eval detector-check --detector mask2former:detector[/bold]

    Two pictures of the built-in world go through the detector and through CLIP.
    A difference above 1e-3 (in fp32) ends with exit code 1: scores would be
    wrong. Every eval that uses a model makes this check once per machine, device,
    version of torch and weights.
    """
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.scoring.detectors.check import check_record
    from sanactl.scoring.detectors.registry import open_detector

    opened = open_detector(detector, device=device, dtype=dtype, colors=colors)
    Invocation("eval detector-check").emit(iter([check_record(opened)]), show=show_scores)
