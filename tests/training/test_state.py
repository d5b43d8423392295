"""Saved states: whole or not there, only good ones loaded or counted; one run at a time makes a target."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sanactl.errors import InputError
from sanactl.training.lock import TargetLock
from sanactl.training.state import TrainingState
from tests.program import Program, snapshot
from tests.training.test_finetune import SETTINGS, Stopper, train


class Small:
    """A run of nothing but an optimizer's steps, whose state after each is told by its weights."""

    def __init__(self, folder: Path, key: str = "k", keep_last: int = 2) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(3, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters())
        self.state = TrainingState(folder / "out.st", key, keep_last=keep_last)

    def to(self, last: int, *, done: int = 0) -> None:
        for step in range(done + 1, last + 1):
            self.model(torch.full((1, 3), float(step))).sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.state.history.append({"step": step, "loss": 1.0})
            self.state.save(step, self.model, self.optimizer, None)

    def load(self) -> int:
        return self.state.load(self.model, self.optimizer, None)

    def kept(self) -> list[str]:
        return sorted(p.name for p in self.state.folder.iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def replaced(path: Path, *, by_folder: bool) -> None:
    if by_folder:
        path.unlink()
        path.mkdir()
    else:
        shutil.rmtree(path)
        path.write_text("")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights cut short": lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:40]),
    "one bit of the weights": lambda f: flip(f / "model.safetensors"),
    "one bit of the optimizer": lambda f: flip(f / "optimizer.pt"),
    "optimizer empty": lambda f: (f / "optimizer.pt").write_bytes(b""),
    "optimizer gone": lambda f: (f / "optimizer.pt").unlink(),
    "weights gone": lambda f: (f / "model.safetensors").unlink(),
    "history of another length": lambda f: (f / "history.json").write_text("[]"),
    "state.json empty": lambda f: (f / "state.json").write_text(""),
    "state.json no object": lambda f: (f / "state.json").write_text("[1, 2]"),
    "state.json deep": lambda f: (f / "state.json").write_text("[" * 100_000),
    "state.json of another step": lambda f: (f / "state.json").write_text(
        (f / "state.json").read_text().replace('"step": 4', '"step": 5')
    ),
    "state.json names other files": lambda f: (f / "state.json").write_text(
        json.dumps({"step": 4, "key": "k", "files": {"../x": [1, 1]}})
    ),
    "state.json a folder": lambda f: replaced(f / "state.json", by_folder=True),
    "a file in its place": lambda f: replaced(f, by_folder=False),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_set_aside_and_pushes_out_no_good_one(tmp_path: Path, damage: str) -> None:
    whole = Small(tmp_path / "whole")
    (tmp_path / "whole").mkdir()
    whole.to(6)
    run = Small(tmp_path)
    run.to(4)
    DAMAGES[damage](tmp_path / ".out.st.training/step-00000004")
    again = Small(tmp_path)
    assert again.load() == 3
    if damage != "a file in its place":  # which is nobody's state, and is passed over
        assert again.kept() == ["damaged-step-00000004", "step-00000003"]
        (line,) = again.state.damaged
        assert "step-00000004 is damaged" in line and "set aside" in line
    assert again.state.newest() == again.state.weights(3)
    again.to(6, done=3)
    good = [name for name in again.kept() if name.startswith("step-")]
    assert good == ["step-00000005", "step-00000006"]
    last = Small(tmp_path)
    assert last.load() == 6
    assert torch.equal(last.model.weight, whole.model.weight)


def test_what_is_damaged_while_a_run_goes_on_does_not_count(tmp_path: Path) -> None:
    run = Small(tmp_path)
    run.to(2)
    (tmp_path / ".out.st.training/step-00000002/optimizer.pt").write_bytes(b"")
    run.to(3, done=2)
    assert run.kept() == ["step-00000001", "step-00000002", "step-00000003"]
    run.to(4, done=3)
    assert run.kept() == ["step-00000002", "step-00000003", "step-00000004"]


def test_with_damaged_ones_alone_the_run_does_not_begin_again_by_itself(tmp_path: Path) -> None:
    Small(tmp_path).to(2)
    for folder in (tmp_path / ".out.st.training").iterdir():
        flip(folder / "model.safetensors")
    for _ in range(2):
        with pytest.raises(InputError, match=r"step-00000002.*--restart"):
            Small(tmp_path).load()
    run = Small(tmp_path)
    run.state.clear()
    assert run.load() == 0
    run.to(1)
    assert Small(tmp_path).load() == 1


@pytest.mark.parametrize(
    ("place", "step"),
    [
        ("torch.save", 3),  # the weights are written, the optimizer is not
        ("sanactl.training.state.checksum", 3),  # all is written but what says so
        ("sanactl.files.atomic._publish_folder", 3),  # all is written, under no name
        ("shutil.rmtree", 4),  # the state has its name, an older one is still there
    ],
)
def test_a_kill_in_a_save_leaves_the_newest_whole_state(
    tmp_path: Path, place: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        run = Small(tmp_path)
        run.to(3)
        monkeypatch.setattr(place, lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL))
        run.to(4, done=3)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    run, whole = Small(tmp_path), Small(tmp_path / "undisturbed")
    assert (run.load(), run.state.damaged) == (step, [])
    run.to(6, done=step)
    whole.state.folder.parent.mkdir()
    whole.to(6)
    assert torch.equal(run.model.weight, whole.model.weight)
    assert run.state.history == whole.state.history
    assert run.kept() == whole.kept() == ["step-00000005", "step-00000006"]


def test_strangers_in_the_folder_are_passed_over(tmp_path: Path) -> None:
    run = Small(tmp_path)
    run.to(2)
    folder = tmp_path / ".out.st.training"
    shutil.copytree(folder / "step-00000002", folder / "step-00000002.bak")
    shutil.copytree(folder / "step-00000002", folder / "step-2")
    (folder / "step-99999999").symlink_to(folder / "step-00000002")
    (folder / "step-notes").mkdir()
    (folder / "step-00000007").write_text("a file")
    (folder / ".DS_Store").write_bytes(b"\0")
    Small(tmp_path, key="another").to(1)  # of another run: neither loaded nor dropped
    again = Small(tmp_path)
    assert again.load() == 2
    assert again.state.damaged == []
    again.to(4, done=2)
    assert [name for name in again.kept() if name.startswith("step-0000000")] == [
        "step-00000001", "step-00000002.bak", "step-00000003", "step-00000004", "step-00000007",
    ]  # fmt: skip
    again.state.clear()
    assert again.kept() == []


def test_a_state_that_does_not_fit_is_not_called_damaged(tmp_path: Path) -> None:
    Small(tmp_path).to(1)
    other = Small(tmp_path)
    other.model = torch.nn.Linear(4, 2)
    with pytest.raises(InputError, match="does not fit this run"):
        other.load()
    assert other.kept() == ["step-00000001"]


def test_the_program_goes_on_from_an_older_state_and_says_so(place: Path) -> None:
    settings = replace(SETTINGS, save_every=2, keep_last=2)
    train("whole.st", settings)
    with pytest.raises(KeyboardInterrupt):
        train("out.st", settings, progress=Stopper(4, signal.SIGINT))
    flip(place / ".out.st.training/step-00000004/optimizer.pt")
    notes = Stopper()
    train("out.st", settings, progress=notes)
    assert "damaged (optimizer.pt is not what was written)" in notes.notes
    assert "resuming at step 2 of 6" in notes.notes
    assert Path("out.st").read_bytes() == Path("whole.st").read_bytes()


HOLDER = """
import sys
from pathlib import Path
from sanactl.training.lock import TargetLock
with TargetLock(Path("out.st")):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_run_at_a_time_makes_a_target(place: Path, sanactl: Program) -> None:
    """Another run is refused before anything is loaded, and leaves nothing; a kill gives the target up."""
    command = ("finetune", "tiny.st", "--steps", "1", "-b", "2", "-o", "out.st")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert "out.st: another run is making it right now" in sanactl.fails(*command)
    assert holder.poll() is None
    holder.kill()
    holder.communicate()
    (record,) = sanactl(*command)
    assert record["path"] == "out.st"
    assert not list(place.glob(".*.training"))


def test_the_lock_outlives_neither_its_run_nor_its_folder(tmp_path: Path) -> None:
    target = tmp_path / "out.st"
    with TargetLock(target):
        with pytest.raises(InputError, match="another run"), TargetLock(target):
            pass
        (tmp_path / ".out.st.training/step-00000001").mkdir()
    assert (tmp_path / ".out.st.training/step-00000001").is_dir()
    shutil.rmtree(tmp_path / ".out.st.training")
    with TargetLock(target):
        pass
    assert snapshot(tmp_path) == {} and list(tmp_path.iterdir()) == []
    (tmp_path / ".out.st.training").write_text("")
    with pytest.raises(InputError, match="cannot be kept there"), TargetLock(target):
        pass
