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
import torch
import typer

import sanactl as api
from sanactl.checkpoint.open import open_checkpoint
from sanactl.files.progress import Progress
from sanactl.judging.registry import open_judge
from sanactl.records import types
from sanactl.records.fields import FIELDS, REQUIRED
from sanactl.scoring.metrics.registry import METRICS
from tests.program import Program, snapshot

FUNCTIONS = [name for name in api.__all__ if name.islower() and name[0] != "_"]
TWO = ["a photo of a red circle", "a photo of two squares"]
# Options of commands that a function has no use for: its `prompts` takes texts, a plan is not a checkpoint, and a part of a
# list is taken by slicing it.
FOR_TERMINALS = {"prompt", "dry_run", "help", "code", "shard"}
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


# What is taken


def test_prompts_come_in_several_forms(place: Path) -> None:
    from sanactl.api.inputs import as_prompts

    Path("p.txt").write_text("# a comment\na red circle\n", encoding="utf-8")
    forms: list[Any] = [
        "p.txt", Path("p.txt"), ["a red circle"], "a red circle", [{"text": "a red circle"}],
        ({"kind": "prompt", "prompt": p} for p in ["a red circle"]),
    ]  # fmt: skip
    found = [as_prompts(form, default="calib") for form in forms]
    assert all(f == [{"kind": "prompt", "prompt": "a red circle", "id": "00000"}] for f in found)
    assert len(as_prompts(None, default="calib")) == 100
    assert len(as_prompts(None, default="demo")) == 6
    assert len(as_prompts("shapes", default="demo")) == 360


def test_devices_and_dtypes_are_names_or_torch_objects(place: Path) -> None:
    assert api.convert("tiny.st", dtype=torch.float32, output="x.st").dtypes.keys() == {"F32"}
    assert api.convert("tiny.st", dtype="float32").path.name == "tiny-fp32.st"
    images = api.sample(
        "tiny.st", TWO[:1], count=1, steps=1, device=torch.device("cpu"), dtype=torch.float32, output="a"
    )
    names = api.sample("tiny.st", TWO[:1], count=1, steps=1, device="cpu", dtype="fp32", output="b")
    assert Path(images[0]["path"]).read_bytes() == Path(names[0]["path"]).read_bytes()
    for device, dtype in ((torch.device("cpu"), torch.float32), ("cpu", "fp32")):
        judged = api.judge(images, device=device, dtype=dtype)
        assert judged[0]["verdict"] in ("yes", "no")
    blocks = api.importance("tiny.st", TWO, steps=1, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert len(blocks) == 3
    drawn = [{**images[0], "tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}]}]
    score = api.evaluate(drawn, "geneval", device=torch.device("cpu"), dtype=torch.float32)[-1]
    assert typing.cast(Any, score)["metric"] == "geneval"


def test_components_complete_a_checkpoint_that_names_none(place: Path) -> None:
    from safetensors.torch import load_file, save_file

    api.convert("tiny.st", output="bare")
    weights = Path("bare/diffusion_pytorch_model.safetensors")
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    bare = api.open_checkpoint("bare")
    with pytest.raises(api.InputError, match="components"):
        api.sample(bare, TWO[:1], count=1, steps=1, height=64, width=64)
    whole = api.open_checkpoint(bare, components="builtin:shapes")
    assert len(api.sample(whole, TWO[:1], count=1, steps=1, output="s")) == 1


def test_progress_is_silent_a_bar_or_an_object(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    class Seen(Progress):
        done = 0

        def advance(self, count: int = 1, **fields: str) -> None:
            self.done += count

    seen = Seen()
    api.sample("tiny.st", TWO, count=1, steps=1, output="a", progress=seen)
    assert seen.done == 2
    capfd.readouterr()
    api.sample("tiny.st", TWO, count=1, steps=1, output="b")
    assert capfd.readouterr() == ("", "")
    api.sample("tiny.st", TWO, count=1, steps=1, output="c", progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "sampling: 100%" in err


def test_what_a_person_should_know_is_a_warning_at_the_call(place: Path) -> None:
    with pytest.warns(UserWarning, match="fp16 holds nothing above") as told:
        api.convert("tiny.st", dtype="fp16")
    assert told[0].filename == __file__


# What goes wrong

WRONG: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: api.grow("none.st", 6), api.InputError, "none.st"),
    (lambda: api.grow("tiny.st"), api.UsageError, "number of blocks"),
    (lambda: api.grow("tiny.st", 6, init="magic"), api.UsageError, "unknown init"),
    (lambda: api.grow("tiny.st", 6, link=True), api.UsageError, "pipeline"),
    (lambda: api.grow("tiny.st", 6, seed=-1), api.UsageError, "seed"),
    (lambda: api.grow("tiny.st", 6, output="tiny.st"), api.OutputExistsError, "tiny.st"),
    (lambda: api.prune("tiny.st"), api.UsageError, "one of"),
    (lambda: api.prune("tiny.st", keep=2), api.UsageError, "no importance"),
    (lambda: api.prune("tiny.st", keep=2, importance=[]), api.InputError, "no block record"),
    (lambda: api.prune("tiny.st", keep=2, importance=[{"kind": "block"}]), api.InputError, "record 1"),
    (lambda: api.convert("tiny.st"), api.UsageError, "already"),
    (lambda: api.convert("tiny.st", dtype=torch.int8), api.UsageError, "unknown dtype 'int8'"),
    (lambda: api.importance("tiny.st", []), api.InputError, "no prompts"),
    (lambda: api.importance("tiny.st", [" "]), api.InputError, "prompt 1: is empty"),
    (lambda: api.importance("tiny.st", [{"prompt": 3}]), api.InputError, "'prompt' that is not text"),
    (lambda: api.importance("tiny.st", [3]), api.InputError, "prompt 1: a int, not a record"),  # type: ignore[list-item]
    (lambda: api.sample("tiny.st", "none.txt"), api.InputError, "none.txt"),
    (lambda: api.sample("tiny.st", TWO, count=0), api.UsageError, "at least 1"),
    (lambda: api.sample("tiny.st", TWO, steps=0), api.UsageError, "steps"),
    (lambda: api.sample("tiny.st", TWO, device="abacus"), api.UsageError, "abacus"),
    (lambda: api.sample("tiny.st", TWO, sheet="x.txt"), api.UsageError, "x.txt"),
    (lambda: api.judge([], model="oracle"), api.InputError, "no image record"),
    (lambda: api.judge([{"path": "x.png"}], model="oracle"), api.InputError, "without 'prompt'"),
    (lambda: api.judge("none.jsonl", model="oracle"), api.InputError, "none.jsonl"),
    (lambda: api.judge([], keep=1, all=True), api.UsageError, "exclude"),
    (lambda: api.judge([], model="oracle", judges=["oracle"]), api.UsageError, "exclude"),
    (lambda: api.evaluate([], "beauty"), api.UsageError, "no metric 'beauty'"),
    (lambda: api.evaluate([], "geneval", depth=3), api.UsageError, "no option 'depth'"),
    (lambda: api.finetune("tiny.st", optimizer="magic"), api.UsageError, "magic"),
    (lambda: api.finetune("tiny.st", precision=torch.float16), api.UsageError, "fp16"),
    (
        lambda: api.finetune("tiny.st", [{"path": "x.png", "prompt": "a"}], steps=1),
        api.InputError,
        "image records",
    ),
    (lambda: api.open_checkpoint(api.open_checkpoint("tiny.st"), variant="x"), api.UsageError, "open"),
    (lambda: api.filter([]), api.UsageError, "no condition"),
    (lambda: api.filter([], where=["judge_score >"]), api.UsageError, "judge_score"),
    (lambda: api.filter([], correct=True, by="x"), api.UsageError, "by is for"),
    (lambda: api.filter([], top=0), api.UsageError, "at least 1"),
    (lambda: api.geneval_prompts(seed=1), api.UsageError, "official"),
    (lambda: api.geneval_prompts(split="train", exclude="none.txt"), api.InputError, "none.txt"),
    (lambda: api.shapes_prompts(split="test"), api.UsageError, "choose one of"),
    (lambda: api.shapes_prompts(weights={"counting": -1}), api.UsageError, "counting"),
    (lambda: api.doctor(only=["disks"]), api.UsageError, "no such check"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG, ids=[str(i) for i in range(len(WRONG))])
def test_faults_are_errors_of_their_kind_and_leave_nothing(
    place: Path, call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    before = snapshot(place)
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert snapshot(place) == before


def test_a_judge_that_was_stopped_goes_on_from_its_output(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verdicts are kept as the command keeps them, where `output` is given."""
    images = api.sample("tiny.st", TWO, count=2, steps=1)
    judge = open_judge()
    stream = api.iter_judge(iter(images), model=judge, batch_size=2, output="w.jsonl")
    first = next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not Path("w.jsonl").exists()
    asked: list[int] = []
    ask = judge.judge

    def count(images: Any, records: Any) -> Any:
        asked.append(len(images))
        return ask(images, records)

    monkeypatch.setattr(judge, "judge", count)
    assert api.judge(images, model=judge, batch_size=2, output="w.jsonl")[0] == first
    assert len(Path("w.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert asked == [2]
    api.judge(images, model=judge, batch_size=2, output="again.jsonl", no_cache=True)
    api.judge(images, model=judge)  # no output: nothing is kept or looked up
    assert asked == [2, 2, 2, 4]
