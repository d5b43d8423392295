"""The options that name a judge, and how it is opened from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from sanactl.errors import UsageError
from sanactl.files.progress import Progress
from sanactl.judging.registry import DEFAULT, JUDGES, SCHEMES

if TYPE_CHECKING:
    from sanactl.judging.protocol import Judge

__all__ = [
    "CalibrationFiles", "JudgeName", "JudgeOptions", "Judges", "NoCache", "TrustRemoteCode", "named_judge", "opened_judge",
]  # fmt: skip

JudgeName = Annotated[
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
]
Judges = Annotated[
    Optional[list[str]],
    typer.Option(
        "--judge",
        metavar="JUDGE",
        help="A judge, as --model names one. Give the option again for each further judge: the mean of their "
        "probabilities counts. Default: the judge of --model.",
        show_default=False,
    ),
]
JudgeOptions = Annotated[
    Optional[list[str]],
    typer.Option(
        "--judge-option",
        metavar="KEY=VALUE",
        help="An option of the judge's backend. Give the option again for each further one. With several judges "
        "it is for all that have it, and 2.KEY=VALUE for the second alone. Default: none.",
        show_default=False,
    ),
]
CalibrationFiles = Annotated[
    Optional[list[Path]],
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Calibration of the judge, as eval judge writes it; one file can hold those of several judges. Give "
        "the option again for each further file. Default: calibration.json in the judge's folder, if it is there.",
        show_default=False,
    ),
]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run Python code from the model's repository.")
]
NoCache = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Ask again about images whose verdicts are known from earlier runs. The new verdicts take their place.",
    ),
]


def named_judge(model: str | None, judges: Sequence[str] | None) -> list[str]:
    """The judges that --model and --judge name.

    Raises:
        UsageError: both are given.
    """
    if model is not None and judges:
        raise UsageError("--model and --judge exclude each other", hint="give --judge for each judge")
    return list(judges or [model or DEFAULT])


def opened_judge(
    named: Sequence[str], judge_options: Sequence[str] | None, progress: Progress, **given: Any
) -> Judge:
    """Opens the judges as one, and tells what the user should know of it.

    Args:
        named: of `named_judge`.
        judge_options: of --judge-option.
        given: options that have a name of their own on the command line; None counts as not given.

    Raises:
        UsageError: an option is given twice or not known, or there is no such judge.
        InputError: a judge cannot be loaded.
    """
    from sanactl.judging.registry import open_judges
    from sanactl.records.options import split_options

    options = {name: value for name, value in given.items() if value is not None}
    for name, value in split_options(judge_options or ()).items():
        if name in options:
            raise UsageError(f"the judge's {name} is given twice", hint="leave out the --judge-option")
        options[name] = value
    progress.start(None, f"loading the judge {' and '.join(named)}")
    chosen = open_judges(named, **options)
    if notice := getattr(chosen, "notice", None):
        progress.note(notice)
    return chosen
