"""`eval judge`: figures against brute force, and the command on records of images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sanactl as package
from sanactl.judging.audit.figures import cross_fitted
from sanactl.judging.audit.gather import label_of
from sanactl.judging.calibration import Calibration, fit, read_calibrations
from tests.program import Program

SETTINGS = {"digest": "0123456789abcdef", "dtype": "float32", "dialogue": "paper", "labels": "shapes-1"}


def records(prompts: int = 12, images: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Images with verdicts of a judge that is too sure of itself, and the detector's labels."""
    rng = np.random.default_rng(seed)
    found: list[dict[str, Any]] = []
    for p in range(prompts):
        for i in range(images):
            right = bool(rng.random() < 0.5)
            z = 4 * (rng.normal() + (1 if right else -1))
            mass = 0.9 + 0.1 * rng.random()
            yes = mass / (1 + math.exp(-z))
            logs = round(math.log(yes), 6), round(math.log(mass - yes), 6)
            found.append(
                {
                    "kind": "image",
                    "path": f"{p}/{i}.png",
                    "prompt": f"prompt {p}",
                    "tag": "counting" if p % 2 else "colors",
                    "samples": images,
                    "judge": "my-judge",
                    "judge_settings": SETTINGS,
                    "verdict": "yes" if logs[0] > logs[1] else "no",
                    "yes_logprob": logs[0],
                    "no_logprob": logs[1],
                    "answer_mass": round(mass, 6),
                    "correct": right,
                    "detector": "shapes-1",
                }
            )
    return found


def write(name: str, lines: list[dict[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return name


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scores_of(found: Iterable[Any]) -> dict[str, dict[str, Any]]:
    return {r["metric"].removeprefix("judge_"): r for r in found if r["kind"] == "score"}


def test_figures_are_those_of_the_definitions(sanactl: Program) -> None:
    given = records(40)
    found = sanactl("eval", "judge", write("r.jsonl", given))
    assert [r for r in found if r["kind"] == "image"] == given
    scores = scores_of(found)
    by_prompt = [[r for r in given if r["prompt"] == f"prompt {p}"] for p in range(40)]
    right, wrong = [r for r in given if r["correct"]], [r for r in given if not r["correct"]]

    def wins(a: dict[str, Any], b: dict[str, Any]) -> bool:
        if a["verdict"] != b["verdict"]:
            return bool(a["verdict"] == "yes")
        return bool(
            a["yes_logprob"] > b["yes_logprob"]
            if a["verdict"] == "yes"
            else a["no_logprob"] < b["no_logprob"]
        )

    def p(r: dict[str, Any]) -> float:
        return 1 / (1 + math.exp(r["no_logprob"] - r["yes_logprob"]))

    auc = np.mean([wins(a, b) for a in right for b in wrong])
    within = [
        np.mean([wins(a, b) for a in images for b in images if a["correct"] and not b["correct"]])
        for images in by_prompt
        if len({r["correct"] for r in images}) == 2
    ]
    best = [next(r for r in images if not any(wins(o, r) for o in images)) for images in by_prompt]
    one = np.mean([np.mean([r["correct"] for r in images]) for images in by_prompt])
    ceiling = np.mean([any(r["correct"] for r in images) for images in by_prompt])
    precision = np.mean([r["correct"] for r in best])
    expected = np.mean([p(r) for r in best])
    halves = [np.mean([r["verdict"] == said for r in some]) for said, some in (("yes", right), ("no", wrong))]
    for name, value in {
        "auc": auc,
        "pair_accuracy": np.mean(within),
        "balanced_accuracy": np.mean(halves),
        "brier": np.mean([(p(r) - r["correct"]) ** 2 for r in given]),
        "one": one,
        "ceiling": ceiling,
        "winner_precision": precision,
        "gap_closed": (precision - one) / (ceiling - one),
        "winner_expected": expected,
        "winners_curse": expected - precision,
    }.items():
        assert scores[name]["value"] == pytest.approx(value, abs=1e-6), name
        low, high = scores[name]["ci"]
        assert low <= scores[name]["value"] + 1e-6 and scores[name]["value"] - 1e-6 <= high, name
        assert scores[name]["judge"] == "my-judge" and scores[name]["images"] == 240
        assert set(scores[name]["tasks"]) == {"colors", "counting"}
    assert scores["answer_mass"]["value"] == pytest.approx(
        np.median([r["answer_mass"] for r in given]), abs=3e-3
    )
    # Too sure: the calibration from other prompts helps.
    assert scores["calibration_error_calibrated"]["value"] < scores["calibration_error"]["value"]
    assert scores["brier_calibrated"]["value"] < scores["brier"]["value"]
    curves = scores["reliability"]["curves"]
    assert len(curves["as it is"]) == 15
    assert np.mean([pt["value"] for pt in curves["as it is"]]) == pytest.approx(
        np.mean([r["correct"] for r in given]), abs=1e-5
    )
    assert "checkpoint" not in scores["auc"]
    # The detector's labels are what this judge learned from.
    assert (
        "judge my-judge learned from, or is, the detector that labelled these images (shapes-1)"
        in sanactl.said
    )
    assert Path("judge-quality.jsonl").exists()


def test_a_prompts_own_labels_do_not_change_its_calibrated_probabilities() -> None:
    rng = np.random.default_rng(3)
    odds, groups = rng.normal(size=80), np.repeat(np.arange(8), 10)
    truth, prompts = rng.random(80) < 0.5, [f"p{n}" for n in range(8)]
    before = cross_fitted(odds, truth, prompts, groups)
    changed = truth.copy()
    changed[groups == 3] ^= True
    after = cross_fitted(odds, changed, prompts, groups)
    assert before is not None and after is not None
    assert (before[groups == 3] == after[groups == 3]).all()
    assert (before[groups != 3] != after[groups != 3]).all()
    slope, intercept = fit(odds[groups != 3], truth[groups != 3])
    own = 1 / (1 + np.exp(-slope * odds[groups == 3] - intercept))
    assert before[groups == 3] == pytest.approx(own)
    assert cross_fitted(odds, truth, ["p"], np.zeros(80, np.int64)) is None


def test_a_calibration_is_written_and_used(sanactl: Program) -> None:
    write("r.jsonl", records())
    sanactl("eval", "judge", "r.jsonl", "-c", "c.json")
    assert "wrote c.json: judge my-judge, slope" in sanactl.said
    assert "12 prompts are few for a calibration" in sanactl.said
    (found,) = read_calibrations(Path("c.json"))
    odds = np.array([r["yes_logprob"] - r["no_logprob"] for r in records()])
    slope, intercept = fit(odds, np.array([r["correct"] for r in records()]))
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert (found.judge, found.judge_digest, found.prompts, found.images) == (
        "my-judge",
        SETTINGS["digest"],
        12,
        72,
    )
    # Given probabilities are measured beside.
    given = [{**r, "calibrated": found.logs(r["yes_logprob"], r["no_logprob"])[0]} for r in records()]
    given = [{**r, "calibrated": math.exp(r["calibrated"])} for r in given]
    scores = scores_of(sanactl("eval", "judge", write("g.jsonl", given), "-o", "g-out.jsonl"))
    assert scores["brier_given"]["value"] <= scores["brier_calibrated"]["value"]
    line = sanactl.fails("eval", "judge", "r.jsonl", "-c", "c.json", "-o", "x.jsonl", code=2)
    assert "c.json already exists" in line
    sanactl("eval", "judge", "r.jsonl", "-c", "c.json", "--force")
    api = package.evaluate("r.jsonl", "judge", calibration_out="d.json")
    assert scores_of(api)["auc"]["value"] == scores["auc"]["value"] and Path("d.json").exists()


@pytest.mark.parametrize(
    ("prompt", "owner"), [("a photo of a bench", "GenEval's 553"), ("", "evaluation split")]
)
def test_no_calibration_from_evaluation_prompts(sanactl: Program, prompt: str, owner: str) -> None:
    from sanactl.shapes.prompts import load_eval_prompts

    given = records()
    given[-1]["prompt"] = prompt or load_eval_prompts()[7]["prompt"]
    write("r.jsonl", given)
    assert owner in sanactl.fails("eval", "judge", "r.jsonl", "-c", "c.json")
    assert "--calibration-out" in sanactl.fails("eval", "judge", "r.jsonl", "--evaluation-prompts", code=2)
    sanactl("eval", "judge", "r.jsonl", "-c", "c.json", "--evaluation-prompts")
    assert Path("c.json").exists()


def test_no_calibration_from_labels_that_are_all_alike(sanactl: Program) -> None:
    write("r.jsonl", [{**r, "correct": False} for r in records()])
    line = sanactl.fails("eval", "judge", "r.jsonl", "-c", "c.json")
    assert "all 72 labelled images of judge my-judge are wrong" in line


def test_flips_are_told_apart_by_what_differs(sanactl: Program) -> None:
    given = records(6, 4)
    again = [{k: v for k, v in r.items() if k not in ("correct", "detector")} for r in given]
    again[0] = {**again[0], "verdict": "no" if again[0]["verdict"] == "yes" else "yes"}
    half = [{**r, "judge_settings": {**SETTINGS, "dtype": "bfloat16"}} for r in again]
    other = [
        {**r, "verdict": "no" if r["verdict"] == "yes" else "yes",
         "judge_settings": {**SETTINGS, "dialogue": "vqascore", "digest": "x"}} for r in given
    ]  # fmt: skip
    lines = "".join(json.dumps(r) + "\n" for r in [*given, *again, *half, *other])
    found = [r for r in sanactl("eval", "judge", stdin=lines) if r.get("metric") == "judge_flips"]
    rates = {r["difference"]: r["value"] for r in found}
    assert rates["repeats"] == pytest.approx(1 / 24, abs=1e-6)
    assert rates["dtype"] == pytest.approx(0.5 / 24, abs=1e-6)
    # Two of three differ from each: the first image's repeat flipped back.
    assert rates["dialogue"] == pytest.approx((23 + 0.5) / 24, abs=1e-6)
    assert rates["dialogue, dtype"] == pytest.approx(23 / 24, abs=1e-6)


def test_labels_of_people_and_judges_of_an_ensemble(sanactl: Program) -> None:
    given = records(6, 4)
    for r in given:
        r["human"] = "yes" if r.pop("correct") else "no"
        own = {k: r[k] for k in ("judge", "verdict", "yes_logprob", "no_logprob", "answer_mass")}
        r |= {
            "judge": "mean of my-judge and b",
            "verdicts": [own, {**own, "judge": "b"}],
            "judge_settings": {"judges": [SETTINGS, {"digest": "b"}]},
        }
    found = sanactl("eval", "judge", write("r.jsonl", given), "--truth", "human", "-c", "c.json")
    aucs = {r["judge"]: r["value"] for r in found if r.get("metric") == "judge_auc"}
    assert len(aucs) == 3 and len(set(aucs.values())) == 1
    assert [c.judge for c in read_calibrations(Path("c.json"))] == ["my-judge", "b"]
    assert "learned from" not in sanactl.said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"correct": None}, "no image has both a verdict and a label in 'correct'"),
        ({"judge": None}, "no verdict of a judge in these records"),
        ({"verdict": "maybe"}, "0/0.png: a verdict in its record is damaged"),
        ({"verdicts": [{"judge": "b", "yes_logprob": "x"}]}, "0/0.png: a verdict in its record is damaged"),
        ({"judge_settings": {"judges": 5}}, "0/0.png: the 'judge_settings' of its record are damaged"),
        ({"verdicts": [{}]}, "0/0.png: a verdict in its record names no judge"),
    ],
)
def test_bad_records_are_one_line(sanactl: Program, change: dict[str, Any], said: str) -> None:
    write("r.jsonl", [{**r, **change} for r in records(2, 2)])
    assert said in sanactl.fails("eval", "judge", "r.jsonl")


def test_labels_are_yes_or_no(sanactl: Program) -> None:
    for value, label in ((1, True), ("No", False), (0.0, False), ("true", True), (None, None), ("", None)):
        assert label_of({"path": "x", "t": value}, "t") is label
    given = records(2, 2)
    given[1]["human"] = "perhaps"
    assert "'human' is 'perhaps', and not a label" in sanactl.fails(
        "eval", "judge", write("r.jsonl", given), "--truth", "human"
    )
    given = [*records(2, 2), *[{**r, "correct": not r["correct"]} for r in records(2, 2)]]
    assert "0/0.png: two records of it differ in 'correct'" in sanactl.fails(
        "eval", "judge", write("s.jsonl", given)
    )
    # A judge that is worse than chance has no calibration, and one that was selected from is told.
    turned = [{**r, "correct": not r["correct"]} for r in records()]
    line = sanactl("eval", "judge", write("t.jsonl", turned), "-c", "c.json", code=1) or sanactl.said
    assert "the slope of judge my-judge is -" in line and not Path("c.json").exists()
    sanactl("eval", "judge", write("u.jsonl", records()[::2]))
    assert "of 12 prompts some images are missing" in sanactl.said


def test_few_images_give_what_they_can(sanactl: Program) -> None:
    scores = scores_of(sanactl("eval", "judge", write("r.jsonl", records(1, 1))))
    assert scores["auc"]["value"] is None and scores["gap_closed"]["value"] is None
    assert scores["brier"]["ci"] is None and "brier_calibrated" not in scores
    assert Calibration(1.0, 0.0).logs(0.0, 0.0)[0] == pytest.approx(math.log(0.5))


def test_a_report_and_a_terminal_show_it(sanactl: Program, capsys: pytest.CaptureFixture[str]) -> None:
    from sanactl.cli.frame.render_scores import show_scores
    from sanactl.report.headline import main_scores
    from sanactl.report.run import read_run

    found = sanactl("eval", "judge", write("r.jsonl", records(8, 4)), "-o", "q.jsonl")
    show_scores(found)
    shown = capsys.readouterr().out
    assert shown.count("judge my-judge, 32 images, 8 prompts") == 1 and "pair accuracy" in shown
    run = read_run(iter(found), None)
    assert run.judges and not run.scores and main_scores(run) == {}
    sanactl("report", "q.jsonl", "-o", "page.html")
    page = Path("page.html").read_text()
    assert "reliability0" in page and "calibrated on other prompts" in page and "winners curse" in page
