"""`--shard I/N` and `merge`: independent jobs give the bytes of one run, and what is not complete is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sanactl import merge
from sanactl.files.images import write_png
from sanactl.records.shards import Ending, Shard, Whole
from sanactl.sampling.dataset_files import list_part
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.cli.test_eval_processes import SEVERAL, launched
from tests.program import Program, snapshot

FEW = ("-n", "3", "--steps", "1")


def pictures(count: int, *, told: bool = True) -> list[dict]:
    """Pictures of the built-in world, three of a prompt, in r.jsonl; those of two prompts come by turns."""
    rng = np.random.default_rng(5)
    records = []
    for i in range(count):
        prompt = load_eval_prompts()[12 * (i // 3)]
        write_png(render(scene_for(prompt, rng)), Path(f"{i}.png"))
        record = {**prompt, "kind": "image", "path": f"{i}.png", "prompt_id": str(i // 3), "index": i % 3}
        records.append({**record, **({"samples": 3} if told else {})})
    order = sorted(range(count), key=lambda i: (i // 6, i % 3, i))
    Path("r.jsonl").write_text("".join(json.dumps(records[i]) + "\n" for i in order))
    return records


def jobs(sanactl: Program, *command: str, of: int = 3, output: str | None = "part-{}.jsonl") -> list[str]:
    """All jobs of a command; the last one first."""
    names = []
    for part in reversed(range(of)):
        name = "" if output is None else output.format(part)
        sanactl(*command, "--shard", f"{part}/{of}", *(["-o", name] if name else []))
        names.append(name)
    return names


def test_jobs_draw_into_one_folder(place: Path, sanactl: Program) -> None:
    """Also with a guard, and with jobs that have nothing to do; then a run without --shard finds all images."""
    words = "a star\na red circle\na naked heart\ntwo blue squares\na cross\n"
    Path("p.txt").write_text(words)
    command = ("sample", "tiny.st", "-p", "p.txt", *FEW, "--guard", "builtin:words")
    records = sanactl(*command, "-o", "whole")
    shutil.move("whole", "one")
    jobs(sanactl, *command, of=5, output="whole")
    assert not Path("whole/images.jsonl").exists() and len(list(Path("whole").glob("images.*.jsonl"))) == 5
    listed = Path("whole/images.1-of-5.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt_id"] for line in listed[:-1]] == ["00001"] * 3
    end = json.loads(listed[-1])
    assert (end["kind"], end["groups"], end["taken"], end["places"]) == ("shard", 4, 1, [[1, 1, 1, 3]])
    assert sanactl("merge", "whole") == records
    for part in Path("whole").glob("images.*-of-5.jsonl"):
        part.unlink()
    assert snapshot(Path("whole")) == snapshot(Path("one"))
    sanactl(*command, "-o", "whole")
    assert "12 of 12 images were there already" in sanactl.said


@pytest.mark.parametrize("told", [True, False])
def test_jobs_judge_as_one(place: Path, sanactl: Program, told: bool) -> None:
    pictures(24, told=told)
    Path("r.jsonl").write_text("".join(Path("r.jsonl").read_text().splitlines(keepends=True)[:22]))
    command = ("judge", "r.jsonl", "-k", "2", "--no-cache", "-b", "4")
    records = sanactl(*command, "-o", "one.jsonl")
    parts = jobs(sanactl, *command)
    assert sanactl("merge", *parts, "-o", "all.jsonl") == records
    assert Path("all.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    # `cat` is a merge, too: other commands pass over the shards' own records, and merge finds them.
    Path("cat.jsonl").write_bytes(b"".join(Path(part).read_bytes() for part in parts))
    assert len(sanactl("filter", "cat.jsonl", "--top", "1", "-o", "f.jsonl")) == 8
    assert merge("cat.jsonl", output="again.jsonl") == records
    assert Path("again.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


def test_jobs_check_and_translate_as_one(place: Path, sanactl: Program) -> None:
    """Prompts that are blocked or fail leave no record, and are no gap."""
    good = [record["prompt"] for record in load_eval_prompts()[::30]]
    Path("p.txt").write_text(
        "\n".join([*good[:5], "a naked heart", "quite another prompt", *good[5:], "nude"])
    )
    sanactl("guard", "p.txt", "-m", "builtin:words", "-o", "g.jsonl", "--blocked", "b.jsonl")
    for part in range(3):
        shard = ("-b", "4", "--shard", f"{part}/3")
        sanactl("guard", "p.txt", "-m", "builtin:words", *shard, "-o", f"g{part}", "--blocked", f"b{part}")
    sanactl("merge", "g0", "g1", "g2", "-o", "g-all.jsonl")
    sanactl("merge", "b2", "b1", "b0", "-o", "b-all.jsonl")
    assert Path("g-all.jsonl").read_bytes() == Path("g.jsonl").read_bytes()
    assert Path("b-all.jsonl").read_bytes() == Path("b.jsonl").read_bytes() != b""
    assert "b0: shard 0/3 of guard's blocked prompts" in sanactl.fails(
        "merge", "g1", "b0", "g2", "-o", "x.jsonl"
    )
    command = ("relabel", "p.txt", "--to", "zh,emoji", "--allow-failed")
    sanactl(*command, "-o", "one.jsonl")
    parts = jobs(sanactl, *command, of=4)
    sanactl("merge", *parts, "-o", "all.jsonl")
    assert Path("all.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    # Two prompts in a run of three lines: the last has no output at all.
    Path("two.txt").write_text("\n".join(good[:2]))
    sanactl("rewrite", "two.txt", "-o", "rewritten.jsonl")
    sanactl("merge", *jobs(sanactl, "rewrite", "two.txt", output="r-{}.jsonl"), "-o", "r.jsonl")
    assert Path("r.jsonl").read_bytes() == Path("rewritten.jsonl").read_bytes()


def test_a_job_again_replaces_its_own_output(place: Path, sanactl: Program) -> None:
    """And a run in which nothing is blocked merges into an empty file."""
    Path("p.txt").write_text("a star\na red circle\n")
    for part in (0, 0, 1):
        sanactl("guard", "p.txt", "-m", "builtin:words", "-b", "1", "--shard", f"{part}/2")
    assert "wrote guard.1-of-2.jsonl (1 prompt) - next: sanactl merge guard.*-of-2.jsonl" in sanactl.said
    assert sorted(p.name for p in Path().glob("guard*-2.jsonl")) == [
        f"{stem}.{part}-of-2.jsonl" for stem in ("guard-blocked", "guard") for part in (0, 1)
    ]
    blocked = sorted(map(str, Path().glob("guard-blocked.*-of-2.jsonl")))
    assert sanactl("merge", *blocked) == [] and Path("guard-blocked.jsonl").read_bytes() == b""
    assert "merged 2 shards of guard's blocked prompts: 2 groups" in sanactl.said
    files = sorted(Path().glob("guard.*-of-2.jsonl"))
    piped = "".join(path.read_text() for path in reversed(files))
    assert sanactl("merge", "-", stdin=piped) == merge(files) and len(merge(files)) == 2
    assert "wrote guard.jsonl (2 prompts)" in sanactl.said
    # Errors call stdin by its name, and not by that of a copy.
    end = piped.splitlines(keepends=True)[-1]
    assert sanactl.fails("merge", "-", stdin="", code=1).startswith("sanactl: stdin: is empty; ")
    for damaged, words in (
        (piped[:-1], "stdin: does not end with a shard's record"),
        (end, "stdin: shard 0/2 of guard has 0 records, and wrote 1"),
        (end.replace("places", "place"), "stdin: a shard's record that cannot be read"),
        (piped + piped, "shard 1/2 is there twice: in stdin and stdin"),
        (f"{{}}\n{end}", "stdin: shard 0/2 of guard was changed"),
    ):
        assert words in sanactl.fails("merge", "-", "-o", "x.jsonl", stdin=damaged)
    with files[0].open() as first, files[1].open() as second:
        pipes = [f"/dev/fd/{one.fileno()}" for one in (first, second)]
        assert sanactl("merge", *pipes, "-o", "p.jsonl") == merge(files)
        assert "shard 0/2 is missing" in sanactl.fails("merge", pipes[1], "-o", "x.jsonl")
    said = sanactl.fails("merge", *files, "-o", files[0], "--force", code=2)
    assert "is one of the files to merge" in said
    sanactl("guard", "p.txt", "-m", "builtin:words", "--shard", "0/3", "-o", "old.jsonl", "--blocked", "b")
    assert "leave out or remove old.jsonl" in sanactl.fails("merge", "old.jsonl", *files, "-o", "x.jsonl")


def test_a_folder_of_samples_is_merged_in_python(place: Path, sanactl: Program) -> None:
    """A missing shard is named before a list that is there already, and prompts without tags are one task."""
    Path("p.txt").write_text("a star\na red circle\n")
    for part in (Shard(0, 2), Shard(1, 2)):
        path = f"whole/0000{part.part}/samples/0000.png"
        drawn = {"kind": "image", "path": path, "prompt": "a star", "prompt_id": "0", "index": 0, "seed": 0}
        Path(path).parent.mkdir(parents=True)
        ending = Ending(part, "sample", {}, lambda: Whole(2, 1))
        list_part(Path("whole"), list(ending.after([(part.part, drawn)])), None, part)
    records = merge("whole", output="whole/images.jsonl")
    assert len(records) == 2 and Path("whole/metadata.csv").exists()
    Path("whole/images.1-of-2.jsonl").unlink()
    assert "shard 1/2 is missing" in sanactl.fails("merge", "whole")
    scale = ("scale", "tiny.st", "-p", "p.txt", "-n", "1", "-k", "1", "--steps", "1", "-m", "oracle")
    sanactl(*scale, "-o", "searched", "--shard", "1/2")
    assert "1 task for 2 jobs" in sanactl.said and "no prompts for this job" in sanactl.said


def test_jobs_search_as_one(place: Path, sanactl: Program) -> None:
    """Tasks are divided, not prompts: what is learned of a task decides about its prompts."""
    prompts = [dict(record, kind="prompt") for record in load_eval_prompts()[::45]]
    assert len({p["tag"] for p in prompts}) > 2
    Path("p.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    command = (
        "scale",
        "-p",
        "p.jsonl",
        "-n",
        "6",
        "--round",
        "2",
        "-k",
        "1",
        "--steps",
        "3",
        "-m",
        "oracle",
        "-o",
        "whole",
    )
    records = sanactl(*command)
    assert len({record["drawn"] for record in records}) == 3
    shutil.move("whole", "one")
    shutil.move("scale.jsonl", "one.jsonl")
    for part in (1, 0):
        sanactl(*command, "--shard", f"{part}/2")
    assert sanactl("merge", "scale.0-of-2.jsonl", "scale.1-of-2.jsonl") == records
    assert Path("scale.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    sanactl("merge", "whole")
    for listing in Path("whole").glob("images.*-of-2.jsonl"):
        listing.unlink()
    assert snapshot(Path("whole")) == snapshot(Path("one"))
    assert "--budget is for one job" in sanactl.fails(*command, "--budget", "30", "--shard", "0/2", code=2)


def test_jobs_encode_as_one(place: Path, sanactl: Program) -> None:
    command = ("encode", "tiny.st", "--count", "20", "--shard-size", "20KB")
    sanactl(*command, "-o", "one")
    assert len(list(Path("one").glob("0*.safetensors"))) > 3
    jobs(sanactl, *command, output="shared")
    assert "not finished" in sanactl.fails("finetune", "tiny.st", "-d", "shared", "--steps", "1")
    sanactl("merge", "shared")
    assert snapshot(Path("shared")) == snapshot(Path("one"))
    jobs(sanactl, *command, output="own-{}")
    said = sanactl.fails("merge", "own-0", "own-2", "-o", "joined")
    assert "00001.safetensors is in none of the folders" in said and not Path("joined").exists()
    sanactl("merge", "own-0", "own-1", "own-2", "-o", "joined")
    assert snapshot(Path("joined")) == snapshot(Path("one"))
    Path("shared/00002.safetensors").unlink()
    assert "00002.safetensors is in none" in sanactl.fails("merge", "shared")


def test_jobs_keep_scores_for_one(place: Path, sanactl: Program) -> None:
    pictures(21)
    command = ("eval", "geneval", "r.jsonl", "-b", "3")
    records = sanactl(*command, "-o", "one.jsonl")
    for part in (1, 0):
        assert sanactl(*command, "--shard", f"{part}/2") == []
    assert not Path("geneval.jsonl").exists() and len(list(place.glob(".*.partial"))) == 2
    assert sanactl(*command) == records
    assert "21 verdicts" in sanactl.said.replace("images", "verdicts") and not list(place.glob(".*.partial"))
    assert Path("geneval.jsonl").read_bytes() == Path("one.jsonl").read_bytes()


def test_what_is_not_complete_is_named(place: Path, sanactl: Program) -> None:
    pictures(12)
    parts = jobs(sanactl, "judge", "r.jsonl", "-m", "oracle", "-b", "3", of=4)[::-1]

    def fails(*files: str) -> str:
        said = sanactl.fails("merge", *files, "-o", "x.jsonl")
        assert not Path("x.jsonl").exists()
        return said

    assert "shard 2/4 is missing" in fails(parts[0], parts[1], parts[3])
    assert "shards 1/4, 3/4 are missing" in fails(parts[0], parts[2])
    assert "shard 1/4 is there twice: in part-1.jsonl and part-1.jsonl" in fails(*parts, parts[1])
    sanactl("judge", "r.jsonl", "-m", "oracle", "-b", "3", "-k", "2", "--shard", "2/4", "-o", "other.jsonl")
    assert "other.jsonl: shard 2/4 of judge is of other settings" in fails(
        *parts[:2], "other.jsonl", parts[3]
    )
    sanactl("judge", "r.jsonl", "-m", "oracle", "-b", "3", "--shard", "2/5", "-o", "five.jsonl")
    assert "not one division" in fails(*parts[:2], "five.jsonl")
    lines = Path(parts[1]).read_bytes().splitlines(keepends=True)
    for damaged, words in (
        (lines[:-1], "does not end with a shard's record"),
        (lines[1:], "has 1 records, and wrote 2"),
        ([lines[0], *lines], "has 3 records, and wrote 2"),
        (
            [lines[0].replace(b'"rank": 0', b'"rank": 1'), *lines[1:]],
            "was changed",
        ),
        ([*lines[:-1], lines[-1][:-1]], "does not end"),
        ([*lines[:-1], lines[-1].replace(b'"places"', b'"place"')], "cannot be read"),
        ([], "bad.jsonl: is empty"),
        ([bytes(range(256)) * 40], "does not end"),
        ([*lines[:-1], b'{"kind": "shard"' + b"[" * 100_000 + b"\n"], "cannot be read"),
    ):
        Path("bad.jsonl").write_bytes(b"".join(damaged))
        assert words in fails(parts[0], "bad.jsonl", *parts[2:]), words
    Path("folder").mkdir()
    assert "not merged together" in sanactl.fails("merge", parts[0], "folder", *parts[2:], code=2)
    assert "folder: holds no outputs of --shard" in sanactl.fails("merge", "folder")
    assert "gone.jsonl: no such file" in fails(parts[0], "gone.jsonl", *parts[2:])
    assert "is not a regular file" in fails(parts[0], "/dev/null", *parts[2:])
    assert "missing argument FILES" in sanactl.fails("merge", code=2)
    for value in ("4/4", "1", "-1/4", "a/b", "1/0", "1/999999", ""):
        assert "--shard" in sanactl.fails("judge", "r.jsonl", "--shard", value, code=2)
    assert "--force and --shard" in sanactl.fails("sample", "tiny.st", "--shard", "0/2", "--force", code=2)


@pytest.mark.slow
def test_jobs_of_two_processes_each(place: Path, sanactl: Program) -> None:
    """Both ways to divide the work at once."""
    prompts = "".join(json.dumps({**p, "kind": "prompt"}) + "\n" for p in load_eval_prompts()[::40])
    Path("p.jsonl").write_text(prompts)
    sample = ["sample", "tiny.st", "-p", "p.jsonl", "-n", "4", "--steps", "1", "-o", "images"]
    judge = ["judge", "images/images.jsonl", "-k", "2", "-b", "4", "--no-cache", "-o"]
    encode = ["encode", "tiny.st", "--count", "30", "--shard-size", "20KB", "-o", "latents"]
    for command in (sample, [*judge, "judge.jsonl"], encode):
        sanactl(*command)
    one = {name: snapshot(place / name) for name in ("images", "latents")}
    judged = Path("judge.jsonl").read_bytes()
    for name in one:
        shutil.rmtree(name)
    both = [("--shard", "0/2"), ("--shard", "1/2")]
    several = [[*sample, *shard] for shard in both] + [["merge", "images"]]
    several += [[*judge, f"{shard[1][0]}.jsonl", *shard] for shard in both]
    several += [["merge", "0.jsonl", "1.jsonl", "-o", "judge.jsonl", "-f"]]
    several += [[*encode, *shard] for shard in both] + [["merge", "latents"]]
    process = launched(2, SEVERAL, json.dumps(several), environment={})
    _, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    for listing in Path("images").glob("images.*-of-2.jsonl"):
        listing.unlink()
    assert {name: snapshot(place / name) for name in one} == one
    assert Path("judge.jsonl").read_bytes() == judged
