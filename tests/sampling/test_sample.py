"""`sample`: an image is a function of checkpoint, prompt, seed and settings, and of nothing else."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanactl.checkpoint.builtin import asset
from sanactl.checkpoint.open import Checkpoint, open_checkpoint
from sanactl.errors import InputError, UsageError
from sanactl.model.sampling_settings import (
    SamplingSettings,
    fixed_batch_size,
    sampling_settings,
    with_fixed_batch,
)
from sanactl.records.prompts import load_prompts
from sanactl.sampling.painter import portions
from sanactl.sampling.sample import sample_images
from sanactl.sampling.sample_folder import SampleFolder
from tests.program import Program

STEPS = ("--steps", "3")


def write_prompts(path: Path, count: int = 7) -> list[str]:
    """Prompts of all tasks."""
    texts = [r["prompt"] for r in load_prompts(asset("eval.jsonl"))][::47][:count]
    path.write_text("\n".join(texts))
    return texts


def images(folder: str) -> dict[tuple[str, int], bytes]:
    """PNGs by prompt and index."""
    records = [json.loads(line) for line in (Path(folder) / "images.jsonl").read_text().splitlines()]
    return {(r["prompt"], r["index"]): Path(r["path"]).read_bytes() for r in records}


@pytest.fixture
def drawn(place: Path, sanactl: Program) -> dict[tuple[str, int], bytes]:
    """21 images: two fixed batches of eight and a part of one."""
    write_prompts(place / "p.txt")
    sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *STEPS, "-o", "all")
    found = images("all")
    assert len(found) == len(set(found.values())) == 21
    return found


def test_batch_size_changes_no_image(drawn: dict, sanactl: Program) -> None:
    for size in ("1", "3", "8", "32"):
        sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *STEPS, "-b", size, "-o", f"b{size}")
        assert images(f"b{size}") == drawn


def test_neighbours_and_order_change_no_image(place: Path, drawn: dict, sanactl: Program) -> None:
    texts = (place / "p.txt").read_text().splitlines()
    random.Random(0).shuffle(texts)
    (place / "q.txt").write_text("\n".join(texts))
    sanactl("sample", "tiny.st", "-p", "q.txt", "-n", "3", *STEPS, "-o", "shuffled")
    assert images("shuffled") == drawn
    (place / "r.txt").write_text(texts[2])
    sanactl("sample", "tiny.st", "-p", "r.txt", "-n", "1", *STEPS, "--fixed-batch", "8", "-o", "alone")
    ((key, alone),) = images("alone").items()
    assert key == (texts[2], 0)
    assert alone == drawn[key]


def test_the_number_of_threads_changes_no_image(drawn: dict, sanactl: Program) -> None:
    import torch

    torch.set_num_threads(2)
    try:
        sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *STEPS, "-o", "two")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert images("two") == drawn


def test_what_is_there_is_not_drawn_again(place: Path, drawn: dict, sanactl: Program) -> None:
    pngs = sorted(place.glob("all/*/samples/*.png"))
    for path in pngs[::4]:
        path.unlink()
    kept = {p: p.stat().st_mtime_ns for p in pngs if p.exists()}
    records = sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "3", *STEPS, "-o", "all")
    assert f"{len(kept)} of 21 images were there" in sanactl.said
    assert len(records) == 21
    assert images("all") == drawn
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_seed_and_settings_change_images(drawn: dict, sanactl: Program) -> None:
    for option, value in (("--seed", "1"), ("--guidance", "2"), ("--flow-shift", "1.5")):
        sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "1", "--steps", "3", option, value, "-o", option)
        other = images(option)
        assert all(other[key] != drawn[key] for key in other)


def test_records_and_folder_are_genevals(place: Path, sanactl: Program) -> None:
    line = {"tag": "counting", "include": [{"class": "star", "count": 2}], "prompt": "a photo of two stars"}
    (place / "m.jsonl").write_text(json.dumps({**line, "source": "mine"}) + "\n")
    records = sanactl("sample", "tiny.st", "-p", "m.jsonl", "-n", "2", "--steps", "1")
    assert [r["path"] for r in records] == [f"tiny-samples/00000/samples/000{i}.png" for i in range(2)]
    tiny = open_checkpoint("tiny.st")
    for index, record in enumerate(records):
        expected = {
            **line,
            "source": "mine",
            "kind": "image",
            "index": index,
            "samples": 2,
            "prompt_id": "00000",
        }
        expected |= {"checkpoint": "tiny.st", "digest": tiny.digest, "steps": 1, "height": 64, "width": 64}
        assert {k: record[k] for k in expected} == expected
    metadata = json.loads((place / "tiny-samples/00000/metadata.jsonl").read_text())
    assert metadata == {**line, "source": "mine", "id": "00000"}
    assert [json.loads(x) for x in (place / "tiny-samples/images.jsonl").read_text().splitlines()] == records


def test_few_images_are_computed_together_as_one_kind(place: Path, sanactl: Program) -> None:
    """One image is a batch of one, the rest of its folder too; another batch is another kind of image."""
    run = ("sample", "tiny.st", "--prompt", "a red circle", *STEPS)
    sanactl(*run, "-n", "1")
    (first,) = images("tiny-samples").values()
    sanactl(*run, "-n", "5")
    assert json.loads((place / "tiny-samples/settings.json").read_text())["fixed_batch"] == 1
    one = images("tiny-samples")
    assert one["a red circle", 0] == first
    sanactl(*run, "-n", "5", "--fixed-batch", "1", "-o", "named")
    assert images("named") == one
    assert "fixed batches of 1, not 8" in sanactl.fails(*run, "--fixed-batch", "8", "-o", "named", code=2)
    sanactl(*run, "-n", "5", "-o", "eight")
    settings = json.loads((place / "eight/settings.json").read_text())
    assert (settings["fixed_batch"], settings["text_padding"]) == (8, "trim")
    del settings["fixed_batch"], settings["text_padding"]
    (place / "eight/settings.json").write_text(json.dumps(settings))
    assert "an earlier version of sanactl" in sanactl.fails(*run, "-o", "eight", code=2)


def test_prompts_that_are_cut_are_told_once(place: Path, sanactl: Program) -> None:
    """With their number and the first of them; prompts that fit are not mentioned."""
    long = "a red circle and a blue star and " * 20
    (place / "p.txt").write_text(f"a star\n{long}\n{long}again\n")
    run = ("-p", "p.txt", "--steps", "1")
    sanactl("sample", "tiny.st", "-n", "2", "-b", "8", *run)
    (line,) = [line for line in sanactl.said.splitlines() if "more than" in line]
    assert "2 of 3 prompts have more than the 16 tokens" in line
    assert "the first is prompt 2: 'a red circle and a blue star" in line
    sanactl("importance", "tiny.st", *run)
    assert line in sanactl.said
    sanactl("sample", "tiny.st", "-n", "1", "-p", "-", "--steps", "1", stdin="a star")
    assert "more than" not in sanactl.said


def test_negative_prompt_and_instruction(place: Path, sanactl: Program) -> None:
    """Part of what an image is a function of: other images, other folders; said in records."""
    (place / "i.txt").write_text("Say more of this.\nPrompt: \n")
    run = ("sample", "tiny.st", "-n", "1", *STEPS, "-p", "-")
    plain, off, negative, own = (
        sanactl(*run, *options, stdin="a star")[0]
        for options in ((), ("--instruction", "off"), ("--negative", "a circle"), ("--instruction", "i.txt"))
    )
    assert plain == off  # the built-in world has none
    assert (plain["negative_prompt"], plain["complex_human_instruction"]) == ("", False)
    assert negative["negative_prompt"] == "a circle"
    assert own["complex_human_instruction"] is True and own["instruction"].startswith("sha256:")
    assert len({Path(r["path"]).parents[2] for r in (plain, negative, own)}) == 3
    assert len({Path(r["path"]).read_bytes() for r in (plain, negative, own)}) == 3
    settings = json.loads((Path(own["path"]).parents[2] / "settings.json").read_text())
    assert settings["instruction"] == "Say more of this.\nPrompt: "


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--instruction", "none.txt"), "none.txt: no such file for --instruction"),
        (("--instruction", "empty.txt"), "empty.txt: an empty instruction"),
        (("--instruction", "latin.txt"), "latin.txt: not UTF-8"),
        (("--instruction", "fifo"), "fifo: is not a regular file"),
        (("--negative", "x", "--guidance", "1"), "no effect without guidance"),
        (("--negative", "x" * 20_001), "at most 20,000 characters"),
        (("--negative", "\udcff"), "text in UTF-8"),
        (("--guidance", "nan"), "--guidance 'nan': has to be a number"),
        (("--flow-shift", "0"), "--flow-shift '0.0': has to be a number"),
        (("--steps", "1001"), "whole number from 1 to 1,000"),
        (("--height", "65536", "--width", "65536"), "more than 64,000,000"),
    ],
)
def test_settings_that_make_no_sense(
    place: Path, sanactl: Program, options: tuple[str, ...], said: str
) -> None:
    (place / "empty.txt").write_text("\n")
    (place / "latin.txt").write_bytes(b"Gr\xf6\xdfe")
    os.mkfifo("fifo")
    code = 1 if options[0] == "--instruction" else 2
    assert said in sanactl.fails("sample", "tiny.st", "-n", "1", "--limit", "1", *options, code=code)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", "20"), ("steps", 10**9), ("height", 64.0), ("guidance_scale", True), ("flow_shift", "3")],
)
def test_a_checkpoints_own_settings_are_checked(tiny_file: Path, key: str, value: Any) -> None:
    tiny = open_checkpoint(tiny_file)
    with pytest.raises(InputError, match=f"its sampling settings: {key}"):
        sampling_settings(replace(tiny, sampling={**tiny.sampling, key: value}))


def test_a_long_list_begins_at_once(place: Path) -> None:
    """Nothing is done for a prompt before its turn: after the first image there is no trace of the other 99,992."""
    import torch

    tiny = open_checkpoint("tiny.st")
    prompts = [{"kind": "prompt", "prompt": f"a photo of {n} stars", "id": str(n)} for n in range(100_000)]
    settings = sampling_settings(tiny, steps=1)
    images = SampleFolder(Path("out"), tiny, settings, prompts, count=1, seed=0, dtype=torch.float32)
    records = sample_images(images, device=torch.device("cpu"), batch_size=8)
    assert next(records)["prompt"] == "a photo of 0 stars"
    assert len(list(Path("out").iterdir())) == 8


def test_size_has_to_be_whole_latents(place: Path, sanactl: Program) -> None:
    assert "multiple of 8" in sanactl.fails("sample", "tiny.st", "--height", "100", code=2)
    sanactl("sample", "tiny.st", "--height", "96", "-n", "1", "--limit", "1", "--steps", "1")
    from PIL import Image

    with Image.open("tiny-samples/00000/samples/0000.png") as image:
        assert image.size == (64, 96)


@pytest.mark.parametrize(
    ("pixels", "parameters", "size"),
    [
        (1024, 0.6e9, 8), (1024, 1.6e9, 4), (1024, 4.8e9, 2), (512, 0.6e9, 8), (512, 4.8e9, 8), (2048, 0.6e9, 2),
        (4096, 1.6e9, 1), (256, 4.8e9, 8),
    ],
)  # fmt: skip
def test_fixed_batches_depend_on_resolution_and_parameters(
    tiny_file: Path, pixels: int, parameters: float, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = open_checkpoint(tiny_file)
    published = Checkpoint(
        ref="x", path=Path("x"), kind="hub", tensors={}, config=replace(tiny.config, sample_size=pixels // 32)
    )
    small = SamplingSettings(height=64, width=64)
    assert fixed_batch_size(tiny, small) == 8
    assert [with_fixed_batch(tiny, small, n).fixed_batch for n in (1, 2, 3, 4, 5, 9, 10**6)] == [
        1,
        2,
        4,
        4,
        8,
        8,
        8,
    ]
    assert with_fixed_batch(tiny, replace(small, fixed_batch=3), 100).fixed_batch == 3
    monkeypatch.setattr(Checkpoint, "num_parameters", parameters)
    assert fixed_batch_size(published, sampling_settings(published)) == size


@pytest.mark.parametrize(
    ("count", "size", "world"), [(21, 8, 1), (21, 8, 2), (5, 1, 3), (0, 8, 2), (7, 8, 4)]
)
def test_processes_share_the_work_out(count: int, size: int, world: int) -> None:
    shares = [list(portions(count, size, 2, rank, world)) for rank in range(world)]
    assert sorted(n for share in shares for batch in share for n in batch) == list(range(count))
    assert all(0 < len(batch) <= 2 * size for share in shares for batch in share)
    # A fixed batch is never torn apart, but for the last.
    starts = {n for share in shares for batch in share for n in batch[::size]}
    assert starts == set(range(0, count, size))


def test_prompts_come_by_pipe_and_ids_stay(place: Path, sanactl: Program) -> None:
    prompts = '{"kind": "prompt", "prompt": "a star", "id": "mine"}\n{"prompt": "x", "kind": "image", "path": "p"}\n'
    checkpoint = json.dumps({"kind": "checkpoint", "path": "tiny.st"})
    (record,) = sanactl("sample", "-n", "1", "--steps", "1", stdin=f"{checkpoint}\n{prompts}")
    assert (record["prompt_id"], record["checkpoint"]) == ("mine", "tiny.st")


def test_a_named_prompt_file_leaves_stdin_alone(place: Path, sanactl: Program) -> None:
    """As in `while read checkpoint; do sanactl sample $checkpoint -p p.txt; done <list`."""
    write_prompts(place / "p.txt", 1)
    sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "1", "--steps", "1", stdin="not\na record\n")


def test_sizes_that_make_no_sense(tiny_file: Path) -> None:
    with pytest.raises(UsageError, match="multiple"):
        sampling_settings(open_checkpoint(tiny_file), width=4)
