"""Bad input and trouble: one clear line, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from sanactl.checkpoint.builtin import asset
from sanactl.cli.app import main


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with base.st in it."""
    monkeypatch.chdir(tmp_path)
    assert main(["init", "shapes", "-o", "base.st"]) == 0
    return tmp_path


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """Runs a command that must fail, and gives its one line."""
    capsys.readouterr()
    before = {p for p in Path.cwd().rglob("*") if ".sanactl" not in p.parts}
    assert main(list(arguments)) == code
    said = capsys.readouterr()
    assert said.out == ""
    notes = ("sanactl: using", "sanactl: leaving out", "sanactl: keeping")
    lines = [line for line in said.err.splitlines() if not line.startswith(notes)]
    assert len(lines) == 1, said.err
    assert "Traceback" not in said.err
    after = {p for p in Path.cwd().rglob("*") if ".sanactl" not in p.parts}
    assert after == before, "a failed command left something behind"
    return lines[0]


def test_missing_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "gone.st" in fails(capsys, 1, "inspect", "gone.st")


def test_truncated_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (place / "base.st").read_bytes()
    (place / "half.st").write_bytes(whole[: len(whole) // 2])
    assert "half.st" in fails(capsys, 1, "grow", "half.st", "--to", "12")


def test_lying_header(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "lie.st").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")
    assert "lie.st" in fails(capsys, 1, "grow", "lie.st", "--to", "12")


def test_no_sana_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"model.layers.0.mlp.weight": np.zeros((2, 2), np.float32)}, place / "llama.st")
    assert "llama.st" in fails(capsys, 1, "inspect", "llama.st")


def test_wrong_key_set(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with safe_open(place / "base.st", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        metadata = file.metadata()
    del tensors["transformer_blocks.3.attn1.to_q.weight"]
    save_file(tensors, place / "holes.st", metadata)
    assert "transformer_blocks.3.attn1.to_q.weight" in fails(capsys, 1, "prune", "holes.st", "--blocks", "0")


def test_output_exists(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "base-d12.st").write_text("mine")
    assert "--force" in fails(capsys, 2, "grow", "base.st", "--to", "12")
    assert (place / "base-d12.st").read_text() == "mine"
    assert main(["grow", "base.st", "--to", "12", "--force"]) == 0


def test_bad_record_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"kind": "image", "path": "x.png", "prompt": "a photo of a star"})
    (place / "r.jsonl").write_text(f"{good}\n{{nonsense\n")
    assert "r.jsonl, line 2" in fails(capsys, 1, "eval", "geneval", "r.jsonl")
    (place / "k.jsonl").write_text(f"{good}\n[1]\n")
    assert "k.jsonl, line 2" in fails(capsys, 1, "judge", "k.jsonl", "--model", "oracle")


def test_unknown_prompt_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing.txt" in fails(capsys, 1, "sample", "base.st", "--prompts", "nothing.txt")
    (place / "empty.txt").write_text("\n")
    assert "empty.txt" in fails(capsys, 1, "importance", "base.st", "-p", "empty.txt")


def test_importance_of_another_checkpoint(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        {"kind": "block", "checkpoint": "other.st", "digest": "sha256:0", "block": i, "importance": 0.1}
        for i in range(10)
    ]
    (place / "i.jsonl").write_text("\n".join(map(json.dumps, lines)))
    said = fails(capsys, 1, "prune", "base.st", "--importance", "i.jsonl", "--keep", "4")
    assert "another checkpoint" in said


def test_prune_without_importance(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "sanactl importance" in fails(capsys, 1, "prune", "base.st", "--keep", "4")
    assert "--keep" in fails(capsys, 2, "prune", "base.st")


@pytest.mark.parametrize(
    "arguments",
    [
        ["grow", "base.st"],
        ["grow", "base.st", "--to", "12", "--init", "magic"],
        ["grow", "base.st", "--to", "5"],
        ["nonsense"],
        ["grow", "--nonsense"],
        ["finetune", "base.st", "--optimizer", "sgd"],
        ["sample", "base.st", "--device", "warp"],
        ["judge"],
    ],
)
def test_wrong_usage(place: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = set(place.rglob("*"))
    assert main(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert {p for p in set(place.rglob("*")) - before if ".sanactl" not in p.parts} == set()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonsense"], "no such command: nonsense; see sanactl --help"),
        (["growth"], "no such command: growth; did you mean grow? see sanactl --help"),
        (["eval", "genval"], "no such command genval; did you mean geneval? see sanactl eval --help"),
        (["grow", "--too", "12"], "no such option: --too; did you mean --to? see sanactl grow --help"),
        (
            ["prune", "--param", "1B"],
            "no such option: --param; did you mean --params? see sanactl prune --help",
        ),
        (["grow", "base.st", "-n"], "no such option: -n; see sanactl grow --help"),
        (
            ["grow", "--to", "many"],
            "invalid value for --to: it should be a whole number; see sanactl grow --help",
        ),
        (["grow", "--to"], "option --to requires an argument; see sanactl grow --help"),
        (["grow", "base.st", "other.st"], "unexpected argument other.st; see sanactl grow --help"),
        (
            ["sample", "-n", "x"],
            "invalid value for --count: it should be a whole number; see sanactl sample --help",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    place: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(capsys, 2, *arguments) == f"sanactl: {says}"


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("notes.txt", "hello", "name a .st file"),
        ("model.st", "a longer text that is no checkpoint\n", "name a .st file"),
        ("records.jsonl", '{"kind": "image"}\n', "< records.jsonl"),
        ("config.json", '{"num_layers": 4}\n', "name its folder, ."),
    ],
)
def test_a_text_file_is_no_checkpoint(
    place: Path, name: str, text: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / name).write_text(text)
    for command in (["inspect"], ["grow", "--to", "12"], ["log"]):
        said = fails(capsys, 1, command[0], name, *command[1:])
        assert f"{name} is a text file, not a checkpoint" in said
        assert hint in said


@pytest.mark.parametrize("name", ["x.txt", "x.bin", "x.safetensor", "x.pt", "x.ST2"])
def test_a_suffix_that_is_not_written(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, 2, "convert", "base.st", "-o", name)
    assert "cannot write" in said
    assert ".pth" in said


def test_an_empty_name_is_not_this_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "name is empty" in fails(capsys, 1, "inspect", "")


@pytest.mark.parametrize("command", [["grow", "--to", "12"], ["prune", "--drop", "1"]])
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_dry_run_refuses_what_the_run_refuses(
    place: Path, command: list[str], dry: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = [command[0], "base.st", *command[1:], *dry, "-o"]
    said = fails(capsys, 2, *run, "x.pth")
    assert f"{command[0]} writes no .pth (x.pth); write a .st, and sanactl convert" in said
    said = fails(capsys, 2, *run, "x.bin")
    assert "writes no .bin (x.bin)" in said
    assert ".pth" not in said
    assert "already exists" in fails(capsys, 2, *run, "base.st")
    assert "mkdir -p gone" in fails(capsys, 1, *run, "gone/x.st")
    assert "is not a size" in fails(capsys, 2, *run, "x", "--shard-size", "many")
    assert main([*run, "base.st", "--force"]) == 0


def test_a_version_is_no_suffix(place: Path) -> None:
    assert main(["convert", "base.st", "-o", "sana-1.5"]) == 0
    assert (place / "sana-1.5" / "config.json").is_file()


def test_damaged_image(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    record = {"kind": "image", "path": "broken.png", "prompt": "a photo of a star", "tag": "single_object"}
    (place / "r.jsonl").write_text(json.dumps({**record, "include": [{"class": "star", "count": 1}]}))
    assert "broken.png" in fails(capsys, 1, "eval", "geneval", "r.jsonl")


def test_folder_without_captions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "shots").mkdir()
    assert "shots" in fails(capsys, 1, "finetune", "base.st", "--data", "shots/", "--steps", "1")
    assert "nowhere" in fails(capsys, 1, "finetune", "base.st", "--data", "./nowhere", "--steps", "1")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert "locked" in fails(capsys, 1, "grow", "base.st", "--to", "12", "-o", "locked/x.st")


def test_full_disk(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A limit on file size stands for a full disk: the write fails in the middle."""
    import resource
    import signal

    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        said = fails(capsys, 1, "grow", "base.st", "--to", "12")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert "base-d12.st" in said


def test_nan_stops_training_and_keeps_the_last_good_weights(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with safe_open(place / "base.st", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["proj_out.bias"][0] = np.nan
    save_file(tensors, place / "nan.st", metadata)
    capsys.readouterr()
    assert main(["finetune", "nan.st", "--steps", "2", "-b", "2"]) == 1
    said = capsys.readouterr().err
    assert "stopped at step 1: the loss is nan" in said
    assert "Traceback" not in said
    assert not (place / "nan-ft2.st").exists()


def test_builtin_assets_are_small() -> None:
    """All of the built-in world together stays under 20 MB."""
    assert sum(p.stat().st_size for p in asset("").rglob("*") if p.is_file()) < 20_000_000
