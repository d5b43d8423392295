"""`sample`: an image is a function of checkpoint, prompt, seed and settings, and of nothing else."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from sanactl.errors import OutputExistsError, UsageError
from sanactl.io.builtin import asset
from sanactl.io.checkpoint import Checkpoint, open_checkpoint
from sanactl.io.prompts import load_prompts
from sanactl.stages.conditioning import SamplingSettings, lot_size, sampling_settings
from sanactl.stages.sample import _share, find_folder, open_folder
from tests.program import Program, snapshot

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
    """21 images: two whole lots of eight and a part of one."""
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
    sanactl("sample", "tiny.st", "-p", "r.txt", "-n", "1", *STEPS, "-o", "alone")
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
    assert f"{len(kept)} of 21 images are there" in sanactl.said
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


def test_a_folder_is_of_one_checkpoint_seed_and_settings(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "1", "-o", "out")
    before = snapshot(place / "out")
    assert "another checkpoint, seed or settings" in sanactl.fails(
        "sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "2", "-o", "out", code=2
    )
    sanactl("sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "2", "-o", "out", "--force")
    assert snapshot(place / "out")["00000/samples/0000.png"] != before["00000/samples/0000.png"]
    (place / "mine").mkdir()
    (place / "mine/thesis.txt").write_text("x")
    with pytest.raises(OutputExistsError, match="something else"):
        open_folder(place / "mine", {}, force=False)
    with pytest.raises(OutputExistsError, match="is a file"):
        open_folder(place / "tiny.st", {}, force=False)


def test_natural_folders_lie_side_by_side(place: Path) -> None:
    assert find_folder("s", {"a": 1}) == Path("s")
    open_folder(Path("s"), {"a": 1}, force=False)
    assert find_folder("s", {"a": 1}) == Path("s")
    assert find_folder("s", {"a": 2}) == Path("s-2")


def test_size_has_to_be_whole_latents(place: Path, sanactl: Program) -> None:
    assert "multiple of 8" in sanactl.fails("sample", "tiny.st", "--height", "100", code=2)
    sanactl("sample", "tiny.st", "--height", "96", "-n", "1", "--limit", "1", "--steps", "1")
    from PIL import Image

    with Image.open("tiny-samples/00000/samples/0000.png") as image:
        assert image.size == (64, 96)


@pytest.mark.parametrize(("size", "lot"), [(1024, 1), (4096, 1), (512, 4), (256, 8)])
def test_lots_depend_on_the_resolution_alone(tiny_file: Path, size: int, lot: int) -> None:
    tiny = open_checkpoint(tiny_file)
    published = Checkpoint(
        ref="x", path=Path("x"), kind="hub", tensors={}, config={**tiny.config, "sample_size": size // 32}
    )
    assert lot_size(published, sampling_settings(published)) == lot
    assert lot_size(tiny, SamplingSettings(height=64, width=64)) == 8


@pytest.mark.parametrize(("count", "lot", "world"), [(21, 8, 1), (21, 8, 2), (5, 1, 3), (0, 8, 2), (7, 8, 4)])
def test_processes_share_the_work_out(count: int, lot: int, world: int) -> None:
    shares = [list(_share(count, lot, rank, world)) for rank in range(world)]
    assert sorted(w for share in shares for w in share) == list(range(count))


def test_prompts_come_by_pipe_and_ids_stay(place: Path, sanactl: Program) -> None:
    prompts = '{"kind": "prompt", "prompt": "a star", "id": "mine"}\n{"prompt": "x", "kind": "image", "path": "p"}\n'
    checkpoint = json.dumps({"kind": "checkpoint", "path": "tiny.st"})
    (record,) = sanactl("sample", "-n", "1", "--steps", "1", stdin=f"{checkpoint}\n{prompts}")
    assert (record["prompt_id"], record["checkpoint"]) == ("mine", "tiny.st")


def test_a_named_prompt_file_leaves_stdin_alone(place: Path, sanactl: Program) -> None:
    """As in `while read checkpoint; do sanactl sample $checkpoint -p p.txt; done <list`."""
    write_prompts(place / "p.txt", 1)
    sanactl("sample", "tiny.st", "-p", "p.txt", "-n", "1", "--steps", "1", stdin="not\na record\n")


def test_a_moved_folder_of_images_can_be_judged(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "-n", "1", "--steps", "1", "-o", "out")
    shutil.move("out", "there")
    records = sanactl("eval", "geneval", "there")
    assert records[-1]["kind"] == "score"
    assert records[-1]["images"] == 6


def test_sizes_that_make_no_sense(tiny_file: Path) -> None:
    with pytest.raises(UsageError, match="multiple"):
        sampling_settings(open_checkpoint(tiny_file), width=4)
