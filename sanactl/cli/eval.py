"""`sanactl eval`: scores of images, a subcommand for each metric of the registry."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from sanactl.cli.frame.options import MACHINE, Device, Dtype, Force, Output, RecordsArgument, choices
from sanactl.files.dtypes import WEIGHT_DTYPES
from sanactl.scoring.metrics.protocol import Option
from sanactl.scoring.metrics.registry import METRICS, Entry

__all__ = ["app"]


class Metrics(TyperGroup):
    """A group with a command for each metric that is registered when the command line is read."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        for name, entry in METRICS.items():
            self.commands[name] = _command(name, entry)
        from sanactl.cli.detector_check import app as detector_check

        self.commands["detector-check"] = typer.main.get_command(detector_check)
        self.commands["detector-check"].name = "detector-check"


app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True, cls=Metrics)


@app.callback()
def metrics() -> None:
    """Score images by a metric."""


def _command(name: str, entry: Entry) -> Any:
    """The command of a metric: records, the metric's own options, --output and --force."""
    metric = entry.load()
    options = getattr(metric, "options", ())

    def call(records: str | None, output: Path | None, force: bool, **given: Any) -> None:
        _evaluate(name, records, given, output, force)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("records", keyword, default=None, annotation=RecordsArgument),
        *(inspect.Parameter(o.name, keyword, default=o.default, annotation=_annotation(o)) for o in options),
        inspect.Parameter("output", keyword, default=None, annotation=Output),
        inspect.Parameter("force", keyword, default=False, annotation=Force),
    ]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__doc__ = getattr(metric, "help", entry.line)
    single = typer.Typer(add_completion=False, rich_markup_mode="rich")
    single.command(name=name, short_help=entry.line)(call)
    command = typer.main.get_command(single)
    command.name = name
    return command


# Options that other commands have, too, look alike everywhere.
_SHARED = {"device": Device, "dtype": Dtype}
_METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT"}


def _annotation(option: Option) -> Any:
    # A default of the metric's own is shown in the help; the shared options say another.
    own = option.default is not None
    if option.name in _SHARED and not own:
        return _SHARED[option.name]
    names = [f"--{option.name.replace('_', '-')}", *([option.short] if option.short else [])]
    # A flag is on or off, and None would be neither.
    kind: Any = option.type if option.type is bool else Optional[option.type]
    more: dict[str, Any] = {"metavar": _METAVARS.get(option.type)}
    if option.choices is not None:
        more = choices(*option.choices())
    if option.name == "dtype":
        more = {**choices(*WEIGHT_DTYPES), "rich_help_panel": MACHINE}
    return Annotated[kind, typer.Option(*names, help=option.help, min=option.least, show_default=own, **more)]


def _evaluate(
    name: str, records: str | None, options: dict[str, Any], output: Path | None, force: bool
) -> None:
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.streams import find_records
    from sanactl.scoring.metrics.registry import METRICS, open_metric

    run = Invocation(f"eval {name}")
    target = run.records_file(output, getattr(METRICS[name].load(), "file", name), force=force)
    # A metric that can do without some images has an option that says so.
    lenient = "prompts"
    if "allow_missing" in options:
        lenient = "nothing" if options["allow_missing"] else "images"
    stream, source = find_records(
        records,
        ("image",),
        what="images to score",
        hint=f"sanactl sample | sanactl eval {name}",
        missing=lenient,
        plain=getattr(METRICS[name].load(), "plain_folders", False),
    )
    run.uses(source)
    metric = open_metric(name, **options)
    if hasattr(metric, "force"):
        metric.force = force
    with run.keeping(target, **metric.identity) as kept:
        scored = metric.evaluate(run.counted(stream, "images to score"), kept=kept, progress=run.progress)
        run.emit(run.tee(scored, target, force=force), show=show_scores, take_all=True)
    run.finish((target, "score"))
