"""The help texts: sentences, values, completion, and examples that run as they are written."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest

from sanactl.cli.app import COMMANDS, main
from tests.docs_text import command_of, fault, pipes

# Of a line at 80 columns: typer leaves one free on either side.
ROOM = 78
EXAMPLE = re.compile(r"\[bold\](.*?)\[/bold\]")
# Options whose values are a few names, and what completes them.
NAMED = {
    ("grow", "--init"): {"partial", "cyclic", "replicate", "progressive", "interpolate"},
    ("grow", "--position"): {"end", "interleave"},
    ("finetune", "--optimizer"): {"came8bit", "came", "adamw", "adamw8bit"},
    ("finetune", "--schedule"): {"constant", "cosine", "linear"},
    ("finetune", "--scale-lr"): {"none", "sqrt", "linear"},
    ("finetune", "--scheme"): {"linear", "zero", "dynamic"},
    ("finetune", "--precision"): {"fp32", "bf16"},
    ("finetune", "--tracker"): {"tensorboard", "wandb", "trackio"},
    ("sample", "--dtype"): {"fp32", "bf16", "fp16"},
    ("sample", "--device"): {"cpu", "cuda", "mps"},
    ("judge", "--model"): {"builtin:shapes", "oracle", "vlm", "nvila"},
    ("eval geneval", "--detector"): {"shapes", "mask2former"},
    ("prompts geneval", "--split"): {"official", "train"},
    ("export", "--to"): {"imagefolder", "webdataset", "sana", "parquet", "hf-dataset", "nvila-json"},
    ("prompts shapes", "--split"): {"train", "eval", "calib"},
    ("bench optim", "--model"): {"tiny", "0.6b", "1.6b", "4.8b"},
}


def commands() -> Iterator[tuple[str, Any]]:
    """Every command and subcommand by its words."""
    for name in COMMANDS:
        command = command_of(name)
        yield name, command
        for inner, single in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", single


ALL = dict(commands())
each_command = pytest.mark.parametrize("name", ALL)


@each_command
def test_examples_run_as_written_and_do_not_wrap(name: str) -> None:
    text = inspect.cleandoc(ALL[name].help or "")
    for line in text.splitlines():
        for example in EXAMPLE.findall(line):
            for stage in (s for pipe in pipes(example) for s in pipe):
                assert stage.arguments is not None or stage.words[0] in ("jq", "accelerate"), example
                assert stage.arguments is None or not (wrong := fault(stage.arguments, whole=True)), wrong
    _, _, rest = text.partition("\n\n")  # typer joins the lines of the first paragraph alone
    assert not [line for line in rest.splitlines() if len(re.sub(r"\[/?bold\]", "", line)) > ROOM]


@each_command
def test_an_option_has_a_sentence_and_a_default(name: str) -> None:
    faults = []
    for param in ALL[name].params:
        if getattr(param, "hidden", False) or param.name in ("help", "install_completion", "show_completion"):
            continue
        text, label = param.help or "", f"{name} {param.opts[0]}"
        if not re.fullmatch(r"\S.*[.)]", text, re.S) or not (
            text[0].isupper() or text[0].isdigit() or "_" in text[:12]
        ):
            faults.append(f"{label} is no sentence: {text!r}")
        flag = getattr(param, "is_flag", False)
        if not (
            flag
            or param.show_default
            or "Default: " in text
            or "With --qk-norm" in text
            or param.name in KEPT
        ):
            faults.append(f"{label} tells no default: {text!r}")
        if re.search(r"(?<!paper, )\b(section \d|appendix [A-Z]|equation \d|figure \d)", text):
            faults.append(f"{label}: which paper? {text!r}")
    assert not faults, "\n".join(faults)


# Of these one has to be given.
KEPT = {"file", "keep", "params", "size", "blocks", "drop"}


@each_command
def test_sections_of_the_paper_are_named_as_such(name: str) -> None:
    text = inspect.cleandoc(ALL[name].help or "")
    assert not re.search(r"(?<!paper, )(?<!and )\b(section \d|appendix [A-Z]|equation \d|figure \d)", text), (
        text
    )


@pytest.mark.parametrize(("command", "option"), NAMED, ids=" ".join)
def test_named_values_are_completed_and_listed(command: str, option: str) -> None:
    param = next(p for p in ALL[command].params if option in p.opts)
    context = ALL[command].make_context(command.split()[-1], [], resilient_parsing=True)
    completed = {item.value for item in param.shell_complete(context, "")}
    assert completed == NAMED[command, option]
    assert (param.metavar or "").split("|") == [v for v in (param.metavar or "").split("|") if v]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_help_names_no_types_of_python(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert not re.search(r"<\w+( range)?>|9007199254740991", capsys.readouterr().out)
