"""The report as a browser gets it: whole, self-contained, inert whatever its records say, and under 5 MB."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest

from sanactl.errors import OutputExistsError
from sanactl.files.images import write_png
from sanactl.records.journal import Journal, Run
from sanactl.report import build_report
from sanactl.scoring.geneval.evaluate import evaluate_geneval
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render

VOID = {"meta", "img", "br", "input"}
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
HOSTILE += "&amp;$\\frac{a}{0}$ --> ]]> \u202e\ud800\x00\x1b[31m"


class Page(HTMLParser):
    """Collects what a page would run or fetch, its ids and text; its elements must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.handlers: list[str] = []
        self.shots = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.shots += tag == "figure" and "shot" in str(dict(attrs).get("class"))
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.links.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def scored(folder, checkpoint, prompts, images, rng):
    """Image records with verdicts, a judge's scores and ranks, and the scores of all and of the winners."""
    records = []
    for prompt in prompts:
        for index in range(images):
            other = prompts[int(rng.integers(len(prompts)))]
            path = folder / f"{checkpoint}-{prompt['id']}-{index}.png"
            write_png(render(scene_for(other if rng.random() < 0.4 else prompt, rng), 64), path)
            record = {
                "kind": "image",
                "path": path.name,
                "checkpoint": checkpoint,
                "steps": 20,
                "seed": index,
            }
            judged = {"judge": "tiny", "judge_score": float(rng.random()), "samples": images}
            records.append({**prompt, **record, **judged, "prompt_id": prompt["id"]})
    for prompt in prompts:
        mine = [r for r in records if r["id"] == prompt["id"]]
        for place, record in enumerate(sorted(mine, key=lambda r: -r["judge_score"])):
            record["rank"] = place
    return [*evaluate_geneval(iter(records)), *evaluate_geneval(r for r in records if r["rank"] == 0)]


def blocks(name, count):
    return [
        {
            "kind": "block",
            "checkpoint": name,
            "digest": f"sha256:{name}",
            "block": b,
            "importance": 0.1 + b % 3,
        }
        for b in range(count)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def records(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        rng = np.random.default_rng(0)
        prompts = load_eval_prompts()[::60][:6]
        images = scored(folder, "base.st", prompts, 3, rng) + scored(folder, "grown.st", prompts, 3, rng)
    losses = [
        {
            "kind": "score",
            "metric": "train_loss",
            "checkpoint": "grown.st",
            "step": s,
            "loss": 1 / s,
            "lr": 1e-4,
        }
        for s in range(1, 50)
    ]
    entry = {"command": "prune", "arguments": {"blocks": [0, 1, 2, 7]}, "seed": None, "blocks": 4}
    pruned = {
        "kind": "checkpoint",
        "path": "pruned.st",
        "lineage": [{**entry, "parents": [{"name": "grown", "digest": "sha256:grown.st"}]}],
    }
    other = {"kind": "score", "metric": "fid", "checkpoint": "base.st", "value": 23.4}
    point = {"n": 1, "judge": None, "judge_ci": None, "oracle": 0.5, "oracle_ci": [0.4, 0.6]}
    scaling = {
        "kind": "score",
        "metric": "scaling",
        "checkpoint": "base.st",
        "judge": "other",
        "points": [point],
    }
    return [scaling, *images, *losses, *blocks("grown.st", 8), pruned, other]


@pytest.fixture(scope="module")
def journal(folder):
    journal = Journal(folder)
    argv = ["judge", "--api-key", "sk-secret", "--hf-token=hf_secret", "--keep", "4", "a b.jsonl"]
    (folder / "kept.jsonl").touch()
    journal.append(Run("judge", argv, "0.1.0", 7, None, [], [{"path": "kept.jsonl", "kind": "image"}]), 1.5)
    return journal


@pytest.fixture(scope="module")
def text(records, journal, folder):
    return build_report(records, journal, folder / "report.html", title="One run").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def only_its_own_script(text, page):
    """The page runs one script, ours, and its policy lets a browser run no other."""
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}]
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert f"script-src 'sha256-{digest}';" in policy
    return True


def plots_of(text):
    return re.findall(r'<div class="on-wide">(<svg .*?</svg>)</div>', text, flags=re.DOTALL)


def test_the_page_needs_nothing_but_itself(text, page):
    assert not [tag for tag, _ in page.tags if tag in ("link", "iframe", "object", "base")]
    assert only_its_own_script(text, page)
    assert not page.handlers
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert "@import" not in text
    assert "http://" not in text.replace("http://www.w3.org/", "")
    assert not re.search(r"url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "prefers-color-scheme: dark" in text
    assert "default-src 'none'" in text
    assert len(text.encode()) < 5_000_000


def test_every_section_has_what_the_records_say(page):
    for words in (
        "One run",
        "best of 3 by tiny",
        "Other measurements metric checkpoint value of FID base.st 23.400",
        "grown.st: 8 blocks, 4 kept by pruning",
        "prune blocks=0-2,7, 4 blocks",
        "images per prompt",
        "lineage unknown why base.st not here",
        "sanactl judge --api-key … --hf-token=… --keep 4 'a b.jsonl'",
    ):
        assert words in page.text, words
    assert "secret" not in page.text
    assert "base.st, judge other" in page.text
    assert "\ufffd" not in page.text
    assert page.text.count("GenEval") >= 2
    assert "No " not in page.text


def test_plots_are_well_formed_and_take_the_pages_ink(text):
    plots = plots_of(text)
    narrow = re.findall(r'<div class="on-narrow">(<svg .*?</svg>)</div>', text, flags=re.DOTALL)
    assert len(plots) == len(narrow) == 4
    for plot in [*plots, *narrow]:
        svg = ElementTree.fromstring(plot)
        assert svg.get("aria-label")
        assert "currentColor" in plot
        assert "#1b1f24" not in plot
        assert [e for e in svg.iter() if e.tag.endswith("}text")], "text is text, not outlines"
        tips = [e.get("data-tip") for e in svg.iter() if e.get("class") == "tip"]
        assert tips and all(re.search(r"\d", str(tip)) for tip in tips), "marks tell their values"


def test_grids_show_verdicts_and_mark_the_winners(page):
    figures = [a for tag, a in page.tags if tag == "figure" and "data-prompt" in a]
    images = [a for tag, a in page.tags if tag == "img" and "src" in a]
    # The grids' 36, and in the strip 6 prompts by 2 checkpoints and the judge's choice of the newest.
    assert len(figures) == len(images) == page.shots == 36 + 18
    assert sum("winner" in a["class"].split() for a in figures) == 12 + 6
    assert page.text.count("★ winner") == 12
    assert page.text.count("✓ correct") + page.text.count("✗") == 36 + 18
    assert all(a["class"] == "small" and a["alt"].startswith("seed ") for a in images)


def test_the_same_records_give_the_same_bytes(text, records, journal, folder, tmp_path):
    again = build_report(records, journal, tmp_path / "again.html", title="One run")
    assert again.read_text(encoding="utf-8") == text
    with pytest.raises(OutputExistsError):
        build_report(records, journal, again)
    assert build_report(records, journal, again, force=True) == again


def test_an_empty_run_says_what_is_missing_and_what_makes_it(tmp_path):
    page = Page(build_report([], None, tmp_path / "empty.html").read_text(encoding="utf-8"))
    for words in (
        "No scores",
        "No image records",
        "No curves",
        "No block records",
        "No training records",
    ):
        assert words in page.text
    for words in ("No checkpoints", "No journal", "No runs", "sanactl finetune writes them"):
        assert words in page.text


def test_missing_and_broken_images_are_said(tmp_path, records):
    (tmp_path / "broken.png").write_bytes(b"no image")
    names = ["gone.png", "broken.png", "../..", "a\0b", "x" * 5000]
    images = [{"kind": "image", "path": name, "prompt": "a cat"} for name in names]
    journal = Journal(tmp_path)
    page = Page(build_report(images, journal, tmp_path / "report.html").read_text(encoding="utf-8"))
    # Each in its grid, and one in the strip.
    assert page.text.count("image not found or not readable") == len(names) + 1


def test_hostile_text_stays_text_everywhere(tmp_path, records):
    def poison(value, key=""):
        if isinstance(value, dict):
            return {k: poison(v, k) for k, v in value.items()} | {HOSTILE: HOSTILE}
        if isinstance(value, list):
            return [poison(v, key) for v in value]
        return (
            f"{value}{HOSTILE}"
            if isinstance(value, str) and key not in ("kind", "metric", "command")
            else value
        )

    hostile = [poison(record) for record in records]
    hostile += [{"kind": "score", "metric": HOSTILE, "value": 1.0, "checkpoint": HOSTILE}]
    hostile += [{"kind": "checkpoint", "path": HOSTILE}]
    journal = Journal(tmp_path)
    outputs = [{"path": HOSTILE.replace("\ud800", "").replace("\0", ""), "kind": "checkpoint"}]
    journal.append(
        Run("grow", ["grow", HOSTILE.replace("\ud800", "")], HOSTILE[:20], 0, None, [], outputs), 1.0
    )
    text = build_report(hostile, journal, tmp_path / "report.html", title=HOSTILE).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.handlers
    assert "\0" not in text
    assert "\x1b" not in text
    assert only_its_own_script(text, page)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    assert page.text.count("<script>alert(1)</script>") > 20
    for plot in [*plots_of(text), *re.findall(r'<svg class="graph".*?</svg>', text, flags=re.DOTALL)]:
        ElementTree.fromstring(plot)


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "score", "metric": "geneval", "overall": float("nan"), "tasks": 3},
        {
            "kind": "score",
            "metric": "geneval",
            "overall": 0.5,
            "tasks": {"a": 1, "b": {"score": "x", "ci": [1]}},
        },
        {"kind": "score", "metric": "geneval", "value": 0.5, "tasks": {"b": {"value": "x", "ci": [1]}}},
        {"kind": "score", "metric": "x", "value": -3e7, "ci": [-4e7, 2], "tasks": {"b": {"value": 1e300}}},
        {"kind": "score", "metric": "x", "curves": {"a": [{"at": 0, "value": 1}, 7, {"at": True}], "b": 3}},
        {"kind": "score", "metric": "x", "curves": {"a": [{"at": 3, "value": 1, "ci": "x"}]}, "axis": None},
        {"kind": "score", "metric": "scaling", "points": [{"n": 0, "oracle": 1}, 7, {"n": True}]},
        {"kind": "score", "metric": "train_loss", "step": "x", "loss": None},
        {"kind": "block", "checkpoint": "a", "digest": "d", "block": 0, "importance": float("inf")},
        {"kind": "block", "checkpoint": "a", "digest": "d", "block": 10**30, "importance": 1},
        {"kind": "checkpoint", "path": "a\0b"},
        {
            "kind": "checkpoint",
            "path": "a",
            "lineage": [{"parents": 3, "arguments": [], "command": "prune"}, 4],
        },
        {"kind": "image", "path": "a", "prompt": "b", "tag": {"x": 1}, "judge_score": 10**400, "rank": "1"},
    ],
)
def test_odd_records_do_not_break_the_page(tmp_path, record):
    Page(build_report([record], None, tmp_path / "report.html").read_text(encoding="utf-8"))
