"""Training on every kind of data: through the command, and stopped and resumed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from sanactl.checkpoint.open import open_checkpoint
from sanactl.data import open_training_data
from sanactl.files.progress import Progress
from sanactl.training.finetune import FinetuneSettings, finetune
from tests.pictures import MIXED, spoil, write_folder, write_tars
from tests.program import Program

SETTINGS = FinetuneSettings(
    steps=4, batch_size=3, learning_rate=1e-3, warmup=1, max_sequence_length=16, complex_human_instruction=False
)  # fmt: skip


class Stopper(Progress):
    """Ctrl-C once two steps are done."""

    done = 0

    def advance(self, count: int = 1, **fields: str) -> None:
        self.done += 1
        if self.done == 2:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("kind", ["buckets", "streaming", "bad", "captions"])
def test_a_stopped_run_ends_as_an_undisturbed_one(place: Path, kind: str) -> None:
    if kind == "streaming":
        write_tars(place / "data", 2, 4)
    else:
        write_folder(place / "data", 8, MIXED)
    every: dict[str, dict[str, Any]] = {
        "buckets": {"buckets": True}, "streaming": {"streaming": True}, "bad": {"max_bad": 2},
        "captions": {"captions": "text,short"},
    }  # fmt: skip
    options = every[kind]
    if kind == "bad":
        spoil(place / "data/002.png")

    def train(target: str, progress: Progress) -> None:
        data = open_training_data("data", seed=0, height=64, width=64, **options)
        finetune(open_checkpoint("tiny.st"), data, SETTINGS, target=Path(target), progress=progress)

    train("whole.st", Progress())
    with pytest.raises(KeyboardInterrupt):
        train("parts.st", Stopper())
    assert not Path("parts.st").exists()
    train("parts.st", Progress())
    assert Path("whole.st").read_bytes() == Path("parts.st").read_bytes()


def test_the_command(place: Path, sanactl: Program) -> None:
    write_tars(place / "tars", 2, 3)
    folder = write_folder(place / "shots", 6, MIXED)
    few = ("finetune", "tiny.st", "--steps", "2", "-b", "3")
    sanactl(
        *few, "--data", "tars/{000..001}.tar", "--streaming", "--captions", "txt,json.short", "-o", "a.st"
    )
    sanactl(*few, "--data", "shots", "--buckets", "--captions", "text:0.7,short:0.3", "-o", "b.st")
    for name in ("001.png", "003.png"):
        spoil(folder / name)
    sanactl(*few, "--data", "shots", "-o", "c.st", code=1)
    assert ("001.png" in sanactl.said or "003.png" in sanactl.said) and "--max-bad" in sanactl.said
    (record,) = sanactl(*few, "--data", "shots", "--max-bad", "2", "-o", "d.st")
    assert record["path"] == "d.st"
    named = [line for line in sanactl.said.splitlines() if "001.png" in line or "003.png" in line]
    assert sorted(name for line in named for name in ("001.png", "003.png") if name in line) == [
        "001.png",
        "003.png",
    ]
    said = sanactl.fails(*few, "--data", "tars", "--streaming", "--buckets", "-o", "e.st", code=2)
    assert "encode --streaming --buckets first" in said


def test_what_is_used_and_what_is_left_out_is_said(place: Path, sanactl: Program) -> None:
    folder = write_folder(place / "shots", 6)
    rows = (folder / "metadata.jsonl").read_text().splitlines()
    (folder / "metadata.jsonl").write_text("\n".join(rows[:4]))
    said = (
        "sanactl: using 4 examples of shots (images with metadata.jsonl); "
        "left out: 2 of 6 images, which have no line in metadata.jsonl\n"
    )
    sanactl("encode", "tiny.st", "--data", "shots", "-o", "latents")
    assert said in sanactl.said
    for data, line in (("shots", said), ("latents", "sanactl: using 4 examples of latents (encoded)\n")):
        sanactl("finetune", "tiny.st", "--data", data, "--steps", "1", "-b", "2", "-o", f"{data}.st")
        assert line in sanactl.said


def test_the_same_data_by_another_path(place: Path, sanactl: Program) -> None:
    """A finished run is found again, and so are encoded shards; changed images are neither."""
    folder = write_folder(place / "shots", 4)
    (place / "link").symlink_to("shots")
    few = ("--steps", "1", "-b", "2", "-o", "out.st")
    sanactl("finetune", "tiny.st", "--data", "shots", *few)
    sanactl("encode", "tiny.st", "--data", "shots", "-o", "latents")
    written = (place / "latents/00000.safetensors").stat().st_mtime_ns
    for name in ("shots/", "./shots", "link", str(folder)):
        sanactl("finetune", "tiny.st", "--data", name, *few)
        assert "out.st is there already, from the same inputs and settings" in sanactl.said
        sanactl("encode", "tiny.st", "--data", name, "-o", "latents")
        assert (place / "latents/00000.safetensors").stat().st_mtime_ns == written
    (folder / "001.png").write_bytes((folder / "002.png").read_bytes())
    sanactl("finetune", "tiny.st", "--data", "shots", *few, code=2)
    said = sanactl.fails("encode", "tiny.st", "--data", "shots", "-o", "latents", code=2)
    assert "encoded from other data" in said
