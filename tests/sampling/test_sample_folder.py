"""The folder of `sample`: whose images it holds, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from sanactl.checkpoint.open import open_checkpoint
from sanactl.errors import OutputExistsError, UsageError
from sanactl.model.sampling_settings import SamplingSettings
from sanactl.sampling.open_folder import open_folder, opened_folder
from sanactl.sampling.room import check_room, check_room_of_search
from sanactl.sampling.search.policy import Rules
from tests.program import Program, snapshot
from tests.sampling.test_sample import STEPS, images, write_prompts


def test_two_runs_in_one_folder(place: Path, sanactl: Program) -> None:
    """The second ends with a line, and changes nothing; jobs that share a folder may draw at the same time."""
    few = ("sample", "tiny.st", "--prompt", "a star", "-n", "1", "--steps", "1", "-o", "s")
    sanactl(*few)
    wanted = json.loads(Path("s/settings.json").read_text())
    with opened_folder(Path("s"), "", wanted, force=False):
        line = "s: another run is making it right now; wait for that one, or name another output with -o"
        assert line in sanactl.fails(*few)
        assert line in sanactl.fails(*few, "--force", "--seed", "1")
    with (
        opened_folder(Path("s"), "", wanted, force=False, shared=True),
        opened_folder(Path("s"), "", wanted, force=False, shared=True),
    ):
        assert "another run" in sanactl.fails(*few)
    assert len(sanactl(*few)) == 1


def test_a_folder_is_of_one_checkpoint_seed_and_settings(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "1", "-o", "out")
    before = snapshot(place / "out")
    assert "images of steps 1, not 2;" in sanactl.fails(
        "sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "2", "-o", "out", code=2
    )
    sanactl("sample", "tiny.st", "-n", "1", "--limit", "1", "--steps", "2", "-o", "out", "--force")
    assert snapshot(place / "out")["00000/samples/0000.png"] != before["00000/samples/0000.png"]
    (place / "mine").mkdir()
    (place / "mine/thesis.txt").write_text("x")
    for force in (False, True):
        with pytest.raises(OutputExistsError, match="other contents than samples"):
            open_folder(place / "mine", settings_of(1), force=force)
        with pytest.raises(OutputExistsError, match="is a file"):
            open_folder(place / "tiny.st", settings_of(1), force=force)


def settings_of(number: int) -> dict[str, Any]:
    return {"digest": number, "prompts": {"count": 1, "digest": "x"}}


def test_settings_that_are_damaged(tmp_path: Path) -> None:
    assert open_folder(tmp_path / "out", settings_of(1), force=False)
    (tmp_path / "out/00000/samples").mkdir(parents=True)
    (tmp_path / "out/settings.json").write_text("{")
    with pytest.raises(OutputExistsError, match=r"settings\.json is damaged"):
        open_folder(tmp_path / "out", settings_of(1), force=False)


def test_more_images_than_a_disk_holds(tmp_path: Path) -> None:
    settings = SamplingSettings(height=64, width=64)
    check_room(tmp_path / "new", 8, settings)
    with pytest.raises(UsageError, match="40,000,000,000 images take at least 164 TB"):
        check_room(tmp_path / "new", 40_000_000_000, settings)
    # A search is refused for its first round, and only told of what it may come to draw.
    told: list[str] = []
    check_room_of_search(tmp_path / "new", 2, Rules(most=64), settings, told.append)
    assert not told
    check_room_of_search(tmp_path / "new", 2, Rules(most=20_000_000_000), settings, told.append)
    (line,) = told
    assert line.startswith("warning: if no prompt stops early, 40,000,000,000 images take at least 164 TB")
    check_room_of_search(tmp_path / "new", 2, Rules(most=20_000_000_000, budget=9), settings, told.append)
    assert told == [line]
    many = Rules(most=20_000_000_000, round=20_000_000_000)
    with pytest.raises(UsageError, match="40,000,000,000 images take at least 164 TB") as refused:
        check_room_of_search(tmp_path / "new", 2, many, settings, told.append)
    assert "--round or --limit" in str(refused.value.hint)


def natural(number: int) -> Path:
    with opened_folder(None, "s", settings_of(number), force=False) as folder:
        return folder


def test_natural_folders_lie_side_by_side(place: Path) -> None:
    assert natural(1) == natural(1) == Path("s")
    (place / "s-2").write_text("a file")
    (place / "s-3").mkdir()
    (place / "s-3/mine.txt").write_text("x")
    assert natural(2) == Path("s-4")
    assert natural(1) == Path("s")


def test_a_run_that_fails_before_its_first_image_leaves_all_as_it_was(place: Path, sanactl: Program) -> None:
    """No folder is left behind, and --force takes nothing away before the models are there."""
    run = ("-n", "1", "--limit", "1", "--steps", "1", "-o", "out")
    broken = replace_component(place, "vae")
    sanactl.fails("sample", broken, *run)
    assert not (place / "out").exists()
    sanactl("sample", "tiny.st", *run)
    sanactl.fails("sample", broken, *run, "--force")


def replace_component(place: Path, component: str) -> str:
    """broken.st: tiny.st whose component lies in a folder that is empty."""
    from safetensors.torch import load_file, save_file

    tiny = open_checkpoint("tiny.st")
    (place / "empty").mkdir()
    listed = {**tiny.components, component: {"source": str(place / "empty")}}
    metadata = {**tiny.metadata, "sanactl.components": json.dumps(listed)}
    save_file(load_file("tiny.st"), "broken.st", metadata=metadata)
    return "broken.st"


def test_another_list_of_prompts_has_its_own_images(place: Path, sanactl: Program) -> None:
    """Neither another prompt nor a longer list is given an image of the first one."""
    run = ("sample", "tiny.st", "-n", "1", *STEPS, "--fixed-batch", "4")
    (circle,) = sanactl(*run, "-p", "-", stdin="a red circle\n")
    (square,) = sanactl(*run, "-p", "-", stdin="a blue square\n")
    assert (circle["path"], square["path"]) == (
        "tiny-samples/00000/samples/0000.png",
        "tiny-samples-2/00000/samples/0000.png",
    )
    assert (Path(circle["path"]).read_bytes()) != Path(square["path"]).read_bytes()
    assert sanactl(*run, "-p", "-", stdin="a red circle\n") == [circle]
    drawn: dict[tuple[str, int], bytes] = {}
    for limit in ("2", "3"):
        records = sanactl(*run, "-p", "shapes", "--limit", limit)
        for key, png in images(str(Path(records[0]["path"]).parents[2])).items():
            assert drawn.setdefault(key, png) == png
    (place / "p.txt").write_text("\n".join(prompt for prompt, _ in drawn))
    sanactl(*run, "-p", "p.txt", "-o", "each")
    assert images("each") == drawn


def test_a_named_folder_holds_one_list(place: Path, sanactl: Program) -> None:
    """Another list is refused; with --force it takes the old one's place, and no file of others is lost."""
    write_prompts(place / "p.txt", 3)
    run = ("sample", "tiny.st", "-n", "2", *STEPS, "-o", "out")
    sanactl(*run, "-p", "p.txt")
    (place / "out/notes.txt").write_text("mine")
    (place / "out/00002/samples/sheet.png").write_text("mine")
    assert "another list of prompts" in sanactl.fails(*run, "-p", "-", stdin="a star\n", code=2)
    sanactl(*run, "-p", "-", "--force", stdin="a star\n")
    assert sorted(snapshot(place / "out")) == [
        "00000/metadata.jsonl",
        "00000/samples/0000.png",
        "00000/samples/0001.png",
        "00002/samples/sheet.png",
        "README.md",
        "images.jsonl",
        "metadata.csv",
        "notes.txt",
        "settings.json",
    ]


def test_more_images_of_the_same_prompts_join_the_first(place: Path, sanactl: Program) -> None:
    write_prompts(place / "p.txt", 2)
    run = ("sample", "tiny.st", "-p", "p.txt", *STEPS)
    sanactl(*run, "-n", "2")
    before = {p: p.stat().st_mtime_ns for p in place.glob("tiny-samples/*/samples/*.png")}
    records = sanactl(*run, "-n", "3")
    assert "4 of 6 images were there already" in sanactl.said
    assert [(r["prompt_id"], r["index"]) for r in records] == [
        (f"0000{p}", i) for p in range(2) for i in range(3)
    ]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(images("tiny-samples")) == 6


@pytest.mark.parametrize("where", ["theirs", "in ours"])
def test_files_of_others_are_never_removed(place: Path, sanactl: Program, where: str) -> None:
    """Images of another program in GenEval's layout, in a folder of theirs or among ours."""
    from PIL import Image

    run = ("sample", "tiny.st", "-n", "1", "--steps", "1", "-o", "out", "--force", "-p", "-")
    if where == "in ours":
        sanactl(*run, stdin="a star\n")
    samples = place / "out" / ("00000" if where == "theirs" else "00007") / "samples"
    samples.mkdir(parents=True)
    (samples.parent / "metadata.jsonl").write_text('{"prompt": "a bench"}')
    Image.new("RGB", (8, 8)).save(samples / "0000.png")
    said = sanactl.fails(*run, stdin="two stars\n", code=2)
    assert "sanactl does not remove" in said and "-o" in said
    shutil.move(samples / "0000.png", place / "out/00000/samples/0005.png")
    shutil.rmtree(samples.parent, ignore_errors=True)
    if where == "in ours":
        assert "0005.png was not made by sanactl" in sanactl.fails(*run, stdin="two stars\n", code=2)


def test_an_image_says_what_it_is(place: Path, sanactl: Program) -> None:
    from PIL import Image

    (record,) = sanactl("sample", "tiny.st", "-n", "1", *STEPS, "-p", "-", stdin="ein Stern ★\n")
    with Image.open(record["path"]) as image:
        said = json.loads(image.info["sanactl"])
    expected = {k: record[k] for k in ("prompt", "index", "seed", "digest", "steps", "guidance_scale")}
    assert {k: said[k] for k in expected} == expected


@pytest.mark.parametrize("what", ["another of ours", "another program's", "no image"])
def test_an_image_that_is_another_is_not_handed_out(place: Path, sanactl: Program, what: str) -> None:
    from PIL import Image

    write_prompts(place / "p.txt", 2)
    run = ("sample", "tiny.st", "-p", "p.txt", "-n", "1", *STEPS, "-o", "out")
    sanactl(*run)
    path = place / "out/00001/samples/0000.png"
    if what == "another of ours":
        shutil.copyfile("out/00000/samples/0000.png", path)
    elif what == "another program's":
        Image.new("RGB", (64, 64)).save(path)
    else:
        path.write_text("x")
    assert "00001/samples/0000.png is of another prompt" in sanactl.fails(*run, code=2)


def test_an_unfinished_folder_is_not_scored(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "-n", "1", "--steps", "1", "-o", "out")
    shutil.rmtree("out/00005")
    assert "images of 5 of its 6 prompts" in sanactl.fails("eval", "geneval", "out")
    sanactl("sample", "tiny.st", "-n", "1", "--steps", "1", "-o", "out")
    assert sanactl("eval", "geneval", "out")[-1]["images"] == 6


def test_a_moved_folder_of_images_can_be_judged(place: Path, sanactl: Program) -> None:
    sanactl("sample", "tiny.st", "-n", "1", "--steps", "1", "-o", "out")
    shutil.move("out", "there")
    records = sanactl("eval", "geneval", "there")
    assert records[-1]["kind"] == "score"
    assert records[-1]["images"] == 6


def test_the_folder_is_a_dataset(
    place: Path, sanactl: Program, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """`load_dataset` opens it, with captions; so does `finetune --data`."""
    from datasets import load_dataset

    drawn = sanactl("sample", "tiny.st", "-n", "2", "--steps", "1", "-o", "out")
    cache = tmp_path_factory.mktemp("cache")
    loaded = load_dataset("out", cache_dir=str(cache))["train"]
    assert sorted(loaded["text"]) == sorted(record["prompt"] for record in drawn)
    assert loaded[0]["image"].size == (64, 64)
    sanactl("finetune", "tiny.st", "--data", "out", "--steps", "1", "-b", "2")
    assert f"{len(drawn)} examples" in sanactl.said
