"""Reading ahead: other processes give the batches that this one would read, and its errors, and end with it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sanactl.data import TableSource, open_training_data
from sanactl.data.sources import Fetched
from sanactl.errors import InputError, TrainingError
from tests.fork_server import python_command
from tests.pictures import MIXED, spoil, write_folder, write_tars
from tests.program import Program, heed_interrupts
from tests.training.test_finetune import SETTINGS, Stopper, train, weights


def opened(reference: str | None, **options: Any) -> TableSource:
    source = open_training_data(reference, **{"seed": 0, "height": 64, "width": 64, **options})
    assert isinstance(source, TableSource)
    return source


def plan(source: TableSource, first: int = 0, steps: int = 8) -> Iterator[list[int]]:
    return (list(source.step(step, 3)[0]) for step in range(first, steps))


def read(source: TableSource, workers: int, first: int = 0, steps: int = 8) -> list[tuple[bytes, list[str]]]:
    """Every batch of some steps."""
    from sanactl.data.loader import ReadAhead

    ahead = ReadAhead(source, lambda: plan(source, first, steps), workers=workers)
    try:
        batches = [ahead.batch(positions) for positions in plan(source, first, steps)]
    finally:
        ahead.close()
    assert not multiprocessing.active_children()
    return [(images.numpy().tobytes(), captions) for images, captions in batches]


@pytest.mark.parametrize("kind", ["folder", "buckets", "tars", "stream", "shapes", "parquet", "bad"])
def test_the_same_batches_from_any_number_of_processes(place: Path, kind: str) -> None:
    folder = write_folder(place / "shots", 7, MIXED)
    write_tars(place / "tars", 2, 4)
    options: dict[str, dict[str, Any]] = {
        "buckets": {"buckets": True},
        "stream": {"streaming": True},
        "bad": {"max_bad": 2},
    }
    if kind == "parquet":
        import datasets

        (place / "parquet").mkdir()
        datasets.load_dataset("imagefolder", data_dir=str(folder), split="train").to_parquet(
            "parquet/0.parquet"
        )
    if kind == "bad":
        spoil(folder / "003.png")
        spoil(folder / "005.png")
    reference = {"tars": "tars", "stream": "tars", "shapes": None, "parquet": "parquet"}.get(kind, "shots")
    here = opened(reference, **options.get(kind, {}))
    wanted = [(images.tobytes(), captions) for images, captions in map(here.batch, plan(here))]
    for workers in (1, 2):
        source = opened(reference, **options.get(kind, {}))
        said: list[str] = []
        source.announce(said.append)
        assert read(source, workers) == wanted
        assert sorted(source.skipped) == sorted(here.skipped)
        assert len(said) == len(here.skipped) == (2 if kind == "bad" else 0)
    assert read(opened(reference, **options.get(kind, {})), 2, first=3) == wanted[3:]


def test_it_is_torchs_loader_over_a_dataset_by_position(place: Path) -> None:
    """Any example by its position, without the ones before it; the loader reads ahead in processes of its own."""
    from torch.utils.data import DataLoader, Dataset

    from sanactl.data.loader import PositionDataset, ReadAhead

    write_folder(place / "shots", 7)
    source = opened("shots")
    dataset = PositionDataset(source)
    assert isinstance(dataset, Dataset)
    for position in (20, 3, 11):
        fetched = dataset[position]
        images, (caption,) = opened("shots").batch([position])
        assert isinstance(fetched, Fetched) and fetched.image is not None
        assert fetched.caption == caption and (fetched.image == images[0]).all()
    ahead = ReadAhead(source, lambda: plan(source), workers=2)
    assert isinstance(ahead.loader, DataLoader)
    assert (ahead.loader.num_workers, ahead.loader.prefetch_factor, ahead.loader.pin_memory) == (2, 2, False)
    assert len(multiprocessing.active_children()) == 2
    ahead.close()


def test_the_order_of_an_epoch_is_a_function_of_seed_and_step(place: Path) -> None:
    """Whoever begins at a step, in whatever epoch, finds the examples that one who began at 0 finds there."""
    write_folder(place / "shots", 7, MIXED)
    for options in ({}, {"buckets": True}):
        whole = read(opened("shots", **options), 2, steps=12)  # five epochs
        for first in (1, 5, 9):
            assert read(opened("shots", **options), 1, first=first, steps=12) == whole[first:]
        assert read(opened("shots", seed=1, **options), 1, steps=12) != whole
    captions = [caption for _, some in whole for caption in some]
    assert len(set(captions)) == 7


@pytest.mark.parametrize("workers", [(0, 2), (2, 1)])
def test_a_stopped_run_goes_on_with_other_workers(place: Path, workers: tuple[int, int]) -> None:
    write_folder(place / "shots", 7)
    whole: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    settings = replace(SETTINGS, batch_size=3, workers=0)
    train("whole.st", settings, data=opened("shots"), on_step=whole.append)
    before, after = (replace(settings, workers=count) for count in workers)
    stopper = Stopper(4, signal.SIGTERM)
    assert train("parts.st", before, data=opened("shots"), progress=stopper)["step"] == 4
    train("parts.st", after, data=opened("shots"), on_step=parts.append)
    assert [p["loss"] for p in parts] == [p["loss"] for p in whole]
    one, two = weights("whole.st"), weights("parts.st")
    assert all((one[name] == two[name]).all() for name in one)


def test_errors_come_as_they_are(place: Path) -> None:
    folder = write_folder(place / "shots", 6)
    spoil(folder / "003.png")
    spoil(folder / "004.png")
    for options, said in (
        ({}, r"00[34]\.png.*--max-bad N"),
        ({"max_bad": 1}, r"00[34]\.png.*2 images cannot be read, and --max-bad allows 1; raise --max-bad"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read(opened("shots", **options), 2)
        assert "\n" not in str(caught.value)
    for file in folder.glob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="none of its images"):
        read(opened("shots", max_bad=6), 2)


def test_what_is_not_planned_is_read_at_once(place: Path) -> None:
    """A step that is looked at again, for its first layer that was not finite."""
    from sanactl.data.loader import ReadAhead

    write_folder(place / "shots", 6)
    source = opened("shots")
    steps = list(plan(source))
    ahead = ReadAhead(source, lambda: steps, workers=1)
    try:
        got = [ahead.batch(steps[n])[1] for n in (0, 1, 1, 0, 2, 7, 3)]
    finally:
        ahead.close()
    assert got == [source.batch(steps[n])[1] for n in (0, 1, 1, 0, 2, 7, 3)]


def test_a_process_that_is_killed(place: Path) -> None:
    from sanactl.data.loader import ReadAhead

    before = signal.getsignal(signal.SIGCHLD)
    write_folder(place / "shots", 6)
    source = opened("shots")
    steps = list(plan(source, steps=40))
    ahead = ReadAhead(source, lambda: steps, workers=1)
    try:
        assert signal.getsignal(signal.SIGCHLD) == before
        (worker,) = multiprocessing.active_children()
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        with pytest.raises(TrainingError, match=r"a process that reads images ended: .*; --workers 0"):
            for positions in steps:
                ahead.batch(positions)
    finally:
        ahead.close()


def test_signals_to_all_processes_of_a_job(place: Path) -> None:
    """SIGTERM to the whole group: training saves its state, and the same command goes on with another number."""
    write_folder(place / "shots", 6)
    command = [
        *python_command(),
        "-m",
        "sanactl",
        "finetune",
        "tiny.st",
        "--data",
        "shots",
        "--steps",
        "300",
        "-b",
        "2",
    ]
    command += ["--save-every", "1", "-o", "a.st", "--workers"]
    run = subprocess.Popen(
        [*command, "2"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, preexec_fn=heed_interrupts,
    )  # fmt: skip
    end = time.monotonic() + 240
    while not list(place.glob(".a.st.training/step-*")) and time.monotonic() < end and run.poll() is None:
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGTERM)
    out, err = run.communicate(timeout=240)
    assert run.returncode == 130, err
    assert "is saved, and the same command goes on from there" in err and "Traceback" not in err
    assert json.loads(out)["metric"] == "train_state"


def test_the_command(place: Path, sanactl: Program) -> None:
    """The same weights and losses with and without; the tokenizer does not warn."""
    from safetensors.numpy import load_file

    folder = write_folder(place / "shots", 9, MIXED)
    spoil(folder / "002.png")
    few = ("finetune", "tiny.st", "--data", "shots", "--buckets", "--max-bad", "1", "--steps", "3", "-b", "3")
    for workers in ("0", "2"):
        (record,) = sanactl(*few, "--accumulate", "2", "--workers", workers, "-o", f"{workers}.st")
        assert record["skipped"] == 1
        assert sanactl.said.count("002.png") == 1 and "tokenizers" not in sanactl.said
    one, two = load_file("0.st"), load_file("2.st")
    assert all((one[name] == two[name]).all() for name in one)
    said = sanactl.fails(
        "finetune", "tiny.st", "--data", "shots", "--steps", "3", "-b", "9", "--workers", "1"
    )
    assert "002.png" in said and "--max-bad N" in said
