"""`finetune --fsdp` (FSDP2): what one process gives, on any number of them, also where it goes on with another number."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from sanactl.checkpoint.open import open_checkpoint
from sanactl.training.memory_plan import plan_memory
from sanactl.training.settings import FinetuneSettings
from tests.cli.test_processes import ENVIRONMENT, ROOT, kill_second, torchrun
from tests.program import Program
from tests.training.sharded_cases import run

CASES = Path(__file__).with_name("sharded_cases.py")

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def sharded(*runs: str, processes: int = 2) -> None:
    """Several runs of `sharded_cases`, in one start of the processes."""
    done = subprocess.run(
        [*torchrun(processes), str(CASES), "tiny.st", *runs],
        env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def alone(where: str, stop: int = 0) -> None:
    run(Path(where).name, Path("tiny.st"), Path(where).parent, fsdp=False, stop=stop)


def apart(a: str, b: str) -> float:
    """The distance of two results over the way from the beginning to the first."""
    first, second, start = (load_file(f"{name}.st") for name in (a, b, "tiny"))
    assert first.keys() == second.keys()
    difference = sum(np.square(first[k].astype(float) - second[k]).sum() for k in first)
    way = sum(np.square(first[k].astype(float) - start[k]).sum() for k in first)
    return float(np.sqrt(difference / way))


def folders(*names: str) -> None:
    for name in names:
        Path(name).mkdir()


@pytest.mark.timeout(300)
def test_two_processes_train_a_sharded_model_as_one(place: Path) -> None:
    """With uneven shares and parts, an average, checkpointing; CAME-8bit begun by two processes and ended by one."""
    folders("one", "two")
    sharded("two/adamw", "two/came8bit@2")
    (state,) = Path("two/.came8bit.st.training").iterdir()
    assert {"optimizer.safetensors", "average.safetensors"} < {file.name for file in state.iterdir()}
    for name in ("one/adamw", "one/came8bit", "two/came8bit"):
        alone(name)
    assert apart("one/adamw", "two/adamw") < 2e-3
    # 8-bit codes that rounding moves to the next level; DDP gives 0.02 as well.
    assert apart("one/came8bit", "two/came8bit") < 0.06
    assert not list(place.glob("*/.*.training"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sharded_runs_go_on_with_any_number_of_processes(place: Path) -> None:
    """One, then two, then three processes; and two, stopped and begun again, bit for bit as undisturbed."""
    folders("one", "two", "parts")
    for name in ("came", "came8bit", "adamw"):
        alone(f"parts/{name}", stop=1)
        alone(f"one/{name}")
    sharded("parts/came@2", "parts/came8bit@2", "parts/adamw@2", "two/came8bit", "two/adamw")
    sharded("parts/came", "parts/came8bit", "parts/adamw", processes=3)
    assert apart("one/adamw", "parts/adamw") < 2e-3
    assert apart("one/came", "parts/came") < 0.06
    assert apart("one/came8bit", "parts/came8bit") < 0.06
    folders("again")
    sharded("again/came8bit@2", "again/adamw@1")
    sharded("again/came8bit", "again/adamw")
    for name in ("came8bit", "adamw"):
        first, second = (load_file(f"{folder}/{name}.st") for folder in ("two", "again"))
        assert all(np.array_equal(first[key], second[key]) for key in first), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_adapters_and_a_teacher_with_a_sharded_model(place: Path, sanactl: Program) -> None:
    """Adapters begin with the same random numbers; a teacher is divided as well. Stopped by two, ended by one."""
    sanactl("grow", "tiny.st", "--to", "5", "-o", "teacher.st")
    folders("one", "two")
    sharded("two/lora", "two/teacher@2")
    shutil.copytree("two", "parts")
    for name in ("one/lora", "one/teacher", "parts/teacher"):
        alone(name)
    sharded("two/teacher")
    assert apart("one/lora", "two/lora") < 2e-2
    assert apart("one/teacher", "two/teacher") < 0.06
    assert apart("one/teacher", "parts/teacher") < 0.06


def test_the_plan_of_a_sharded_run(place: Path) -> None:
    checkpoint = open_checkpoint("tiny.st")
    whole, share = (
        plan_memory(checkpoint, FinetuneSettings(fsdp=fsdp), device=torch.device("cpu"), processes=4)
        for fsdp in (False, True)
    )
    for part in ("weights", "optimizer"):
        assert share.parts[part] == whole.parts[part] // 4
    assert "buckets" in whole.parts and "buckets" not in share.parts
    assert "collected blocks" in share.parts and "collected blocks" not in whole.parts
    assert "--fsdp" in whole.savers and "--fsdp" not in share.savers


def test_sharding_that_cannot_be(place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("finetune", "tiny.st", "--steps", "1", "-b", "2")
    said = sanactl.fails(*few, "--fsdp", "--optimizer", "adamw8bit", code=2)
    assert "--fsdp is for --optimizer came8bit or came or adamw" in said
    # As `accelerate launch` asks for it.
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    assert "fsdp_version: 2" in sanactl.fails(*few, code=2)
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    assert "offload to the CPU" in sanactl.fails(*few, code=2)
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "false")
    monkeypatch.setenv("SANACTL_LAUNCHER_SHARDS", "false")  # and so that it is as before after the test
    for _ in range(2):
        sanactl(*few, "--force")
        assert "this is the only one" in sanactl.said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sharded_run_that_is_stopped_or_loses_a_process(place: Path) -> None:
    """SIGKILL of one process: one line, and the last state. SIGTERM: that step's state. Weights that are too large: a line."""
    few = ("--fsdp", "--steps", "400", "-b", "4", "--save-every", "2", "--lr", "1e-5", "-o", "out.st")
    command = [*torchrun(), "-m", "sanactl", "finetune", "tiny.st", *few]

    def started(step: int) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 200
        while not list(place.glob(f".out.st.training/step-{step:08d}")) and time.monotonic() < until:
            time.sleep(0.01)
        return process

    process = started(2)
    kill_second(place)
    out, said = process.communicate(timeout=100)
    assert (process.returncode, out) == (1, "")
    assert said.count("another process of this run ended") == 1, said
    assert "the same command goes on from" in said
    assert list(place.glob(".out.st.training/step-*"))
    process = started(8)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=100)
    (record,) = [json.loads(line) for line in out.splitlines()]
    assert record["metric"] == "train_state" and "resuming at step" in said
    assert list(place.glob(f".out.st.training/step-{record['step']:08d}")), said
    done = subprocess.run(
        [*command[:-10], "--fsdp", "--steps", "9", "-b", "4", "--lr", "1e20", "--clip", "0", "-o", "nan.st"],
        env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("training stopped at step") == 1, done.stderr
    assert "first not finite: the" in done.stderr and "the last good weights are in" in done.stderr
