"""The two parameters that turn a judge's answers into probabilities, and their file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sanactl as api
from sanactl.errors import InputError, UsageError
from sanactl.files.images import write_png
from sanactl.judging.calibration import (
    IDENTITY,
    Calibration,
    calibrate,
    calibrations_of,
    fit,
    read_calibrations,
    write_calibrations,
)
from sanactl.judging.ensemble import EnsembleJudge, mean_verdict
from sanactl.judging.registry import JUDGES
from sanactl.judging.settings import judge_digest
from sanactl.judging.tournament import Verdict
from tests.program import Program


class Named:
    def __init__(self, name: str, **identity: Any) -> None:
        self.name, self.identity = name, {"name": name, **identity}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        return []


def test_the_identity_is_the_share_of_yes() -> None:
    verdict = Verdict.of(math.log(0.3), math.log(0.1))
    assert IDENTITY.probability(verdict) == pytest.approx(0.75)
    sure = IDENTITY.logs(-1e-30, -80.0)
    assert sure[1] == pytest.approx(-80.0) and sure[0] == pytest.approx(-math.exp(-80.0))
    assert Calibration(1e4, 0.0).probability(Verdict.of(-1e6, 0.0)) == 0.0
    assert Calibration(1e300, 0.0).logs(-1e300, 0.0) == (-1e9, 0.0)


@pytest.mark.parametrize("scale", [0.2, 1.0, 1e5])
def test_the_fit_has_the_largest_likelihood(scale: float) -> None:
    rng = np.random.default_rng(1)
    odds = scale * rng.normal(1.0, 2.0, 400)
    truth = rng.random(400) < 1 / (1 + np.exp(-(0.7 * odds / scale - 1)))
    slope, intercept = fit(odds, truth)
    right = int(truth.sum())
    target = np.where(truth, (right + 1) / (right + 2), 1 / (400 - right + 2))

    def loss(a: float, b: float) -> float:
        z = a * odds + b
        return float((np.logaddexp(0, z) - target * z).sum())

    best = loss(slope, intercept)
    near = [
        loss(slope + da * 1e-3 / scale, intercept + db * 1e-3) for da in range(-2, 3) for db in range(-2, 3)
    ]
    assert min(near) == pytest.approx(best, abs=1e-9) and sum(n > best for n in near) == 24
    assert 0.4 < slope * scale < 1.1


def test_separable_and_constant_answers_have_a_fit() -> None:
    odds = np.array([-2.0, -1.0, 1.0, 2.0])
    slope, _ = fit(odds, odds > 0)
    assert 0 < slope < 10
    assert fit(odds, odds < 0)[0] < 0
    # All right: nothing but the rate can be learned, and it stays below 1.
    slope, intercept = fit(odds, np.ones(4, bool))
    assert 1 / (1 + math.exp(-intercept)) == pytest.approx(5 / 6) and slope == pytest.approx(0, abs=1e-6)
    slope, intercept = fit(np.full(4, 3.0), np.array([True, True, True, False]))
    assert slope == 1.0 and 1 / (1 + math.exp(-3 - intercept)) == pytest.approx((3 * 4 / 5 + 1 / 3) / 4)
    assert all(map(math.isfinite, fit(np.array([-1e308 / 4, 1e308 / 4]), np.array([False, True]))))


def test_one_judge_keeps_its_verdict_and_several_have_the_mean_of_calibrated_probabilities() -> None:
    one, other = Verdict.of(math.log(0.9), math.log(0.1)), Verdict.of(math.log(0.2), math.log(0.4))
    cold = Calibration(0.5, -1.0)
    found = calibrate(one, [cold])
    assert (found.verdict, found.yes_logprob, found.score) == ("yes", one.yes_logprob, one.score)
    p = cold.probability(one)
    assert found.details == {"calibrated": pytest.approx(p)} and p == pytest.approx(
        1 / (1 + math.exp(1 - 0.5 * math.log(9)))
    )
    both = calibrate(mean_verdict(["a", "b"], [one, other]), [cold, IDENTITY])
    assert math.exp(both.yes_logprob) == pytest.approx((p + 1 / 3) / 2)
    assert math.exp(both.no_logprob) == pytest.approx(1 - (p + 1 / 3) / 2)
    assert both.answer_mass == pytest.approx(0.8) and both.verdict == "no"
    assert both.details is not None
    assert [v["calibrated"] for v in both.details["verdicts"]] == pytest.approx([p, 1 / 3])


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    given = [Calibration(0.5, -1.25, "a", "00ff", 12, 96, "sha256:1"), Calibration(2.0, 0.0, "b")]
    write_calibrations(file, given)
    assert read_calibrations(file) == given
    with pytest.raises(UsageError, match="already exists"):
        write_calibrations(file, given)
    with pytest.raises(InputError, match=r"the slope of judge a is -0\.1; it must be above 0"):
        write_calibrations(tmp_path / "d.json", [Calibration(-0.1, 0.0, "a")])
    assert not (tmp_path / "d.json").exists()


GOOD = {"judge": "a", "slope": 1, "intercept": 0}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[1]", "not a calibration of a judge"),
        ('{"kind": "judge-calibration", "version": 2}', "a later version"),
        ('{"kind": "judge-calibration", "version": 1, "calibrations": []}', "without any judge"),
        ({**GOOD, "slope": "1"}, "a calibration with a 'slope' that is not a number"),
        ({**GOOD, "slope": 0}, "the slope of judge a is 0; it must be above 0"),
        ({"judge": "a", "slope": 1}, "a calibration without 'intercept'"),
        ({**GOOD, "prompts": -1}, "'prompts' that is not a whole number"),
        ('{"kind": "judge-calibration", "version": 1, "calibrations": [{"judge": "a", "slope": NaN}]}', "NaN is not a JSON number"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, text: Any, said: str) -> None:
    if isinstance(text, dict):
        text = json.dumps({"kind": "judge-calibration", "version": 1, "calibrations": [text]})
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_calibrations(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"not a regular file|cannot be read"):
        read_calibrations(tmp_path)


def test_a_calibration_of_another_judge_is_refused() -> None:
    one, two = Named("a", dialogue="x", dtype="torch.float32"), Named("b")
    digest = judge_digest(one)
    assert digest == judge_digest(Named("elsewhere/a", dialogue="x", dtype="torch.bfloat16"))
    assert digest != judge_digest(Named("a", dialogue="y", dtype="torch.float32"))
    mine, yours = Calibration(1, 0, "a", digest), Calibration(2, 0, "b")
    assert calibrations_of(EnsembleJudge([two, one]), [mine, yours]) == [yours, mine]
    assert calibrations_of(one, [Calibration(1, 0)]) == [Calibration(1, 0)]
    for judge, found, said in (
        (one, [yours], "the calibration is of judge b, and not of a"),
        (EnsembleJudge([one, two]), [mine], "there is no calibration of judge b"),
        (one, [mine, mine], "two calibrations of judge a"),
        (Named("a", dialogue="y"), [mine], "of other weights or another dialogue"),
    ):
        with pytest.raises(UsageError, match=said):
            calibrations_of(judge, found)


class Brought:
    """A judge that was loaded from a folder. A brighter image is the better one."""

    def __init__(self, folder: str) -> None:
        self.name, self.folder = folder, Path(folder)
        self.identity = {"name": folder}

    def judge(self, images: Any, records: Any) -> list[Verdict]:
        odds = [float(image.mean()) / 64 - 2 for image in images]
        return [Verdict.of(-math.log1p(math.exp(-z)), -math.log1p(math.exp(z))) for z in odds]


def test_a_calibration_in_the_judges_folder_is_used(
    tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one judge it leaves the ranking as it is; of several all have one, or none is used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(JUDGES, "brought", Brought)
    records = []
    for number, grey in enumerate([90, 250, 10]):
        write_png(np.full((8, 8, 3), grey, np.uint8), Path(f"{number}.png"))
        records.append({"kind": "image", "path": f"{number}.png", "prompt": "p", "index": number})
    text = "".join(json.dumps(r) + "\n" for r in records)

    def judged(*judges: str) -> list[Any]:
        options = [word for name in judges for word in ("--judge", f"brought:{name}")]
        return sanactl("judge", "-", "--all", "--force", *options, stdin=text)

    plain = judged("a")
    assert [r["index"] for r in plain] == [1, 0, 2] and "calibrated" not in plain[0]
    Path("a").mkdir()
    write_calibrations(Path("a/calibration.json"), [Calibration(0.5, -1.0, "fitted elsewhere")])
    found = judged("a")
    assert [{k: v for k, v in r.items() if k != "calibrated"} for r in found] == plain
    for record in found:
        odds = 0.5 * (record["yes_logprob"] - record["no_logprob"]) - 1
        assert record["calibrated"] == pytest.approx(1 / (1 + math.exp(-odds)), rel=1e-6)
    assert api.judge(records, all=True, model="brought:a") == found
    write_calibrations(Path("mine.json"), [Calibration(1.0, 0.0, "a")])
    given = sanactl("judge", "-", "--model", "brought:a", "--calibration", "mine.json", "--force", stdin=text)
    assert given[0]["calibrated"] == pytest.approx(math.exp(given[0]["yes_logprob"]))

    assert not any("calibrated" in r for r in judged("a", "b"))
    Path("b").mkdir()
    write_calibrations(Path("b/calibration.json"), [Calibration(1.0, 0.0)])
    for record in judged("a", "b"):
        own = [v["calibrated"] for v in record["verdicts"]]
        assert record["calibrated"] == pytest.approx(np.mean(own)) and own[0] != own[1]
    write_calibrations(Path("b/calibration.json"), [Calibration(1.0, 0.0, "b", "0" * 16)], force=True)
    assert not any("calibrated" in r for r in judged("a", "b"))
    assert "the calibration of judge b is of other weights or another dialogue" in sanactl.said
