"""The best choice for a budget: offers, front and choice on made-up records whose costs and scores are known, and through the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sanactl.errors import InputError, UsageError
from sanactl.records.journal import Journal, Run
from sanactl.records.records import dumps
from sanactl.scoring.budget.amounts import read_amount
from sanactl.scoring.budget.buy import buy
from sanactl.scoring.geneval.scaling import first_hit_record, scaling_record

PROMPTS, IMAGES = 12, 4


def pool(
    name: str, right: float, steps: int, flops: float, *, sharp: float = 3.0, seed: int = 0
) -> list[dict]:
    """Scored and judged images: a share is right, and the judge is as good as `sharp`."""
    rng = np.random.default_rng(seed)
    records = []
    for prompt in range(PROMPTS):
        found = rng.random(IMAGES) < right
        logits = rng.normal(size=IMAGES) + sharp * (found - 0.5)
        order = np.argsort(-logits)
        for index in range(IMAGES):
            records.append(
                {
                    "kind": "image",
                    "path": f"{name}-samples/{prompt:05d}/samples/{index:04d}.png",
                    "prompt": f"prompt {prompt}",
                    "prompt_id": str(prompt),
                    "tag": ("colors", "counting")[prompt % 2],
                    "samples": IMAGES,
                    "checkpoint": f"{name}.st",
                    "digest": f"sha256:{name}",
                    "steps": steps,
                    "judge": "tiny",
                    "verdict": "yes" if logits[index] > 0 else "no",
                    "judge_score": float(logits[index]),
                    "rank": int(np.flatnonzero(order == index)[0]),
                    "correct": bool(found[index]),
                    "flops": flops,
                    "judge_flops": 1.0,
                }
            )
    return records


SMALL, LARGE = pool("small", 0.4, 6, 10.0), pool("large", 0.7, 20, 100.0, seed=1)


def chosen(front: list[dict]) -> dict:
    (found,) = [r for r in front if r["chosen"]]
    return found


def test_the_choice_is_the_best_within_the_budget() -> None:
    """By brute force over all offers, whose scores are those of the scaling scores."""
    offers = []
    for records in (SMALL, LARGE):
        for point in scaling_record(records)["curves"]["judge"]:
            offers.append((point["cost"]["flops"], point["value"], records[0]["checkpoint"], point["at"]))
    for budget in (10, 25, 60, 100, 250, 1e9):
        front = buy([*SMALL, *LARGE], "flops", budget)
        best = chosen(front)
        value = max(v for cost, v, _, n in offers if cost <= budget and n != 3)
        # All numbers of images are offered, and not powers of two alone.
        assert best["value"] >= value - 1e-6 and best["cost"]["flops"] <= budget
        costs, values = [r["cost"]["flops"] for r in front], [r["value"] for r in front]
        assert costs == sorted(costs) and values == sorted(values) and len(set(values)) == len(values)
    assert chosen(buy([*SMALL, *LARGE], "flops", 10))["selection"] == "single"
    assert chosen(buy([*SMALL, *LARGE], "images", 1))["checkpoint"] == "large.st"
    assert (
        best["prompts"] == PROMPTS and best["n"] > 1 and best["selection"] == f"best-of-{best['n']} by tiny"
    )


def test_no_offer_needs_to_know_what_is_right() -> None:
    """Without a judge there is one image to buy; the oracle's best is for nobody."""
    unjudged = [
        {k: v for k, v in r.items() if k not in ("judge", "rank", "judge_score", "verdict")} for r in LARGE
    ]
    (only,) = buy(unjudged, "flops", 1e9)
    assert only["selection"] == "single" and only["cost"] == {"images": 1, "flops": 100.0}
    best = max(r["value"] for r in buy([*SMALL, *LARGE], "flops", 1e9))
    assert best <= scaling_record(LARGE)["curves"]["oracle"][-1]["value"]


def test_how_sure_the_choice_is() -> None:
    best = chosen(buy([*SMALL, *LARGE], "flops", 1e9))
    assert 0 <= best["held_out"] <= best["value"] + 1e-9
    other = best["runner_up"]
    assert other["checkpoint"] == "small.st" and other["difference"] == pytest.approx(
        best["value"] - other["value"]
    )
    assert other["ci"][0] <= other["difference"] <= other["ci"][1]
    # A copy of the same images is as good on every prompt.
    copy = [
        {**r, "checkpoint": "copy.st", "digest": "sha256:copy", "path": f"copy/{r['path']}"} for r in LARGE
    ]
    assert chosen(buy([*LARGE, *copy], "flops", 1e9))["runner_up"]["ci"] == [0.0, 0.0]


def test_scores_alone_give_the_same_choice() -> None:
    scores = [scaling_record(r) for r in (SMALL, LARGE)]
    for budget in (10, 45, 1e9):
        whole, alone = (chosen(buy(r, "flops", budget)) for r in ([*SMALL, *LARGE], scores))
        if whole["n"] != 3:
            assert {k: alone[k] for k in ("value", "ci", "cost", "selection")} == {
                k: whole[k] for k in ("value", "ci", "cost", "selection")
            }
        assert "held_out" not in alone
    told: list[str] = []
    buy(scores, "flops", 1e9, tell=told.append)
    assert "no score of a choice on prompts that it has not seen" in told[-1]
    # Images count where both are there.
    assert buy([*scores, *SMALL, *LARGE], "flops", 1e9) == buy([*SMALL, *LARGE], "flops", 1e9)


def test_a_search_can_be_bought() -> None:
    plain, search = (buy([*SMALL, *LARGE], "flops", 150.0, round=r) for r in (None, 1))
    assert chosen(search)["value"] >= chosen(plain)["value"]
    assert any(r["selection"].startswith("first yes") for r in search)
    found = [scaling_record(LARGE), first_hit_record(LARGE)]
    assert any(r["selection"].startswith("first yes") for r in buy(found, "flops", 1e9))


def test_the_best_two_of_four() -> None:
    front = buy([*SMALL, *LARGE], "images", 4, top=2)
    assert {r["selection"] for r in front} <= {"2 images", "best 2 of 3 by tiny", "best 2 of 4 by tiny"}
    assert front[0]["cost"]["images"] == 2


@pytest.mark.parametrize(
    ("records", "axis", "budget", "fault"),
    [
        (
            SMALL,
            "flops",
            9.0,
            "nothing fits into 9 FLOPs a prompt: the cheapest is small.st, 6 steps, one image with 10",
        ),
        (SMALL, "seconds", 9.0, "no seconds are known of small.st, 6 steps"),
        ([{k: v for k, v in r.items() if k != "flops"} for r in SMALL], "flops", 9.0, "no FLOPs are known"),
        ([{k: v for k, v in r.items() if k != "correct"} for r in SMALL], "images", 9.0, "no scored images"),
        ([], "images", 9.0, "no scored images"),
        (
            [*SMALL, *({**r, "prompt": "other", "prompt_id": r["prompt_id"] + "x"} for r in LARGE)],
            "images",
            9,
            "different",
        ),
        (
            [*SMALL, {**scaling_record(LARGE), "prompts_digest": "sha256:0"}],
            "images",
            9.0,
            "different prompts",
        ),
        ([r for r in SMALL if r["rank"] == 0], "images", 9.0, "no scored images"),
    ],
)
def test_what_cannot_be_bought(records, axis, budget, fault) -> None:
    with pytest.raises(InputError, match=fault):
        buy(records, axis, budget)


def test_prompts_that_not_all_have_are_left_out() -> None:
    said: list[str] = []
    fewer = [r for r in LARGE if r["prompt_id"] not in ("3", "4")]
    best = chosen(buy([*SMALL, *fewer], "images", 9.0, tell=said.append))
    assert best["prompts"] == PROMPTS - 2 and "10 prompts that all have" in said[0]


def test_seconds_come_from_the_journal_or_a_speed(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    listing = {"path": "small-samples/images.jsonl"}
    journal.append(
        Run("sample", [], "1", outputs=[{**listing, "kind": "image", "checkpoint": "small.st"}]), 96.0
    )
    # Again, with all images there; and another judge.
    journal.append(Run("sample", [], "1", outputs=[{**listing, "kind": "image"}]), 2.0)
    for judge, seconds in (("tiny", 24.0), ("other", 960.0)):
        output = {"path": f"{judge}.jsonl", "kind": "image", "judge": judge}
        journal.append(Run("judge", [], "1", inputs=[{"path": "stdin"}, listing], outputs=[output]), seconds)
    records = [{**r, "path": str(tmp_path / r["path"])} for r in SMALL]
    front = buy(records, "seconds", 100.0, journal=journal)
    images = PROMPTS * IMAGES
    assert front[0]["cost"]["seconds"] == pytest.approx(96 / images)
    assert front[-1]["cost"]["seconds"] == pytest.approx(front[-1]["n"] * (96 + 24) / images)
    priced = buy([*SMALL, *LARGE], "seconds", 100.0, speed=5.0)
    assert all(r["cost"]["seconds"] == pytest.approx(r["cost"]["flops"] / 5) for r in priced)
    assert buy([scaling_record(SMALL)], "seconds", 9.0, speed=5.0)[0]["cost"]["seconds"] == 2.0


@pytest.mark.parametrize(
    ("text", "value"),
    [("2.5e12", 2.5e12), ("2.5T", 2.5e12), ("300g", 3e11), ("16", 16), (" 1 K ", 1000), (7, 7.0)],
)
def test_amounts(text, value) -> None:
    assert read_amount(text, "--flops") == value


def test_times_have_their_own_units() -> None:
    assert [read_amount(t, "--seconds", time=True) for t in ("90", "90s", "1.5min", "2h")] == [
        90,
        90,
        90,
        7200,
    ]


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "nan", "inf", "1e999", "1.2.3", "5 apples", "T", "9s", ".", "1e5000"]
)
def test_what_is_no_amount(text) -> None:
    with pytest.raises(UsageError, match="has to be a number above 0"):
        read_amount(text, "--flops")


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sanactl) -> None:
    monkeypatch.chdir(tmp_path)
    for name, records in (("small", SMALL), ("large", LARGE)):
        text = "".join(dumps(r) + "\n" for r in [*records, scaling_record(records)])
        Path(f"scaling-{name}.jsonl").write_text(text)
    files = ["scaling-small.jsonl", "scaling-large.jsonl"]
    front = sanactl("budget", *files, "--flops", "0.1K")
    assert front == buy([*SMALL, *LARGE], "flops", 100.0)
    assert [json.loads(line) for line in Path("budget.jsonl").read_text().splitlines()] == front
    assert "for 100 FLOPs a prompt:" in sanactl.said and "12 prompts that it was chosen by" in sanactl.said
    piped = sanactl("budget", "--images", "4", stdin="".join(Path(f).read_text() for f in files))
    assert piped == buy([*SMALL, *LARGE], "images", 4)
    assert "give one budget" in sanactl.fails("budget", *files, code=2)
    assert "give one budget" in sanactl.fails("budget", *files, "--images", "4", "--flops", "4", code=2)
    assert "has to be a number above 0" in sanactl.fails("budget", *files, "--flops", "lots", code=2)
    assert "nothing fits" in sanactl.fails("budget", *files, "--flops", "1")
    assert "nowhere.jsonl" in sanactl.fails("budget", "nowhere.jsonl", "--flops", "1")
    assert "came in" in sanactl.fails("budget", "--images", "4", stdin="")
    broken = dumps(
        {**scaling_record(SMALL), "curves": {"judge": [{"at": 1, "value": 1, "cost": {"flops": -1}}]}}
    )
    assert "'curves'" in sanactl.fails("budget", "--images", "4", stdin=broken)
    empty = dumps({**scaling_record(SMALL), "curves": {}})
    assert "no images are known" in sanactl.fails("budget", "--images", "4", stdin=empty)


def test_the_function_is_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sanactl as api

    monkeypatch.chdir(tmp_path)
    Path("scaling.jsonl").write_text("".join(dumps(r) + "\n" for r in SMALL))
    front = api.budget(["scaling.jsonl", *LARGE], flops="0.1K", output="front.jsonl")
    assert front == buy([*SMALL, *LARGE], "flops", 100.0) == [json.loads(x) for x in open("front.jsonl")]
    with pytest.raises(UsageError, match="give one budget"):
        api.budget("scaling.jsonl")
    with pytest.raises(InputError, match="record 1"):
        api.budget([{"kind": "block"}], images=2)


def test_a_terminal_shows_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    from sanactl.cli.frame.render_budget import said_of_choice, show_front

    front = buy([*SMALL, *LARGE], "flops", 250.0)
    show_front(front)
    shown = capsys.readouterr().out
    assert "best of" in shown and "12 prompts" in shown and shown.count(">") == 1
    assert "for 250 FLOPs a prompt: large.st, 20 steps" in said_of_choice(front)
