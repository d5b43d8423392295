"""The command line's frame: commands that are imported only when called, and one place where errors become lines.

`sanactl --help` lists the commands from the table below without importing any of them.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from sanactl.cli.frame import stopping
from sanactl.cli.frame.board import join_board
from sanactl.cli.frame.deferred import defer_imports
from sanactl.cli.frame.process import Interrupts
from sanactl.cli.frame.startup import commands_help, lighten
from sanactl.cli.frame.stdout import reader_left, silence_stdout
from sanactl.cli.frame.terminal import drawable, is_first_process, quiet_end, say
from sanactl.cli.frame.trouble import error_line, say_traceback
from sanactl.cli.frame.usage import no_such_command
from sanactl.version import __version__

__all__ = ["COMMANDS", "app", "main"]

# name: (module, panel, one line of help). The command's function has the command's name, with _ for -.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "init": ("init", "Checkpoints", "Write a first checkpoint: the built-in base, or random weights."),
    "inspect": ("inspect", "Checkpoints", "Show what is in a checkpoint: blocks, sizes, config, lineage."),
    "convert": ("convert", "Checkpoints", "Change the format or dtype. Between formats nothing is lost."),
    "grow": ("grow", "Checkpoints", "Make a checkpoint deeper (paper, section 2.2)."),
    "importance": (
        "importance",
        "Checkpoints",
        "Measure how much each block changes its input (paper, equation 3).",
    ),
    "prune": ("prune", "Checkpoints", "Keep the most important blocks (paper, section 2.4)."),
    "finetune": ("finetune", "Training", "Train a checkpoint on images with captions."),
    "encode": ("encode", "Training", "Compute latents and text embeddings of training data once."),
    "train-judge": ("train_judge", "Training", "Train a judge on labelled images (paper, appendix B)."),
    "make-shapes": (
        "make_shapes",
        "Training",
        "Train the built-in world's autoencoder, text encoder, detector and CLIP.",
    ),
    "prompts": ("prompts", "Images", "Write prompt files: the built-in world's, GenEval's, DPG-Bench's."),
    "guard": ("guard", "Images", "Pass on the prompts that a safety model finds safe."),
    "relabel": ("relabel", "Images", "Translate prompts: Chinese, a mixture, emoji (paper, appendix C)."),
    "rewrite": ("rewrite", "Images", "Add detail to prompts with a language model (paper, figure 19)."),
    "sample": ("sample", "Images", "Draw images for prompts."),
    "judge": ("judge", "Images", "Let a judge pick the best images of each prompt (paper, section 2.5)."),
    "scale": ("scale", "Images", "Draw and judge images in rounds, until more would not help."),
    "merge": ("merge", "Images", "Join what commands with --shard wrote, if it is complete."),
    "filter": ("filter", "Images", "Pass on some of the images: correct ones, the best of each prompt."),
    "export": ("export", "Images", "Write images with captions as a dataset, in the format of other tools."),
    "eval": (
        "eval",
        "Scores",
        "Score images by GenEval, CLIP, FID, DPG and others; measure a judge or a model's speed.",
    ),
    "convert-detector": (
        "convert_detector",
        "Scores",
        "Convert the detector of GenEval's official scorer for transformers.",
    ),
    "budget": (
        "budget",
        "Scores",
        "Choose checkpoint, steps and number of images for a budget (paper, section 2.5).",
    ),
    "report": ("report", "Scores", "Write one HTML page about a run."),
    "bench": ("bench", "Scores", "Measure speed and memory on this machine."),
    "doctor": (
        "doctor",
        "Machine",
        "Check this machine: versions, devices, disk, and known results.",
    ),
    "log": ("log", "History", "Show what was made from what in this folder."),
}


class _Passed(Exception):
    """Carries past typer what it would handle itself: it exits 1 on a closed pipe, and says nothing on Ctrl-C."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


@contextlib.contextmanager
def _passing() -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, EOFError, OSError) as error:
        raise _Passed(error) from error


class LazyGroup(TyperGroup):
    """A group whose commands live in modules of `sanactl.cli` and are imported when one is called."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        lighten(self)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself if it is the one called, else a stand-in that knows its line of help."""
        if cmd_name not in COMMANDS:
            return None
        module, panel, line = COMMANDS[cmd_name]
        if getattr(ctx, "_called", None) != cmd_name:
            return TyperCommand(cmd_name, help=line, rich_help_panel=panel)
        join_board(cmd_name)
        loaded = importlib.import_module(f"sanactl.cli.{module}")
        command = typer.main.get_command(loaded.app)
        command.name = cmd_name
        return lighten(command)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The list of commands, without typer's own drawing, which imports as much as all the rest."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, (_, panel, line) in COMMANDS.items():
            panels.setdefault(panel, []).append((name, line))
        options = [param.get_help_record(ctx) for param in self.get_params(ctx)]
        shown = commands_help("sanactl", self.help or "", [o for o in options if o], panels)
        print(drawable(shown, sys.stdout.encoding))

    def make_context(self, *arguments: Any, **keywords: Any) -> Any:
        """Reads the command line, and shows the program's own help and version; see `invoke`."""
        with _passing():
            return super().make_context(*arguments, **keywords)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; what typer would give an exit code of its own is passed on to `main` instead."""
        with _passing():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        ctx._called = args[0] if args else None
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise no_such_command(args[0], COMMANDS)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        print(f"sanactl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: bool = typer.Option(False, "--debug", help="Show a traceback where something fails."),
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Grow, measure, prune, train, sample and judge SANA checkpoints, one command at a time.

    Data goes to stdout as JSON lines, so that pipes connect commands. Messages for people go to stderr.

    Try: [bold]sanactl sample | sanactl judge[/bold]
    """


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; the exit code is 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments
    # Wherever it stands: `sanactl sample --debug` is what people type.
    arguments = [a for a in arguments if a != "--debug"]
    # bitsandbytes says on import that an optional kernel is missing, which no command here uses.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    defer_imports()
    stopping.begin()
    with Interrupts() as interrupts:
        try:
            try:
                code = _run(arguments)
                sys.stdout.flush()
                if not interrupts.asked:  # else a library kept the interrupt for itself
                    return code
                raise KeyboardInterrupt
            finally:
                quiet_end()
        except BaseException as error:
            if debug and not isinstance(error, SystemExit):
                say_traceback(error)
            if interrupts.asked or isinstance(error, KeyboardInterrupt):
                return _interrupted()
            if reader_left(error):
                # The reader has all it wanted (`sanactl sample | head -1`): that is no failure.
                silence_stdout()
                return 0
            if isinstance(error, SystemExit):  # of typer, and of rich
                return error.code if isinstance(error.code, int) else int(error.code is not None)
            code, line = error_line(error, arguments, COMMANDS)
            if isinstance(error, OSError):
                silence_stdout()  # it may be stdout's: what is left in its buffer would fail once more
            if line:
                say(line)
            return code


def _run(arguments: list[str]) -> int:
    from sanactl.model.processes import one_falls_all_fall

    with one_falls_all_fall():
        try:
            return int(app(arguments, prog_name="sanactl", standalone_mode=False) or 0)
        except _Passed as passed:
            raise passed.error from None


def _interrupted() -> int:
    silence_stdout()
    if is_first_process():
        say(stopping.line())
    return 130
