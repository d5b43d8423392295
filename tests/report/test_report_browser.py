"""The report in a browser: nothing is wrong on the console, nothing sticks out, what can be clicked works, it prints."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl.checkpoint.open import open_checkpoint
from sanactl.files.images import write_png
from sanactl.records.journal import Journal
from sanactl.report import build_report
from tests.report.chromium import Tab, browser

HOSTILE = "\"'><script>console.log('ran')</script><img src=x onerror=console.log('ran')> " + "x" * 70
PROMPTS = [f"a photo of {what}" for what in ("a star", "two circles", "a red square", HOSTILE)]
NAMES = [f"run-{number}.st" for number in range(8)]


def records(folder: Path) -> Iterator[dict[str, Any]]:
    """Eight checkpoints with images, scores by task, losses; and the importance of blocks of which one dwarfs the rest."""
    rng = np.random.default_rng(0)
    for place, name in enumerate(NAMES):
        for number, prompt in enumerate(PROMPTS):
            for index in range(2):
                path = folder / f"{place}-{number}-{index}.png"
                write_png(rng.integers(0, 256, (120, 120, 3), dtype=np.uint8), path)
                shown = {"index": index, "seed": index, "steps": 20, "tag": f"task_{number}", "digest": name}
                judged = {
                    "judge": HOSTILE,
                    "rank": index,
                    "samples": 2,
                    "correct": index == 0,
                    "reason": HOSTILE,
                }
                yield {
                    "kind": "image",
                    "path": path.name,
                    "prompt": prompt,
                    "checkpoint": name,
                    **shown,
                    **judged,
                }
        tasks = {f"task_{t}": {"value": rng.random(), "ci": [0.1, 0.9], "images": 9} for t in range(6)}
        value = {"value": 0.3 + place / 20, "ci": [0.2, 0.9], "tasks": tasks, "protocol": "some rules"}
        yield {"kind": "score", "metric": "geneval", "checkpoint": name, **value, "prompts": 40, "images": 80}
        for step in range(1, 40):
            yield {
                "kind": "score",
                "metric": "train_loss",
                "checkpoint": name,
                "step": step,
                "loss": 1 / step,
            }
    for block in range(60):
        importance = 0.9 if block == 0 else 1e-4 * (block + 1)
        yield {
            "kind": "block",
            "checkpoint": NAMES[0],
            "digest": "x",
            "block": block,
            "importance": importance,
        }


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, tiny_file: Path) -> Path:
    folder = tmp_path_factory.mktemp("run")
    checkpoint = {
        "kind": "checkpoint",
        "path": "run-0.st",
        "blocks": 3,
        "parameters": 10**6,
        "bytes": 2 * 10**6,
    }
    lineage = [*open_checkpoint(tiny_file).lineage, {"command": HOSTILE, "parents": [{"name": HOSTILE}]}]
    told = [{**checkpoint, "lineage": lineage}, *records(folder)]
    return build_report(told, Journal(folder), folder / "report.html", title=f"Eight runs {HOSTILE}")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wrong_and_nothing_sticks_out(page: Path, tab: Tab, width: int) -> None:
    tab.said.clear()
    tab.open(page, width)
    assert tab.said == []
    assert tab.ask("document.documentElement.scrollWidth") == width
    clipped = """[...document.querySelectorAll('p, h1, h3, li, figure, .plot, .strip, .grid')]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('dialog, .wide')).length"""
    assert tab.ask(clipped) == 0
    # Every legend and every plot's text is to be seen, large enough to read.
    legends = "[...document.querySelectorAll('.legend li')].filter((e) => e.getBoundingClientRect().height < 10).length"
    assert tab.ask(legends) == 0
    sizes = """[...document.querySelectorAll('.plot svg[role=img] text')].map((e) => e.getBoundingClientRect())
      .filter((box) => box.width).map((box) => Math.min(box.height, box.width + 8))"""
    found = tab.ask(sizes)
    assert len(found) > 20 and min(found) > 9
    assert tab.ask("document.querySelector('.strip').getBoundingClientRect().top") < 500


def test_colours_do_not_repeat(page: Path, tab: Tab) -> None:
    tab.open(page, 1280)
    colors = tab.ask(
        "[...document.querySelectorAll('#training-loss .legend path')].map((e) => e.getAttribute('stroke'))"
    )
    assert len(colors) == len(set(colors)) == 8


def test_an_image_is_compared_with_others(page: Path, tab: Tab) -> None:
    tab.said.clear()
    tab.open(page, 1280)
    tab.click(".strip img", 1)
    assert tab.ask("closer.open")
    assert tab.ask("document.getElementById('closer-prompt').textContent") == PROMPTS[1]
    left, right = "document.getElementById('closer-a').src", "document.getElementById('closer-b').src"
    assert tab.ask(left) == tab.ask("document.querySelectorAll('.strip img')[1].src")
    assert tab.ask(right) not in ("", tab.ask(left))

    def second_is_cut() -> str:
        return str(tab.ask("getComputedStyle(document.getElementById('closer-b')).clipPath"))

    assert second_is_cut() == "none"
    tab.click("#closer-toggle")
    assert tab.ask("document.getElementById('closer-toggle').getAttribute('aria-pressed')") == "true"
    assert second_is_cut() == "inset(0px 0px 0px 50%)"
    both = "['closer-a', 'closer-b'].map((i) => document.getElementById(i).getBoundingClientRect().x)"
    assert len(set(tab.ask(both))) == 1, "one over the other"
    tab.click("#closer-slide")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight", windowsVirtualKeyCode=39)
    assert second_is_cut() != "inset(0px 0px 0px 50%)"
    tab.click("#closer-toggle")
    assert second_is_cut() == "none"
    # The other side is what the reader chooses.
    before = tab.ask(right)
    tab.ask("(() => { const s = document.getElementById('closer-right'); s.selectedIndex = (s.selectedIndex + 1) % s.length;"
            "s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert tab.ask(right) != before
    tab.click("#closer-shut")
    assert not tab.ask("closer.open")
    assert tab.said == []


def test_tables_are_sorted_and_filtered(page: Path, tab: Tab) -> None:
    tab.open(page, 1280)
    names = "[...document.querySelectorAll('#scores tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[0].innerText.split('\\n')[0].trim())"
    assert tab.ask(names) == NAMES
    tab.click("#scores th button", 1)
    assert tab.ask(names) == NAMES, "smallest score first"
    tab.click("#scores th button", 1)
    assert tab.ask(names) == NAMES[::-1]
    tab.ask(
        "(() => { const f = document.querySelector('#scores .filter'); f.value = 'RUN-3'; f.dispatchEvent(new Event('input')); })()"
    )
    assert tab.ask(names) == ["run-3.st"]


def test_marks_tell_their_values(page: Path, tab: Tab) -> None:
    tab.open(page, 1280)
    tab.point("#blocks .on-wide [data-tip^='block 7']")
    assert tab.ask("document.getElementById('tip').textContent") == "block 7: 0.0008"
    assert tab.ask("getComputedStyle(document.getElementById('tip')).visibility") == "visible"
    assert "log scale" in tab.ask("document.querySelector('#blocks .on-wide').textContent")


def test_it_prints_whole(page: Path, tab: Tab) -> None:
    """On paper no column is cut off, and no page is nearly empty."""
    tab.open(page, 690)  # A4 without its margins
    tab.call("Emulation.setEmulatedMedia", media="print")
    try:
        wide = "[...document.querySelectorAll('table, svg, pre, .grid, .strip')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length"
        assert tab.ask(wide) == 0
        assert tab.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
    lengths = content_of_pages(tab.pdf())
    assert len(lengths) > 2
    # The last may end early.
    assert min(lengths[:-1]) > 0.02 * max(lengths)


def content_of_pages(pdf: bytes) -> list[int]:
    """The bytes of drawing of each page of a PDF, unpacked."""
    objects = dict(re.findall(rb"(?ms)^(\d+) 0 obj\s(.*?)^endobj", pdf))
    pages = [body for body in objects.values() if re.search(rb"/Type\s*/Page\b", body)]
    found = []
    for body in pages:
        reference = re.search(rb"/Contents (\d+) 0 R", body)
        assert reference is not None
        stream = objects[reference[1]]
        found.append(len(zlib.decompress(stream[stream.index(b"stream") + 6 :].lstrip(b"\r\n"))))
    return found
