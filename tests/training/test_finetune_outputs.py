"""`finetune`: what cannot be written or trained is told before anything is loaded; the figures beside the result."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from sanactl.records.records import load_records
from sanactl.training.figures import FiguresFile, figures_path
from tests.program import Program, snapshot
from tests.training.test_finetune import SETTINGS, Stopper, train

SHORT_RUN = ("finetune", "tiny.st", "--steps", "3", "-b", "2", "-o", "out.st")


def test_a_cut_run_leaves_the_figures_of_the_finished_one(place: Path, sanactl: Program) -> None:
    """With --force the result of the earlier run stays until there is a new one, and so do its figures."""
    sanactl(*SHORT_RUN)
    finished = snapshot(place)
    figures = FiguresFile(figures_path(Path("out.st")), Path("out.st"))
    with figures:
        train("out.st", SETTINGS, force=True, progress=Stopper(2, signal.SIGTERM), on_step=figures.add)
    kept = {k: v for k, v in snapshot(place).items() if ".training" not in k}
    assert kept == finished
    sanactl(*SHORT_RUN, "--seed", "1", "--force")
    points = load_records(place / "out.train.jsonl")
    assert [p["step"] for p in points] == [1, 2, 3]
    assert (place / "out.train.jsonl").read_bytes() != finished["out.train.jsonl"]


def test_a_torn_line_of_a_killed_run_is_mended_by_the_next(place: Path, sanactl: Program) -> None:
    (place / "out.train.jsonl").write_text('{"kind": "score", "metric": "train_loss", "step": 1, "lo')
    sanactl(*SHORT_RUN)
    assert [p["step"] for p in load_records(place / "out.train.jsonl")] == [1, 2, 3]


def test_figures_that_a_disk_does_not_take_end_no_training(tmp_path: Path) -> None:
    """/dev/full answers every write with "no space left"."""
    (tmp_path / "out.train.jsonl").symlink_to("/dev/full")
    told: list[str] = []
    figures = FiguresFile(tmp_path / "out.train.jsonl", tmp_path / "out.st", told.append)
    with figures:
        for step in (1, 2):
            figures.add({"step": step, "loss": 0.5})
        (line,) = told
        assert "no space left" in line
        figures.finish()
    assert [r["step"] for r in load_records(tmp_path / "out.train.jsonl")] == [1, 2]


BAD_OUTPUTS = [
    ("x.pth", "writes no .pth files", 2), ("x.txt", "writes no .txt files", 2), ("x", "and not a folder", 2),
    ("a-folder.st", "and not a folder", 2), ("gone/x.st", "gone does not exist", 1),
    ("other.st", "other.train.jsonl", 2), ("pipe.st", "pipe.train.jsonl: it is not a regular file", 1),
    ("state.st", ".state.st.training", 1), ("logs.st", "logs.tensorboard", 1),
]  # fmt: skip


@pytest.mark.parametrize(("output", "said", "code"), BAD_OUTPUTS, ids=[o for o, _, _ in BAD_OUTPUTS])
def test_outputs_are_looked_at_before_anything_is_loaded(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch, output: str, said: str, code: int
) -> None:
    (place / "a-folder.st").mkdir()
    (place / "other.train.jsonl").write_text("a shopping list\n")
    os.mkfifo(place / "pipe.train.jsonl")
    (place / ".state.st.training").write_text("")
    (place / "logs.tensorboard").write_text("")
    pytest.importorskip("tensorboard")
    for late in ("sanactl.data.open_training_data", "sanactl.training.models.load_transformer"):
        monkeypatch.setattr(late, None)
    command = ("finetune", "tiny.st", "--steps", "1", "-b", "2", "--tracker", "tensorboard", "-o", output)
    assert said in sanactl.fails(*command, code=code)
    if output == "a-folder.st":  # --force replaces a file, and no folder
        assert said in sanactl.fails(*command, "--force", code=code)


def test_a_folder_without_permission_is_found_before_training(place: Path, sanactl: Program) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o555)
    if os.access(closed, os.W_OK):
        pytest.skip("whoever may write everywhere finds nothing closed")
    said = sanactl.fails("finetune", "tiny.st", "--steps", "1", "-b", "2", "-o", "closed/x.st")
    assert "no permission to write in closed" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lr", "inf"), "--lr inf"), (("--lr", "nan"), "--lr"), (("--clip", "inf"), "--clip inf"),
        (("--flow-shift", "0"), "leaves no noise"),
        (("--code", "zero", "--optimizer", "adamw"), "--scheme is for"),
    ],
)  # fmt: skip
def test_settings_that_train_nothing(
    place: Path, sanactl: Program, options: tuple[str, ...], said: str
) -> None:
    assert said in sanactl.fails("finetune", "tiny.st", "--steps", "1", "-b", "2", *options, code=2)


def test_any_seed_that_a_number_of_json_holds(place: Path, sanactl: Program) -> None:
    sanactl("finetune", "tiny.st", "--steps", "1", "-b", "2", "--seed", str(2**53 - 1), "-o", "out.st")


def test_sana_sprint_is_told_apart(place: Path, sanactl: Program) -> None:
    """A student is refused, and so is a teacher: flow matching is not what it was trained by."""
    sprint(Path("tiny.st"), Path("sprint.st"))
    few = ("--steps", "1", "-b", "2", "-o", "out.st")
    said = sanactl.fails("finetune", "sprint.st", *few, code=2)
    assert "SANA-Sprint" in said and "flow matching" in said
    said = sanactl.fails("finetune", "tiny.st", "--teacher", "sprint.st", *few, code=2)
    assert "cannot teach" in said and "SANA-Sprint" in said


def sprint(source: Path, target: Path) -> None:
    """The checkpoint with a guidance embedding, as SANA-Sprint has one."""
    from sanactl.checkpoint.sana import expected_tensors

    with safe_open(source, "pt") as file:
        metadata = file.metadata()
    config = {**json.loads(metadata["config"]), "guidance_embeds": True}
    held = load_file(source)
    tensors = {
        name: held.get(name, torch.zeros(shape, dtype=torch.float16))
        for name, shape in expected_tensors(config).items()
    }
    save_file(tensors, target, metadata | {"config": json.dumps(config)})
