"""The docs, held to the code: commands, options, links, named files and functions, fields of the examples.

Blocks after `<!-- run -->` are run, each page in a folder of its own, in this process.
"""

from __future__ import annotations

import ast
import contextlib
import html
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sanactl.checkpoint.builtin import asset
from sanactl.cli.app import COMMANDS, main
from sanactl.records.records import SHARD, read_records
from tests.docs_text import FENCE, Stage, fault, fences, inline, pipes

ROOT = Path(__file__).parent.parent
PAGES = [p for p in (ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING", "CHANGELOG")) if p.exists()]
PAGES += sorted((ROOT / "docs").glob("*.md"))
HEADER_KEYS = {f"sanactl.{key}" for key in ("components", "sampling", "lineage", "dropped")}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    faults = []
    for block in fences(page, "bash", "sh"):
        for one in (s for stages in pipes(block.text) for s in stages):
            if one.arguments is not None and (wrong := fault(one.arguments, whole=True)):
                faults.append(f"{' '.join(one.words)}: {wrong}")
    for span in inline(page):
        words = span.replace("|", " | ").split()
        called = words[0] == "sanactl" and len(words) > 3  # with arguments, as it would be typed
        words = words[1:] if words[0] == "sanactl" else words if words[0] in COMMANDS else []
        words = words[: words.index("|")] if "|" in words else words
        if wrong := fault(words, whole=called):
            faults.append(f"{span}: {wrong}")
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.sh")), ids=lambda p: p.name)
def test_recipes_use_options_that_exist(recipe: Path) -> None:
    # recipes/sana-1.5.sh calls sanactl by a function, which passes its arguments on.
    text = recipe.read_text(encoding="utf-8").replace("launched ", "sanactl ").replace('sanactl "$@"', "true")
    calls = [s for stages in pipes(text) for s in stages if s.arguments]
    assert not [wrong for s in calls if (wrong := fault(s.arguments or [], whole=False))]


def test_the_pages_show_every_command() -> None:
    """Options and a call: the table of options alone says nothing of what a command is for."""
    pages = [page for page in PAGES if page.name not in ("options.md", "CHANGELOG.md", "log.md")]
    calls = [s.arguments[0] for page in pages for b in fences(page, "bash", "sh") for p in pipes(b.text) for s in p if s.arguments]  # fmt: skip
    assert not set(COMMANDS) - set(calls)


def test_the_page_of_options_is_what_its_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    script = runpy.run_path(str(ROOT / "docs" / "options.py"))
    written = script["PAGE"].read_text(encoding="utf-8")
    assert written == script["page"](), "run python docs/options.py"


def test_the_recording_of_a_pipe_is_of_commands_that_exist() -> None:
    """The picture shows what docs/record_pipe.py runs: six commands, and more than one status line at once."""
    script = runpy.run_path(str(ROOT / "docs" / "record_pipe.py"))
    (stages,) = pipes(script["PIPE"])
    assert [s.arguments[0] for s in stages if s.arguments] == list(script["COMMANDS"])
    assert not [wrong for s in stages if (wrong := fault(s.arguments or [], whole=True))]
    drawn = (ROOT / "docs" / "images" / "pipe.svg").read_text(encoding="utf-8")
    shown = re.findall(r"<text[^>]*>(.*?)</text>", drawn)
    for line in script["PIPE"].splitlines():
        assert [text for text in shown if html.escape(line) in text]
    lines = [text.split()[0] if text.split() else "" for text in shown]
    together = "\n".join(line if line in script["COMMANDS"] else "" for line in lines)
    assert max(len(group.split("\n")) for group in re.findall(r"\w+(?:\n\w+)*", together)) >= 2


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """mkdocs sees broken links and anchors, and pages that the navigation leaves out."""
    pytest.importorskip("mkdocs")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = sorted((tmp_path / "site").glob("*.html"))
    assert {p.stem for p in pages} - {"404"} == {p.stem for p in (ROOT / "docs").glob("*.md")}
    # Where Markdown was not understood, its signs are left in the text.
    assert not [p.name for p in pages if re.search(r"```|<p>[^<]*\n- |<p>\|", p.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda p: p.name)
def test_headings_divide_long_lists(page: Path) -> None:
    """A list of many points is not read: 12 are the most between two headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    parts = re.split(r"^#+ .*$", text, flags=re.M)
    assert max(len(re.findall(r"^- ", part, re.M)) for part in parts) <= 12


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).strip().replace(" ", "-") for t in titles}


@each_page
def test_links_and_named_files_are_there(page: Path) -> None:
    missing = []
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            missing.append(target)
    for span in inline(page):
        if re.fullmatch(r"(\./)?(sanactl|tests|recipes|docs)/[\w./-]+", span) and not (ROOT / span).exists():
            missing.append(span)
    assert not missing, ", ".join(missing)


@each_page
def test_named_functions_are_there(page: Path) -> None:
    spans = [s for s in inline(page) if re.fullmatch(r"sanactl(\.\w+)+", s) and s not in HEADER_KEYS]
    assert not [s for s in spans if not defined(s)]


def defined(dotted: str) -> bool:
    """Whether a module, or a name at the top level of one, exists; nothing is imported."""
    path, rest = ROOT / "sanactl", dotted.split(".")[1:]
    while rest and (path / rest[0]).is_dir():
        path, rest = path / rest[0], rest[1:]
    if rest and (path / f"{rest[0]}.py").exists():
        path, rest = path / f"{rest[0]}.py", rest[1:]
    elif path.is_dir():
        path = path / "__init__.py"
    names: set[str] = set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    # What the package and its optimizers offer lazily stands under `if TYPE_CHECKING`.
    for node in [*body, *(inner for n in body if isinstance(n, ast.If) for inner in n.body)]:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names |= {t.id for t in targets if isinstance(t, ast.Name)}
        names |= {getattr(node, "name", "")}
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return not rest or (len(rest) == 1 and rest[0] in names)


def examples() -> list[Any]:
    return [json.loads(block.text) for block in fences(ROOT / "docs" / "formats.md", "json")]


def example(**wanted: Any) -> dict[str, Any]:
    """The example of formats.md with these values."""
    return next(
        e for e in examples() if isinstance(e, dict) and all(e.get(k) == v for k, v in wanted.items())
    )


def test_examples_are_records() -> None:
    lines = [json.dumps(e) for e in examples() if isinstance(e, dict) and e.get("kind") not in (None, SHARD)]
    assert len(list(read_records(lines, "formats.md"))) == len(lines) >= 7


def test_examples_have_the_fields_that_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from PIL import Image

    from sanactl.checkpoint.open import open_checkpoint
    from sanactl.cli.frame.run import checkpoint_record
    from sanactl.judging.backends.oracle import OracleJudge
    from sanactl.judging.select import judge_stream
    from sanactl.model.conditioning import SamplingSettings
    from sanactl.records.journal import Journal, Run
    from sanactl.sampling.open_folder import folder_settings
    from sanactl.sampling.sample_folder import SampleFolder
    from sanactl.scoring.geneval.evaluate import evaluate_geneval
    from sanactl.shapes.dataset import batch
    from sanactl.surgery.describe import describe
    from sanactl.surgery.grow import Growth, plan_grow

    monkeypatch.chdir(tmp_path)
    base = open_checkpoint(asset("base.st"))
    assert checkpoint_record(base).keys() == example(kind="checkpoint", path="base.st").keys()
    planned = {"kind", "path", "planned", *describe(plan_grow(base, Growth(14)))}
    assert planned == example(planned=True).keys()
    lineage = next(e for e in examples() if isinstance(e, list))
    assert plan_grow(base, Growth(14)).lineage[-1].keys() == lineage[-1].keys()
    assert plan_grow(base, Growth(14)).lineage[-1]["arguments"] == lineage[-1]["arguments"]
    settings, fp32 = SamplingSettings(), torch.float32
    images, prompts = batch(range(4), size=64)
    listed = [{**prompt, "id": str(place)} for place, prompt in enumerate(prompts[:2])]
    written = folder_settings(base, settings, 0, fp32, listed)
    assert written.keys() == example(dtype="torch.float32", seed=0).keys()

    folder = SampleFolder(tmp_path, base, settings, listed, count=2, seed=0, dtype=fp32)
    drawn = [folder.record(number) for number in range(len(folder))]
    for number, record in enumerate(drawn):
        folder.write([(record, images[number // 2])])
    with Image.open(drawn[1]["path"]) as image:
        assert json.loads(image.info["sanactl"]).keys() == example(index=1, dtype="torch.float32").keys()
    *scored, scaling, geneval = evaluate_geneval(judge_stream(iter(drawn), OracleJudge()))
    optional = {"exclude"}
    assert scored[0].keys() - optional == example(kind="image").keys()
    assert geneval.keys() == example(metric="geneval").keys()
    assert scaling.keys() == example(metric="scaling").keys()
    curves = example(metric="scaling")["curves"]
    assert {name: curve[0].keys() for name, curve in scaling["curves"].items()} == {
        name: curve[0].keys() for name, curve in curves.items()
    }
    assert next(iter(geneval["tasks"].values())).keys() == example(metric="geneval")["tasks"]["colors"].keys()

    journal = Journal(tmp_path)
    journal.append(Run("finetune", [], "0.1.0"), 1.0)
    assert next(journal.runs()).keys() == example(command="finetune").keys()


def test_marked_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handler, stdin = signal.getsignal(signal.SIGTERM), os.dup(0)
    ran = 0
    try:
        for page in PAGES:
            blocks = [b for b in fences(page, "bash", "sh", "python") if b.run]
            folder = tmp_path / page.stem
            folder.mkdir()
            monkeypatch.chdir(folder)
            if blocks and "init shapes" not in blocks[0].text:
                shutil.copyfile(asset("base.st"), "base.st")
            names = {"__name__": "docs"}  # a page's Python blocks are one program
            for block in blocks:
                ran += 1
                if block.lang == "python":
                    exec(compile(block.text, f"{page.name}, a python block", "exec"), names)
                    continue
                for stages in pipes(block.text):
                    run_pipe(
                        stages, f"{page.name}: {' | '.join(' '.join(s.words) for s in stages)}", monkeypatch
                    )
    finally:
        os.dup2(stdin, 0)
        os.close(stdin)
        signal.signal(signal.SIGTERM, handler)
    assert ran >= 3


def run_pipe(stages: list[Stage], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a pipe of sanactl commands one after the other, each with the output of the one before on stdin."""
    source = os.devnull
    for number, one in enumerate(stages):
        assert one.arguments is not None, f"{what}: a marked block holds sanactl commands only"
        target = one.into or f".stdout-{number}"
        descriptor = os.open(source, os.O_RDONLY)
        os.dup2(descriptor, 0)
        os.close(descriptor)
        monkeypatch.setattr(sys, "argv", ["sanactl", *one.arguments])
        with open(target, "w", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
            code = main(one.arguments)
        assert code == 0, f"{what}: exit code {code}"
        source = target


def test_error_lines_of_troubleshooting_are_the_programs() -> None:
    """Three words in a row of a message, and of a hint, stand in the source; names and numbers between are examples."""
    source = " ".join(p.read_text(encoding="utf-8") for p in (ROOT / "sanactl").rglob("*.py"))
    # Strings that go on in the next line of source.
    source = " ".join(re.sub(r'"\s*\n\s*f?"', "", source).split())
    lines = [
        line.removeprefix("sanactl: ")
        for block in fences(ROOT / "docs" / "troubleshooting.md", "text")
        for line in block.text.splitlines()
        if "Torch not compiled" not in line  # torch's own words
    ]
    assert len(lines) > 20
    made_up = []
    for part in (part for line in lines for part in line.split("; ")):
        words = part.split()
        windows = [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
        listed = part.startswith("its options: ")
        if len(words) > 5 and not listed and not any(window in source for window in windows):
            made_up.append(part)
    assert not made_up
