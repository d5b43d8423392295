"""Scores on a terminal: of whatever metric, whole or with fields missing."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sanactl.cli.frame.render_scores import show_scores

TASKS = {
    "kind": "score", "metric": "geneval", "value": 0.75, "ci": [0.5, 1.0], "images": 8, "checkpoint": "base.st",
    "tasks": {"colors": {"value": 0.5, "ci": [0.25, 0.875], "images": 4}},
}  # fmt: skip
SCALING = {
    "kind": "score", "metric": "scaling", "value": 0.5, "images": 8, "axis": "images per prompt",
    "curves": {"judge": [{"at": 4, "value": 0.625}],
               "oracle": [{"at": 1, "value": 0.5, "ci": [0.3, 0.7]}, {"at": 4, "value": 0.9, "ci": None}]},
}  # fmt: skip
FID = {
    "kind": "score",
    "metric": "fid",
    "value": 12.3456,
    "ci": [11, 13.5],
    "images": 30_000,
    "model": "inception",
}
PSNR = {"kind": "score", "metric": "vae_psnr", "value": 40.4, "unit": "dB"}


def shown(capsys: pytest.CaptureFixture[str], *records: dict[str, Any]) -> list[list[str]]:
    show_scores(list(records))
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_each_metric_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    image = {"kind": "image", "path": "a.png", "prompt": "a star"}
    lines = shown(capsys, image, TASKS, SCALING, FID, PSNR)
    assert ["colors", "0.500", "0.250", "-", "0.875", "4"] in lines
    assert ["overall", "0.750", "0.500", "-", "1.000"] in lines
    assert ["1", "0.500", "0.300", "-", "0.700"] in lines
    assert ["4", "0.625", "0.900"] in lines
    assert ["fid", "12.346", "11.000", "-", "13.500", "images", "30,000,", "model", "inception"] in lines
    assert ["vae_psnr", "40.400", "dB"] in lines
    assert not any("a.png" in line for line in lines)


def test_scores_of_earlier_versions_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {"colors": {"score": 0.5, "ci": [0.25, 0.875], "images": 4}}
    old = {
        "kind": "score",
        "metric": "geneval",
        "overall": 0.75,
        "ci": [0.5, 1.0],
        "images": 8,
        "tasks": tasks,
    }
    scaling = {
        "kind": "score", "metric": "scaling", "single": 0.5, "single_ci": [0.3, 0.7], "images": 8,
        "points": [{"n": 1, "judge": None, "oracle": 0.5, "oracle_ci": [0.3, 0.7]}],
    }  # fmt: skip
    lines = shown(capsys, old, scaling, {"kind": "score", "metric": "vae_psnr", "overall": 40.4})
    assert ["colors", "0.500", "0.250", "-", "0.875", "4"] in lines
    assert ["overall", "0.750", "0.500", "-", "1.000"] in lines
    assert ["1", "0.500", "0.300", "-", "0.700"] in lines
    assert ["vae_psnr", "40.400"] in lines


def test_ranks_are_counted_from_one(capsys: pytest.CaptureFixture[str]) -> None:
    from sanactl.cli.frame.render import show_images

    show_images([{"kind": "image", "path": f"{n}.png", "prompt": "a star", "rank": n} for n in range(2)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(row[0], row[-1]) for row in rows] == [("0.png", "1"), ("1.png", "2")]


def test_nothing_is_shown_where_there_is_no_score(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys) == []


def test_fields_may_be_missing_or_null(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(0)
    for _ in range(200):
        record = dict(rng.choice([TASKS, SCALING, FID, PSNR]))
        for name in [n for n in record if n not in ("kind", "metric")]:
            roll = rng.random()
            if roll < 0.2:
                del record[name]
            elif roll < 0.4:
                record[name] = None
        assert shown(capsys, record)
