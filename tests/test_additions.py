"""A judge, a detector and a metric of one's own: a class and a line each, and every command knows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sanactl.cli.app import main
from sanactl.files.images import read_image, write_png
from sanactl.judging.registry import JUDGES
from sanactl.judging.tournament import Verdict
from sanactl.records.scores import new_score
from sanactl.scoring.detectors.protocol import Detected
from sanactl.scoring.detectors.registry import DETECTORS
from sanactl.scoring.metrics.protocol import Option
from sanactl.scoring.metrics.registry import METRICS, Entry
from tests.program import Program


class ToyJudge:
    """Prefers bright pictures."""

    def __init__(self, name: str, *, least: float = 0.5, inverted: bool = False) -> None:
        self.name, self.least, self.inverted = f"toy:{name}", least, inverted
        self.identity = {"name": self.name, "least": least, "inverted": inverted}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        light = [abs(self.inverted - float(image.mean()) / 255) for image in images]
        return [Verdict("yes" if p >= self.least else "no", np.log(p + 1e-9), np.log(1 - p)) for p in light]


class ToyDetector:
    """Sees a circle in bright pictures, and notes how many images it gets at once."""

    label, digest, classes, batch_size = "toy-1", "sha256:7", frozenset({"circle"}), 2
    calls: ClassVar[list[tuple[int, Any, Any]]] = []

    def __init__(self, device: str | None = None, dtype: str | None = None) -> None:
        self.opened = (device, dtype)

    def detect(self, images: Any, classes: Any) -> list[list[Detected]]:
        self.calls.append((len(images), *self.opened))
        return [
            [Detected("circle", "red", 1.0, (0, 0, 9, 9))] if image.mean() > 127 else [] for image in images
        ]


class ToyMetric:
    """Mean brightness of images."""

    help = "Measure how bright images are."
    options = (Option("gain", "Factor of the brightness.", 1.0, float, least=0),)

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.identity = {"gain": gain}

    def evaluate(self, records: Any, *, kept: Any = None, progress: Any = None) -> Iterator[dict[str, Any]]:
        values = []
        for record in records:
            values.append(self.gain * float(read_image(Path(record["path"])).mean()))
            yield {**record, "brightness": values[-1]}
        tasks = {"all of them": {"value": values[0], "ci": None, "images": len(values)}}
        yield new_score("toy", sum(values) / len(values), ci=[1.0, 200.0], tasks=tasks, model="lamp")


@pytest.fixture
def additions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The three are registered; four pictures of one prompt, dark to bright, as lines of records."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ToyDetector, "calls", [])
    monkeypatch.setitem(JUDGES, "toy", ToyJudge)
    monkeypatch.setitem(DETECTORS, "toy", ToyDetector)
    monkeypatch.setitem(METRICS, "toy", Entry(ToyMetric, "Mean brightness of images."))
    lines = []
    for number in range(4):
        write_png(np.full((8, 8, 3), 20 + 60 * number, dtype=np.uint8), tmp_path / f"{number}.png")
        record = {
            "kind": "image", "path": f"{number}.png", "prompt": "a circle", "tag": "single_object", "samples": 4,
            "include": [{"class": "circle", "count": 1}], "checkpoint": "base.st",
        }  # fmt: skip
        lines.append(json.dumps(record))
    Path("images.jsonl").write_text("\n".join(lines) + "\n")
    return lines


def test_a_judge(additions: list[str], sanactl: Program) -> None:
    (best,) = sanactl("judge", "images.jsonl", "--model", "toy:lamp")
    assert (best["path"], best["judge"], best["verdict"]) == ("3.png", "toy:lamp", "yes")
    options = ("--judge-option", "inverted=yes", "--judge-option", "least=0.9")
    (best,) = sanactl("judge", "images.jsonl", "--model", "toy", *options)
    assert (best["path"], best["verdict"]) == ("0.png", "yes")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge-option", "loud=1"], "the judge toy has no option 'loud'; its options: inverted, least"),
        (["--judge-option", "least=x"], "option least of the judge toy is 'x'; it takes a number"),
        (
            ["--judge-option", "inverted=maybe"],
            "option inverted of the judge toy is 'maybe'; it takes true or",
        ),
        (["--judge-option", "least"], "--judge-option 'least' is not KEY=VALUE"),
        (["--judge-option", "least=1", "--judge-option", "least=2"], "least is given twice"),
        (["--device", "cpu"], "the judge toy has no option 'device'; its options: inverted, least"),
    ],
)
def test_a_wrong_option_of_a_judge_is_one_line(
    additions: list[str], sanactl: Program, options: list[str], said: str
) -> None:
    assert said in sanactl.fails("judge", "images.jsonl", "--model", "toy:lamp", *options, code=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--model", "moon:x"],
            "no judge backend 'moon' (moon:x); there are: builtin, oracle, vlm, nvila, openai, toy",
        ),
        (["--model", "builtin:moon"], "no built-in judge 'moon'; there is: builtin:shapes"),
        (["--model", "oracle:moon"], "no detector 'moon'; there are: shapes, mask2former, toy"),
        (
            ["--model", "oracle", "--trust-remote-code"],
            "has no option 'trust_remote_code'; its options: colors, device, dtype",
        ),
        (["--dtype", "fp64"], "unknown dtype 'fp64'; choose one of fp32"),
        (["--device", "cpu", "--judge-option", "device=cpu"], "the judge's device is given twice"),
    ],
)
def test_a_judge_that_is_not_there_is_one_line(
    additions: list[str], sanactl: Program, arguments: list[str], said: str
) -> None:
    assert said in sanactl.fails("judge", "images.jsonl", *arguments, code=2)


def test_a_detector(additions: list[str], sanactl: Program) -> None:
    *images, scaling, score = sanactl("eval", "geneval", "images.jsonl", "--detector", "toy")
    assert ToyDetector.calls == [(2, None, None), (2, None, None)]
    assert [r["correct"] for r in images] == [False, False, True, True]
    assert (score["metric"], score["value"], score["ci"]) == ("geneval", 0.5, None)
    assert (score["detector"], score["detector_digest"]) == ("toy-1", "sha256:7")
    again = sanactl(
        "eval", "geneval", "images.jsonl", "--detector", "toy", "--batch-size", "3", "--device", "cpu", "--dtype", "fp32"
    )  # fmt: skip
    assert ToyDetector.calls[2:] == [(3, "cpu", "fp32"), (1, "cpu", "fp32")]
    assert again == [*images, scaling, score]
    (best,) = sanactl("judge", "images.jsonl", "--model", "oracle:toy")
    assert (best["path"], best["judge"]) == ("2.png", "oracle:toy")


def test_a_stopped_detector_goes_on_where_it_was(
    additions: list[str], sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that was finished is not detected again; the rest is."""
    detect = ToyDetector.detect

    def stopped(self: ToyDetector, images: Any, classes: Any) -> list[list[Detected]]:
        if self.calls:
            raise KeyboardInterrupt
        return detect(self, images, classes)

    with monkeypatch.context() as patch:
        patch.setattr(ToyDetector, "detect", stopped)
        assert main(["eval", "geneval", "images.jsonl", "--detector", "toy"]) == 130
    assert len(ToyDetector.calls) == 1
    found = sanactl("eval", "geneval", "images.jsonl", "--detector", "toy")
    assert len(ToyDetector.calls) == 2
    assert sum(r["kind"] == "image" for r in found) == 4
    assert "2 verdicts were taken over" in sanactl.said


def test_a_metric(additions: list[str], sanactl: Program, capsys: pytest.CaptureFixture[str]) -> None:
    *images, score = sanactl("eval", "toy", "images.jsonl", "--gain", "0.5")
    assert [r["brightness"] for r in images] == [10.0, 40.0, 70.0, 100.0]
    assert score["value"] == 55.0
    assert [json.loads(line) for line in Path("toy.jsonl").read_text().splitlines()] == [*images, score]
    assert "--gain" in sanactl.fails("eval", "toy", "images.jsonl", "--gain", "-1", code=2)
    assert main(["eval", "--help"]) == 0
    assert "Mean brightness of images." in capsys.readouterr().out

    sanactl("report")
    page = re.sub(r"<[^>]*>", " ", Path("report.html").read_text())
    assert "best toy" in page
    assert re.search(r"toy overall all of them no checkpoint named lamp", " ".join(page.split()))
    assert "55.000" in page


def test_a_metrics_scores_on_a_terminal(
    additions: list[str],
    sanactl: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert main(["eval", "toy", "images.jsonl"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "of", "them", "20.000", "4"] in rows
    assert ["overall", "110.000", "1.000", "-", "200.000"] in rows
