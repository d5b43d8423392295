"""Several judges as one."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sanactl import iter_judge
from sanactl.files.images import write_png
from sanactl.judging.calibration import Calibration, write_calibrations
from sanactl.judging.ensemble import mean_verdict
from sanactl.judging.registry import JUDGES, open_judges
from sanactl.judging.tournament import Verdict
from tests.program import Program


class Channel:
    """The brighter in its channel (0 red, 1 green, 2 blue) the better."""

    def __init__(self, rest: str, *, gain: float = 1.0, loud: bool = False) -> None:
        self.name, self.channel, self.gain = f"channel:{rest}", int(rest), gain
        self.identity = {"name": self.name, "gain": gain, "loud": loud}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        found = [self.gain * float(image[0, 0, self.channel]) / 256 + 1e-3 for image in images]
        return [Verdict.of(math.log(p), math.log(0.999 - p)) for p in found]


class Broken(Channel):
    """NaN for every image."""

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        return [Verdict("no", math.nan, -0.1) for _ in images]


class Mute(Channel):
    """Puts its probability on neither answer."""

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        return [Verdict.of(-4.0, -5.0) for _ in images]


class Quiet(Channel):
    def __init__(self, rest: str, *, device: str = "cpu") -> None:
        super().__init__(rest or "0")


COLORS = ((200, 20, 0), (120, 130, 0), (10, 210, 0), (90, 90, 0))


@pytest.fixture(autouse=True)
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, opener in (("channel", Channel), ("broken", Broken), ("quiet", Quiet), ("mute", Mute)):
        monkeypatch.setitem(JUDGES, name, opener)
    lines = []
    for number, color in enumerate(COLORS):
        write_png(np.full((8, 8, 3), color, np.uint8), tmp_path / f"{number}.png")
        lines.append(json.dumps({"kind": "image", "path": f"{number}.png", "prompt": "a heart"}))
    Path("images.jsonl").write_text("\n".join(lines))


def test_the_mean_of_probabilities_counts(sanactl: Program) -> None:
    found = sanactl("judge", "images.jsonl", "--all", "--judge", "channel:0", "--judge", "channel:1")
    assert [r["path"] for r in found] == ["1.png", "0.png", "2.png", "3.png"]
    for r in found:
        red, green, _ = COLORS[int(r["path"][0])]
        assert r["judge"] == "mean of channel:0 and channel:1"
        assert math.exp(r["yes_logprob"]) == pytest.approx((red + green) / 512 + 1e-3)
        assert math.exp(r["no_logprob"]) == pytest.approx(0.998 - (red + green) / 512)
        assert r["answer_mass"] == pytest.approx(0.999)
        assert [v["judge"] for v in r["verdicts"]] == ["channel:0", "channel:1"]
        assert [math.exp(v["yes_logprob"]) for v in r["verdicts"]] == pytest.approx(
            [red / 256 + 1e-3, green / 256 + 1e-3]
        )
    # One judge's later verdict does not keep the verdicts of several.
    (best,) = sanactl("judge", "judge.jsonl", "--judge", "channel:0")
    assert best["path"] == "0.png" and "verdicts" not in best


def test_the_oracle_among_the_judges_is_named() -> None:
    """Its verdicts are the labels, so a score of the winners is no longer about the judges."""
    mean = open_judges(["channel:0", "oracle"])
    assert "oracle gives the labels of eval geneval" in (getattr(mean, "notice", None) or "")
    assert getattr(open_judges(["channel:0", "channel:1"]), "notice", None) is None


def test_a_judge_that_does_not_answer_is_named(sanactl: Program) -> None:
    sanactl("judge", "images.jsonl", "--judge", "channel:0", "--judge", "mute:1")
    (line,) = [line for line in sanactl.said.splitlines() if "warning" in line]
    assert "judge channel:1 puts less than half of its probability on yes and no for 4 of 4 images" in line


def test_a_stopped_run_keeps_each_verdict(sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("judge", "images.jsonl", "--all", "-b", "2", "--judge", "channel:0", "--judge", "channel:1")
    whole = sanactl(*command, "-o", "whole.jsonl")
    shutil.rmtree(".sanactl")
    judge, asked = Channel.judge, []

    def stopped(self: Channel, images: Any, records: Any) -> list[Verdict]:
        asked.append(len(images))
        if len(asked) == 3:
            raise KeyboardInterrupt
        return judge(self, images, records)

    monkeypatch.setattr(Channel, "judge", stopped)
    sanactl(*command, code=130)
    asked.extend([0] * 3)
    assert sanactl(*command) == whole
    assert asked[6:] == [2, 2]
    assert "2 verdicts are taken over" in sanactl.said
    # Each judge's verdicts are its own: alone it is not asked again, with another judge only that one is.
    assert len(sanactl("judge", "images.jsonl", "--all", "--judge", "channel:1")) == 4
    assert asked[8:] == []
    sanactl("judge", "images.jsonl", "--all", "--judge", "channel:1", "--judge", "channel:2")
    assert asked[8:] == [4]


def test_calibrated_probabilities_have_their_mean(sanactl: Program) -> None:
    red, green = Calibration(2.0, 0.0, "channel:0"), Calibration(0.5, 1.0, "channel:1")
    write_calibrations(Path("red.json"), [red])
    write_calibrations(Path("both.json"), [green, red])
    several = ("judge", "images.jsonl", "--all", "--judge", "channel:0", "--judge", "channel:1")
    found = sanactl(*several, "--calibration", "both.json")
    for r in found:
        logs = [(v["yes_logprob"], v["no_logprob"]) for v in r["verdicts"]]
        own = [c.probability(Verdict.of(*log)) for c, log in zip((red, green), logs, strict=True)]
        assert [v["calibrated"] for v in r["verdicts"]] == pytest.approx(own)
        assert r["calibrated"] == pytest.approx(sum(own) / 2) == pytest.approx(math.exp(r["yes_logprob"]))
    ranks = [r["calibrated"] for r in found]
    assert ranks == sorted(ranks, reverse=True)
    # One judge's ranking stays.
    plain = sanactl("judge", "images.jsonl", "--all", "--judge", "channel:0", "-o", "plain.jsonl")
    (calibrated,) = [
        sanactl(
            "judge",
            "images.jsonl",
            "--all",
            "--judge",
            "channel:0",
            "--calibration",
            "red.json",
            "-o",
            "c.jsonl",
        )
    ]
    assert [{k: v for k, v in r.items() if k != "calibrated"} for r in calibrated] == plain
    assert "no calibration of judge channel:1" in sanactl.fails(*several, "--calibration", "red.json", code=2)
    assert "none.json: no such" in sanactl.fails(*several, "--calibration", "none.json")
    api = iter_judge("images.jsonl", judges=["channel:0", "channel:1"], all=True, calibration=["both.json"])
    assert list(api) == found


def test_options_go_to_those_that_have_them(sanactl: Program) -> None:
    judges = ("--judge", "channel:0", "--judge", "quiet", "--judge", "channel:1")
    options = ("--judge-option", "gain=0.5", "--judge-option", "3.gain=0.25", "--device", "cpu")
    found = sanactl("judge", "images.jsonl", "--all", *judges, *options)
    first = next(r for r in found if r["path"] == "0.png")
    values = [math.exp(v["yes_logprob"]) for v in first["verdicts"]]
    assert values == pytest.approx([100 / 256 + 1e-3, 200 / 256 + 1e-3, 5 / 256 + 1e-3])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--judge", "channel:0", "--model", "oracle"], "--model and --judge exclude each other"),
        (["--judge", "channel:0", "--judge", "channel:0"], "the judge channel:0 is named twice"),
        (
            ["--judge", "channel:0", "--judge", "quiet", "--judge-option", "moon=1"],
            "none of the judges has an option 'moon'; their options: device, gain, loud",
        ),
        (["--judge", "channel:0", "--judge", "quiet", "--judge-option", "2.gain=1"], "the judge quiet has no option 'gain'"),
        (["--judge", "channel:0", "--judge", "quiet", "--judge-option", "3.gain=1"], "none of the judges has an option '3.gain'"),
        (["--judge", "channel:0", "--judge", "moon:x"], "no judge backend 'moon'"),
    ],
)  # fmt: skip
def test_wrong_ensembles_are_one_line(sanactl: Program, arguments: list[str], said: str) -> None:
    assert said in sanactl.fails("judge", "images.jsonl", *arguments, code=2)


def test_bad_input_is_one_line(sanactl: Program) -> None:
    several = ("--judge", "channel:0", "--judge", "broken:1")
    line = sanactl.fails("judge", "images.jsonl", *several)
    assert "judge channel:1 gives NaN or no log-probability for 0.png" in line
    line = sanactl.fails("judge", "images.jsonl", "--judge", "broken:1")
    assert "judge channel:1 gives NaN or no log-probability for 0.png" in line
    Path("2.png").unlink()
    assert "2.png: no such image" in sanactl.fails("judge", "images.jsonl", "--judge", "channel:0")


def test_small_probabilities_keep_their_digits() -> None:
    v = mean_verdict(["a", "b"], [Verdict.of(-1000.0, -1e-20), Verdict.of(-1001.0, -1e-20)])
    assert v.yes_logprob == pytest.approx(-1000 + math.log((1 + math.exp(-1)) / 2))
    assert v.verdict == "no" and v.answer_mass == 1.0
