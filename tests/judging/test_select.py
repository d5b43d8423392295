"""`judge_stream`: groups, winners, bounded memory; with judges whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from sanactl.errors import InputError, UsageError
from sanactl.files.images import write_png
from sanactl.judging.cache import VerdictCache
from sanactl.judging.protocol import judge_flops
from sanactl.judging.registry import open_judge, open_judges
from sanactl.judging.select import judge_stream
from sanactl.judging.tournament import Verdict
from sanactl.shapes.prompts import sample_prompt, scene_for
from sanactl.shapes.render import render


class RedJudge:
    """The redder the better: an image's answer is its first pixel's red."""

    name = "red"
    identity: ClassVar = {"name": "red"}

    def __init__(self) -> None:
        self.batches: list[int] = []

    def judge(self, images, records):
        self.batches.append(len(images))
        p = [(int(i[0, 0, 0]) + 1) / 257 for i in images]
        return [Verdict.of(float(np.log(x)), float(np.log(1 - x))) for x in p]


@pytest.fixture
def records(tmp_path: Path) -> list[dict]:
    """Three prompts of four images; red is a permutation of known values."""
    reds = np.random.default_rng(0).permutation(12) * 20 + 5
    made = []
    for number, red in enumerate(reds):
        path = tmp_path / f"{number}.png"
        write_png(np.full((8, 8, 3), red, np.uint8), path)
        prompt = number // 4
        made.append(
            {
                "kind": "image",
                "path": str(path),
                "prompt": f"a photo of {('two', 'three', 'four')[prompt]} circles",
                "prompt_id": str(prompt),
                "samples": 4,
                "red": int(red),
                "mine": [number],
            }
        )
    return made


def winners(records: list[dict], keep: int | None) -> list[list[int]]:
    ids = dict.fromkeys(r["prompt_id"] for r in records)
    reds = [sorted((r["red"] for r in records if r["prompt_id"] == i), reverse=True) for i in ids]
    return [group[:keep] for group in reds]


def reds(out: list[dict]) -> list[list[int]]:
    return [
        [r["red"] for r in out if r["prompt_id"] == i] for i in dict.fromkeys(r["prompt_id"] for r in out)
    ]


@pytest.mark.parametrize("keep", [1, 2, 4, 9, None])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
def test_the_best_of_each_prompt(records, keep, batch_size) -> None:
    out = list(judge_stream(iter(records), RedJudge(), keep=keep, batch_size=batch_size))
    assert reds(out) == winners(records, keep)
    assert [r["rank"] for r in out] == list(range(min(keep or 4, 4))) * 3
    for r in out:
        source = next(s for s in records if s["path"] == r["path"])
        assert {k: r[k] for k in source} == source
        assert r["judge"] == "red"
        assert r["verdict"] == ("yes" if r["judge_score"] > 0 else "no")
        assert r["yes_logprob"] == pytest.approx(np.log((r["red"] + 1) / 257), rel=1e-6)


def test_interleaved_as_from_several_processes(records) -> None:
    mixed = [records[i] for i in np.random.default_rng(1).permutation(12)]
    out = list(judge_stream(iter(mixed), RedJudge(), keep=2, batch_size=5))
    assert sorted(reds(out)) == sorted(winners(records, 2))
    # A prompt comes when its last image has come.
    last = [
        max(i for i, r in enumerate(mixed) if r["prompt_id"] == p)
        for p in dict.fromkeys(r["prompt_id"] for r in out)
    ]
    assert last == sorted(last)


@pytest.mark.parametrize("field", ["samples", "prompt_id"])
def test_without_the_fields_that_sample_writes(records, field) -> None:
    bare = [{k: v for k, v in r.items() if k != field} for r in records]
    out = list(judge_stream(iter(bare), RedJudge(), keep=1))
    assert [r["red"] for r in out] == [group[0] for group in winners(records, 1)]


def test_winners_come_while_the_stream_still_runs(records) -> None:
    taken: list[int] = []

    def stream() -> Iterator[dict]:
        for i, r in enumerate(records):
            taken.append(i)
            yield r

    judged = judge_stream(stream(), RedJudge(), keep=1, batch_size=4)
    assert next(judged)["prompt_id"] == "0"
    assert len(taken) <= 4


def test_a_cut_stream_gives_what_it_has(records) -> None:
    out = list(judge_stream(iter(records[:6]), RedJudge(), keep=1, batch_size=4))
    assert [r["prompt_id"] for r in out] == ["0", "1"]
    assert out[1]["red"] == max(r["red"] for r in records[4:6])


def test_batches_are_full(records) -> None:
    judge = RedJudge()
    list(judge_stream(iter(records), judge, keep=1, batch_size=5))
    assert judge.batches == [5, 5, 2]


def test_nothing_in_nothing_out() -> None:
    assert list(judge_stream(iter([]), RedJudge())) == []


def test_bad_input_is_named(records, tmp_path) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        list(judge_stream(iter(records), RedJudge(), keep=0))
    with pytest.raises(InputError, match="'samples' is 'four'"):
        list(judge_stream(iter([{**records[0], "samples": "four"}]), RedJudge()))
    with pytest.raises(InputError, match=r"gone\.png: no such image"):
        list(judge_stream(iter([{**records[0], "path": str(tmp_path / "gone.png")}]), RedJudge()))


def test_the_oracle_picks_the_right_picture(tmp_path) -> None:
    rng = np.random.default_rng(4)
    made = []
    for number, tag in enumerate(("counting", "position", "color_attr")):
        record = sample_prompt(rng, tag)
        for index in range(3):
            shown = record if index == number else sample_prompt(rng, "single_object")
            path = tmp_path / f"{number}-{index}.png"
            write_png(render(scene_for(shown, rng)), path)
            extra = {"kind": "image", "path": str(path), "prompt_id": tag, "samples": 3, "index": index}
            made.append({**record, **extra})
    out = list(judge_stream(iter(made), open_judge("oracle"), keep=1))
    assert [r["index"] for r in out] == [0, 1, 2]
    assert {r["judge"] for r in out} == {"oracle"}
    assert {r["verdict"] for r in out} == {"yes"}


@pytest.mark.parametrize("after", [0, 3, 4, 9, 12])
def test_a_model_goes_on_to_the_same_digits(records, tmp_path, after, monkeypatch) -> None:
    """The built-in judge, stopped after some images: what it says of all is what an undisturbed run says."""
    judge = open_judge()

    def stopped() -> Iterator[dict]:
        yield from records[:after]
        raise KeyboardInterrupt

    whole = list(judge_stream(iter(records), judge, batch_size=4))
    with pytest.raises(KeyboardInterrupt):
        list(judge_stream(stopped(), judge, batch_size=4, cache=VerdictCache(tmp_path, judge)))
    asked: list[int] = []
    ask = judge.judge

    def count(images, some):
        asked.append(len(images))
        return ask(images, some)

    monkeypatch.setattr(judge, "judge", count)
    assert (
        list(judge_stream(iter(records), judge, batch_size=4, cache=VerdictCache(tmp_path, judge))) == whole
    )
    assert asked == [4] * (3 - after // 4)
    # A picture that was drawn anew is looked at anew, and no other.
    asked.clear()
    write_png(np.zeros((8, 8, 3), np.uint8), Path(records[0]["path"]))
    list(judge_stream(iter(records), judge, batch_size=4, cache=VerdictCache(tmp_path, judge)))
    assert asked == [1]


def test_records_say_what_judging_cost(judge_folder, tmp_path: Path) -> None:
    """FLOPs of an image of this size, whatever the image; those of an earlier judge are no longer there."""
    records = []
    for side in (32, 64):
        write_png(np.zeros((side, side, 3), np.uint8), tmp_path / f"{side}.png")
        records.append(
            {
                "kind": "image",
                "path": str(tmp_path / f"{side}.png"),
                "prompt": "a red circle",
                "height": side,
                "width": side,
            }
        )
    judge: Any = open_judge(str(judge_folder))
    (first, second) = sorted(judge_stream(iter(records), judge), key=lambda r: r["height"])
    assert first["judge_flops"] == second["judge_flops"] > 1e6  # its processor makes all images alike
    sizes = [p.numel() for p in judge.model.parameters() if p.dim() > 1]
    assert first["judge_flops"] < 2 * sum(sizes) * 512
    both = open_judges([str(judge_folder), "builtin:shapes"])
    shapes = judge_flops(open_judge(), 32, 32)
    assert judge_flops(both, 32, 32) == first["judge_flops"] + shapes
    assert all("judge_flops" not in r for r in judge_stream(iter([first, second]), RedJudge()))
