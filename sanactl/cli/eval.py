"""`sanactl eval`: scores of images, a subcommand for each metric of the registry."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from typer.core import TyperGroup

from sanactl.cli.frame.options import MACHINE, Device, Dtype, Force, Output, RecordsArgument, ShardOf, choices
from sanactl.files.dtypes import WEIGHT_DTYPES
from sanactl.scoring.metrics.protocol import Option
from sanactl.scoring.metrics.registry import METRICS, Entry

if TYPE_CHECKING:
    from sanactl.cli.frame.run import Invocation
    from sanactl.records.records import Record
    from sanactl.records.shards import Shard

__all__ = ["app"]


class Metrics(TyperGroup):
    """A group with a command for each metric that is registered when the command line is read."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        for name, entry in METRICS.items():
            self.commands[name] = _command(name, entry)
        from sanactl.cli.detector_check import app as detector_check
        from sanactl.cli.eval_all import app as eval_all
        from sanactl.cli.eval_speed import app as eval_speed

        for name, single in {"speed": eval_speed, "all": eval_all, "detector-check": detector_check}.items():
            self.commands[name] = typer.main.get_command(single)
            self.commands[name].name = name


app = typer.Typer(add_completion=False, rich_markup_mode="rich", no_args_is_help=True, cls=Metrics)


@app.callback()
def metrics() -> None:
    """Score images by a metric."""


def _command(name: str, entry: Entry) -> Any:
    """The command of a metric: records, the metric's own options, --output and --force."""
    metric = entry.load()
    options = getattr(metric, "options", ())

    def call(
        records: str | None, output: Path | None, force: bool, shard: str | None = None, **given: Any
    ) -> None:
        _evaluate(name, records, given, output, force, shard)

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("records", keyword, default=None, annotation=RecordsArgument),
        *(inspect.Parameter(o.name, keyword, default=o.default, annotation=_annotation(o)) for o in options),
        inspect.Parameter("output", keyword, default=None, annotation=Output),
        inspect.Parameter("force", keyword, default=False, annotation=Force),
    ]
    if getattr(metric, "shards", False):
        parameters.append(inspect.Parameter("shard", keyword, default=None, annotation=ShardOf))
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
    name: str,
    records: str | None,
    options: dict[str, Any],
    output: Path | None,
    force: bool,
    shard: str | None,
) -> None:
    from sanactl.cli.frame.run import Invocation
    from sanactl.cli.frame.stdin import first_reads_alone
    from sanactl.cli.frame.terminal import is_first_process
    from sanactl.errors import UsageError
    from sanactl.model.processes import is_one_of_several
    from sanactl.model.sharing import leading, on_each, serve
    from sanactl.records.shards import read_shard
    from sanactl.scoring.metrics.registry import METRICS, open_metric

    part = read_shard(shard)
    run = Invocation(f"eval {name}")
    kind = METRICS[name].load()
    if is_one_of_several() and not hasattr(kind, "compute"):
        if is_first_process():
            run.progress.note(f"eval {name} needs one process; the others have nothing to do")
            with first_reads_alone():
                target, stream = _inputs(run, name, records, options, output, force)
                _score(run, open_metric(name, **options), stream, target, force, None)
        return

    def find() -> Any:
        """The first process's input and output; the others get only the metric."""
        return _inputs(run, name, records, options, output, force) if is_first_process() else None

    def opened() -> Any:
        if is_one_of_several() and ":" in (options.get("device") or ""):
            raise UsageError("--device is for one process; a launcher gives each of several its own")
        return open_metric(name, **options)

    with first_reads_alone():
        found = on_each(find)
        metric = on_each(opened)
        if found is None:
            serve(metric.compute)
            return
        with leading():
            _score(run, metric, found[1], found[0], force, part)


def _inputs(
    run: Invocation,
    name: str,
    records: str | None,
    options: dict[str, Any],
    output: Path | None,
    force: bool,
) -> tuple[Path, Iterator[Record]]:
    """Where the records go, and the image records."""
    from sanactl.cli.frame.streams import find_records
    from sanactl.scoring.metrics.registry import METRICS

    kind = METRICS[name].load()
    target = run.records_file(output, getattr(kind, "file", name), force=force)
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
        plain=getattr(kind, "plain_folders", False),
    )
    run.uses(source)
    return target, run.counted(stream, "images to score", source=source)


def _score(
    run: Invocation, metric: Any, stream: Iterator[Record], target: Path, force: bool, part: Shard | None
) -> None:
    """Scores the images, and writes records and the journal's line. A job of several only keeps its results."""
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.cli.frame.terminal import note
    from sanactl.model.sharing import ShardDone, only
    from sanactl.scoring.rewritten import telling_rewrites

    if hasattr(metric, "force"):
        metric.force = force
    try:
        with run.keeping(target, **metric.identity) as kept, only(part):
            evaluate = partial(metric.evaluate, kept=kept, progress=run.progress)
            scored = telling_rewrites(evaluate, stream)
            run.emit(run.tee(scored, target, force=force), show=show_scores, take_all=True)
    except ShardDone as done:
        kept_so_far = (
            f"{done.own:,} of {done.parts:,} batches are kept" if done.own else "no work for this job"
        )
        note(
            f"{kept_so_far}; when all {part.of if part else 1} jobs are done, the same"
            " command without --shard takes them over and scores all images"
        )
        run.finish()
        return
    run.finish((target, "score"))
