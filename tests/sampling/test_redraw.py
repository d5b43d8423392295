"""`sample --redraw`: the image that `sample` would have drawn, bit for bit, from records that can be drawn again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import sanactl as api
from tests.program import Program
from tests.sampling.test_sample import images, write_prompts

DRAFT, FULL = ("--steps", "1"), ("--steps", "3")


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


@pytest.fixture
def drafts(place: Path, sanactl: Program) -> list[Any]:
    """Eighteen drafts of six prompts."""
    write_prompts(place / "p.txt", 6)
    return sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *DRAFT, "-o", "drafts")


def test_a_redrawn_image_is_the_one_that_sample_draws(
    place: Path, drafts: list[Any], sanactl: Program
) -> None:
    """Also if a few indexes of each prompt are drawn, in another order and in batches with other neighbours."""
    chosen = sanactl("judge", "-k", "2", stdin=lines(drafts))
    chosen = [r for r in chosen if (r["prompt_id"], r["rank"]) != ("00002", 1)]
    again = sanactl("sample", "tiny.st", "--redraw", *FULL, "-o", "full", stdin=lines(chosen[::-1]))
    sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *FULL, "-o", "all")
    whole = images("all")
    drawn = images("full")
    assert len(drawn) == 11 and drawn == {key: whole[key] for key in drawn}
    assert {(r["prompt"], r["index"]) for r in chosen} == {*drawn}
    # The prompts came in reverse, and lie in that order; with the same order the folder is one of `sample`.
    sanactl("sample", "tiny.st", "--redraw", *FULL, "-o", "same", stdin=lines(chosen))
    assert images("same") == drawn
    kept = {p: p.stat().st_mtime_ns for p in place.glob("same/*/samples/*.png")}
    sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *FULL, "-o", "same")
    assert images("same") == whole and len(kept) == 11
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    by_key = {(r["prompt"], r["index"]): r for r in chosen}
    for record in again:
        draft = by_key[record["prompt"], record["index"]]
        assert (record["seed"], record["draft_path"]) == (draft["seed"], draft["path"])
        assert (record["draft_score"], record["draft_steps"]) == (draft["judge_score"], 1)
        assert (record["steps"], record["draft_samples"]) == (3, 3)
        assert record["samples"] == sum(r["prompt"] == record["prompt"] for r in again)
        assert record["flops"] > record["draft_flops"] == draft["flops"] > 0
        assert not {"judge", "verdict", "judge_score", "rank", "yes_logprob", "answer_mass"} & {*record}
        assert record["prompt_id"] == draft["prompt_id"]


def test_a_whole_pipe_and_the_journal(place: Path, drafts: list[Any], sanactl: Program) -> None:
    """A redraw of a redraw; the newest winners where nothing is piped; a run that was stopped goes on."""
    first = sanactl("judge", "drafts", "-k", "2")
    full = sanactl("sample", "tiny.st", "--redraw", "--steps", "2", "-o", "two")
    assert "judge.jsonl, the newest judged image records" in sanactl.said
    assert len(full) == len(first) == 12
    best = sanactl("judge", "-k", "1", stdin=lines(full))
    assert len(best) == 6 and all("draft_score" in r for r in best)
    (place / "best.jsonl").write_text(lines(best))
    run = ("sample", "tiny.st", "--redraw", "-p", "best.jsonl", *FULL, "-o", "three")
    last = sanactl(*run)
    for record in last:
        (chosen,) = [r for r in best if r["prompt"] == record["prompt"]]
        assert record["draft_path"] == chosen["path"]
        assert record["draft_flops"] == chosen["flops"] + chosen["draft_flops"]
    before = images("three")
    for path in sorted(place.glob("three/*/samples/*.png"))[::2]:
        path.unlink()
    assert sanactl(*run) == last and images("three") == before
    assert "3 of 6 images were there" in sanactl.said
    function = api.sample("tiny.st", best, redraw=True, steps=3, output="api")
    assert [r["draft_score"] for r in function] == [r["draft_score"] for r in last]
    assert images("api") == before


def altered(drafts: list[Any], number: int, **fields: Any) -> str:
    changed = {**drafts[number], **fields}
    changed = {key: value for key, value in changed.items() if value is not None}
    return lines([*drafts[:number], changed, *drafts[number + 1 :]])


def test_records_that_cannot_be_redrawn(place: Path, drafts: list[Any], sanactl: Program) -> None:
    def said(stdin: str, *options: str, code: int = 1) -> str:
        return sanactl.fails("sample", "tiny.st", "--redraw", *options, stdin=stdin, code=code)

    every = lines(drafts)
    assert "has no seed" in said(altered(drafts, 3, seed=None))
    assert "has no index" in said(altered(drafts, 3, index=None))
    assert "without 'prompt'" in said(altered(drafts, 0, prompt=None))
    assert "seed is not that of --seed 7" in said(every, "--seed", "7")
    assert "seed is not that of --seed 0" in said(altered(drafts, 5, seed=drafts[4]["seed"]))
    assert "seed is not that of" in said(altered(drafts, 5, prompt="a photo of a star"))
    assert "64 x 64 pixels, and the redraw would have 96 x 64" in said(every, "--width", "96")
    assert "different numbers of steps" in said(altered(drafts, 2, steps=2))
    assert "different checkpoints" in said(altered(drafts, 2, digest="sha256:0"))
    assert "comes twice" in said(lines([*drafts, drafts[0]]))
    assert "a prompt record among" in said(every + '{"kind": "prompt", "prompt": "a star"}\n')
    assert "no images to redraw" in said('{"kind": "score", "metric": "x"}\n')
    assert "no images to redraw" in said("")
    for option in (("-n", "2"), ("--limit", "2"), ("--prompt", "a star")):
        assert "leave out" in said(every, *option, code=2)


def test_there_has_to_be_something_to_redraw(place: Path, sanactl: Program) -> None:
    assert "no images to redraw" in sanactl.fails("sample", "tiny.st", "--redraw", code=2)
    assert "nothing.jsonl" in sanactl.fails("sample", "tiny.st", "--redraw", "-p", "nothing.jsonl")
    with pytest.raises(api.UsageError, match="redraw takes image records"):
        api.sample("tiny.st", redraw=True)
