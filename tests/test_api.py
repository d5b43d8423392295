"""`import sanactl`: light, the same options and results as the commands, documented, and with errors that say what is wrong."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
import typing
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import sanactl as api
from sanactl.checkpoint.open import open_checkpoint
from sanactl.records import types
from sanactl.records.fields import FIELDS, REQUIRED
from sanactl.scoring.metrics.registry import METRICS
from tests.program import Program, snapshot

FUNCTIONS = [name for name in api.__all__ if name.islower() and name[0] != "_"]
TWO = ["a photo of a red circle", "a photo of two squares"]
# Options of commands that a function has no use for: its `prompts` takes texts, and a plan is not a checkpoint.
FOR_TERMINALS = {"prompt", "dry_run", "help", "code"}
OTHER_NAMES = {
    "judge": "judges",
    "judge_option": "judge_options",
    "guard_option": "guard_options",
    "llm_option": "llm_options",
}
FOR_PROGRAMS = {"progress", "on_step"}


def run(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Light


def test_no_model_library_is_imported_before_a_model_is_needed(place: Path) -> None:
    code = """
import sys
import sanactl
before = sorted(n for n in sys.modules if n.startswith("sanactl."))
small = sanactl.open_checkpoint("tiny.st")
sanactl.prune(sanactl.convert(sanactl.grow(small, 6), output="x.pth"), blocks=[0, -1], output="y.st")
[getattr(sanactl, name) for name in sanactl.__all__ if name != "CAME8bit"]
print(before, sorted({"torch", "transformers", "diffusers", "datasets", "tqdm", "typer"} & set(sys.modules)))
"""
    assert run(code, place).strip() == "['sanactl.version'] []"


def test_names_are_those_that_type_checkers_see() -> None:
    tree = ast.parse(Path(api.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: module for module, names in api._MODULES.items() for name in names}
    assert sorted(seen) == sorted(api.__all__)
    assert set(api.__all__) <= set(dir(api))
    for name in api.__all__:
        assert getattr(api, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'shrink'"):
        _ = api.shrink


def test_an_option_of_the_command_alone_is_refused_by_the_name_of_the_function() -> None:
    for function in (api.sample, api.judge):
        with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) got an unexpected .*'shard'"):
            function("base.st", shard="0/2")  # type: ignore[call-arg]


# One set of options


def options_of(command: str) -> dict[str, Any]:
    """Python's name of each parameter of a command to its default; arguments without one."""
    module, _, inner = command.partition(" ")
    found: Any = typer.main.get_command(importlib.import_module(f"sanactl.cli.{module}").app)
    found = found.commands[inner] if inner else found
    options: dict[str, Any] = {}
    for parameter in found.params:
        name = max(parameter.opts, key=len).lstrip("-").replace("-", "_")
        options[OTHER_NAMES.get(name, name)] = (
            parameter.default if parameter.param_type_name == "option" else inspect.Parameter.empty
        )
    options.pop("shard", None)  # of a list, a part is taken by slicing it
    return {name: default for name, default in options.items() if name not in FOR_TERMINALS}


@pytest.mark.parametrize(
    "command",
    [
        "grow",
        "prune",
        "convert",
        "importance",
        "guard",
        "sample",
        "scale",
        "judge",
        "finetune",
        "eval",
        "budget",
        "export",
        "train_judge",
        "relabel",
        "rewrite",
        "filter",
        "doctor",
        "prompts geneval",
        "prompts shapes",
    ],
)
def test_options_and_defaults_are_those_of_the_command(command: str) -> None:
    function = api.evaluate if command == "eval" else getattr(api, "_".join(command.split()[::-1]))
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in FOR_PROGRAMS
    }
    if command == "eval":  # each metric is a command, and its options are checked where it is opened
        assert [*parameters] == ["records", "metric", "output", "force", "options"]
        assert not {o.name for e in METRICS.values() for o in e.load().options} & {*parameters, *FOR_PROGRAMS}
        return
    wanted = options_of(command)
    assert sorted(parameters) == sorted(wanted)
    for name, default in wanted.items():
        if default is not inspect.Parameter.empty:
            assert parameters[name].default == default, name


@pytest.mark.parametrize("name", ["sample", "scale", "judge", "evaluate", "relabel", "rewrite"])
def test_lists_and_iterators_take_the_same(name: str) -> None:
    listed, stream = (inspect.signature(getattr(api, n)) for n in (name, f"iter_{name}"))
    assert listed.parameters == stream.parameters
    assert listed.return_annotation.removeprefix("list") == stream.return_annotation.removeprefix("Iterator")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_name_every_parameter(name: str) -> None:
    function: Callable[..., Any] = getattr(api, name)
    text = inspect.getdoc(function) or ""
    if name.startswith("iter_"):
        assert f"as of `sanactl.{name[5:]}`" in text or f"as `sanactl.{name[5:]}`" in text
        return
    for part in ("Args:", "Returns:", "Raises:", "Source:"):
        assert f"\n{part}" in text, part
    arguments = text[text.index("Args:") : text.index("Returns:")]
    missing = [p for p in inspect.signature(function).parameters if p not in arguments.replace(":", ",")]
    assert not missing
    errors = text[text.index("Raises:") : text.index("Source:")].splitlines()[1:]
    named = [line.split(":")[0].strip() for line in errors if line.startswith("    ") and line[4] != " "]
    assert named and all(issubclass(getattr(api, error), api.SanactlError) for error in named)


@pytest.mark.parametrize("kind", FIELDS)
def test_record_types_have_the_fields_that_are_checked(kind: str) -> None:
    found = getattr(types, f"{kind.capitalize()}Record")
    known = {*typing.get_type_hints(found)}
    old = {"overall", "score", "single", "single_ci", "points"}  # of earlier versions
    assert {"kind", *FIELDS[kind]} - old <= known
    assert found.__required_keys__ == {"kind", *REQUIRED[kind]}


# One set of results


def test_results_are_those_of_the_commands(place: Path, sanactl: Program) -> None:
    """The walk of the notebook, by functions and by commands: the same bytes and the same records."""
    Path("p.txt").write_text("\n".join(TWO), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        grown = api.grow("tiny.st", 6, output="a.st", seed=3)
    blocks = api.importance(grown, TWO, steps=2, output="a.jsonl")
    pruned = api.prune(grown, keep=4, importance=blocks, output="b.st")
    losses: list[float] = []
    tuned = api.finetune(
        pruned, steps=2, batch_size=4, output="c.st", on_step=lambda p: losses.append(p["loss"])
    )
    images = api.sample(tuned, "p.txt", count=2, steps=2, output="d")
    judged = api.judge(images, all=True)
    # With -o of the same name each, in another folder.
    ours = snapshot(place)
    Path("theirs").mkdir()
    sanactl("grow", "tiny.st", "--to", "6", "--seed", "3", "-o", "theirs/a.st")
    assert digest("theirs/a.st") == grown.digest
    measured = sanactl("importance", "a.st", "-p", "p.txt", "--steps", "2", "-o", "theirs/a.jsonl")
    assert measured == blocks
    assert Path("theirs/a.jsonl").read_bytes() == ours["a.jsonl"]
    sanactl("prune", "a.st", "--keep", "4", "--importance", "a.jsonl", "-o", "theirs/b.st")
    assert digest("theirs/b.st") == pruned.digest
    sanactl("finetune", "b.st", "--steps", "2", "-b", "4", "-o", "theirs/c.st")
    figures = Path("theirs/c.train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["loss"] for line in figures] == losses
    drawn = sanactl("sample", "c.st", "-p", "p.txt", "-n", "2", "--steps", "2", "-o", "theirs/d")
    assert [{**r, "path": r["path"].removeprefix("theirs/")} for r in drawn] == images
    assert all(Path(r["path"]).read_bytes() == ours[i["path"]] for r, i in zip(drawn, images, strict=True))
    assert sanactl("judge", "d", "--all", "-o", "e.jsonl") and judged[0]["rank"] == 0
    assert {(r["path"], r["judge_score"]) for r in sanactl("judge", "d/images.jsonl", "--all")} == {
        (r["path"], r["judge_score"]) for r in judged
    }


def digest(path: str) -> str:
    return open_checkpoint(path).digest


def test_a_call_that_was_made_before_does_nothing_again(place: Path) -> None:
    first = api.sample("tiny.st", TWO, count=1, steps=2)
    before = {r["path"]: Path(r["path"]).stat().st_mtime_ns for r in first}
    assert api.sample("tiny.st", TWO, count=1, steps=2) == first
    assert {p: Path(p).stat().st_mtime_ns for p in before} == before
    api.finetune("tiny.st", steps=1, batch_size=2, output="t.st")
    written = Path("t.st").stat().st_mtime_ns
    assert api.finetune("tiny.st", steps=1, batch_size=2, output="t.st").num_blocks == 3
    assert Path("t.st").stat().st_mtime_ns == written
    with pytest.raises(api.OutputExistsError):
        api.finetune("tiny.st", steps=2, batch_size=2, output="t.st")


def test_iterators_pass_records_on_as_they_come(place: Path) -> None:
    drawing: Any = {"count": 8, "steps": 1, "batch_size": 8, "output": "s"}
    stream = api.iter_sample("tiny.st", TWO, **drawing)
    first = next(stream)
    assert first["prompt"] == TWO[0] and not Path("s/images.jsonl").exists()
    assert not Path("s/00001").exists()
    stream.close()  # type: ignore[attr-defined]
    again = api.iter_judge(api.iter_sample("tiny.st", TWO, **drawing), model="builtin:shapes")
    best = next(again)
    assert best["rank"] == 0 and best["prompt"] == TWO[0]
    assert len([best, *again]) == 2
    assert Path("s/images.jsonl").exists()


def test_iterators_check_their_arguments_at_the_call(place: Path) -> None:
    """Nothing is asked of what they return."""
    Path("there.jsonl").write_text("")
    for call in (
        lambda: api.iter_sample("gone.st"),
        lambda: api.iter_sample("tiny.st", "gone.txt"),
        lambda: api.iter_sample("tiny.st", steps=0),
        lambda: api.iter_scale("tiny.st", keep=0),
        lambda: api.iter_judge("gone.jsonl"),
        lambda: api.iter_judge([], keep=0),
        lambda: api.iter_judge([], model="oracle:gone"),
        lambda: api.iter_evaluate([], "gone"),
        lambda: api.iter_evaluate([], "geneval", output="there.jsonl"),
        lambda: api.iter_relabel("a star", to="latin"),
        lambda: api.iter_rewrite("gone.txt"),
    ):
        with pytest.raises(api.SanactlError):
            call()
    assert not list(place.glob("*-samples"))
    api.iter_evaluate([], "geneval", output="new.jsonl")
    assert not Path("new.jsonl").exists()


def test_prompts_and_images_are_chosen_as_by_the_commands(place: Path, sanactl: Program) -> None:
    assert api.geneval_prompts() == sanactl("prompts", "geneval")
    drawn = ("prompts", "geneval", "--split", "train", "-n", "9", "--weights", "position:2,counting:1")
    weights = {"position": 2, "counting": 1}
    assert api.geneval_prompts(split="train", count=9, weights=weights) == sanactl(*drawn)
    assert api.shapes_prompts(tag="counting") == sanactl("prompts", "shapes", "--tag", "counting")
    train = api.shapes_prompts(split="train", count=5, seed=3)
    assert train == sanactl("prompts", "shapes", "--split", "train", "-n", "5", "--seed", "3")
    rest = api.shapes_prompts(split="train", count=5, seed=3, exclude=[train])
    assert not {r["prompt"] for r in rest} & {r["prompt"] for r in train}

    images: Any = [
        {
            "kind": "image",
            "path": f"{n}.png",
            "prompt": TWO[n % 2],
            "prompt_id": str(n % 2),
            "judge_score": n / 9,
        }
        for n in range(6)
    ]
    Path("i.jsonl").write_text("".join(json.dumps(r) + "\n" for r in images))
    found = api.filter(images, where=["judge_score > 0.2"], top=1, output="f.jsonl")
    assert [r["path"] for r in found] == ["4.png", "5.png"]
    assert found == sanactl(
        "filter", "i.jsonl", "--where", "judge_score > 0.2", "--top", "1", "-o", "g.jsonl"
    )
    assert Path("f.jsonl").read_bytes() == Path("g.jsonl").read_bytes()


def test_findings_are_those_of_doctor(place: Path) -> None:
    found: Any = api.doctor(only=["folder"], device="cpu")
    assert [(r["kind"], r["check"], r["state"]) for r in found] == [("score", "folder", "ok")]
