"""Several processes under `torchrun`: one stdout, and what one process gives."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.fork_server import kill, python_command
from tests.program import Program, snapshot

# With --cpu it would start one process.
ACCELERATE = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "3"),
    *("--num_machines", "1", "--main_process_port", "0", "-m", "sanactl"),
]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def torchrun(processes: int = 2) -> list[str]:
    """The beginning of a command line, in place of `python`, for several processes on this machine, by gloo."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
    launcher += ["--rdzv-endpoint", "localhost:0", "--no-python"]
    return [*python_command(), *launcher, *python_command()]


def kill_second(folder: Path) -> None:
    """SIGKILL to the process of rank 1 that works in a folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cwd() == str(folder) and process.environ().get("RANK") == "1":
                found.append(process)
    (second,) = found
    kill(second)


def two(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """A command in two processes."""
    return subprocess.run(
        [*torchrun(), "-m", "sanactl", *arguments],
        input=stdin,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
    )


def test_two_processes_sample_as_one(place: Path, sanactl: Program) -> None:
    """The same images, records and folder; the prompts come through a pipe that both share."""
    prompts = "".join(
        json.dumps({"kind": "prompt", "prompt": f"a photo of {n} stars"}) + "\n" for n in range(7)
    )
    few = ("sample", "tiny.st", "-n", "3", "--steps", "2")
    records = sanactl(*few, stdin=prompts)
    alone = snapshot(place / "tiny-samples")
    shutil.move("tiny-samples", "alone")
    done = two(*few, stdin=prompts)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == records
    assert snapshot(place / "tiny-samples") == alone
    assert done.stderr.count("sampling: 21/21") <= 1
    journal = (place / ".sanactl/journal.jsonl").read_text().splitlines()
    assert len(journal) == 2


def test_two_processes_train_as_one(place: Path, sanactl: Program) -> None:
    """Also where the batch is no multiple of the processes: the gradient is the whole batch's mean."""
    few = (
        "finetune",
        "tiny.st",
        "--steps",
        "4",
        "-b",
        "5",
        "--optimizer",
        "adamw",
        "--lr",
        "1e-4",
        "--warmup",
        "1",
    )
    (one,) = sanactl(*few, "-o", "one.st")
    done = two(*few, "-o", "two.st")
    assert done.returncode == 0, done.stderr
    (record,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert record["loss"] == pytest.approx(one["loss"], rel=1e-3)
    curves = [
        [json.loads(line)["loss"] for line in Path(f"{name}.train.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    start, first, second = (load_file(f"{name}.st") for name in ("tiny", "one", "two"))
    moved = np.mean([np.abs(first[k].astype(float) - start[k]).mean() for k in start])
    apart = np.mean([np.abs(first[k].astype(float) - second[k]).mean() for k in start])
    assert apart < 0.05 * moved
    assert not list(place.glob(".*.training"))


def test_a_finished_run_asked_for_again_ends_on_every_process(place: Path, sanactl: Program) -> None:
    few = ("finetune", "tiny.st", "--steps", "2", "-b", "2", "-o", "out.st")
    (record,) = sanactl(*few)
    again = two(*few)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["digest"] == record["digest"]
    assert again.stderr.count("is there already") == 1


def test_a_process_that_dies_ends_the_others_with_one_line(place: Path, sanactl: Program) -> None:
    few = ("finetune", "tiny.st", "--steps", "400", "-b", "4", "--save-every", "2", "-o", "out.st")
    process = subprocess.Popen(
        [*torchrun(), "-m", "sanactl", *few], env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not list(place.glob(".out.st.training/step-00000002")) and time.monotonic() < until:
        time.sleep(0.01)
    kill_second(place)
    killed = time.monotonic()
    out, said = process.communicate(timeout=100)
    assert time.monotonic() - killed < 60
    assert process.returncode == 1
    assert out == ""
    assert said.count("another process of this run ended") == 1, said
    assert "unexpected" not in said
    assert "the same command goes on from there" in said  # what was done is not lost


@pytest.mark.parametrize(
    "first", [pytest.param(2, id="2 then 1"), pytest.param(1, id="1 then 2", marks=pytest.mark.slow)]
)
def test_a_run_goes_on_with_another_number_of_processes(place: Path, sanactl: Program, first: int) -> None:
    """Terminated on the way, as a scheduler does it, and finished by another number of processes."""
    few = (
        "--steps",
        "14",
        "-b",
        "4",
        "--optimizer",
        "adamw",
        "--lr",
        "1e-4",
        "--warmup",
        "1",
        "--save-every",
        "2",
    )
    sanactl("finetune", "tiny.st", *few, "-o", "whole.st")
    part = ("finetune", "tiny.st", *few, "-o", "parts.st")
    process = subprocess.Popen(
        [*(torchrun() if first == 2 else python_command()), "-m", "sanactl", *part], env=ENVIRONMENT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not list(place.glob(".parts.st.training/step-00000002")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    out, said = process.communicate(timeout=100)
    (record,) = [json.loads(line) for line in out.splitlines()]
    assert (record["kind"], record["metric"], record["of"]) == ("score", "train_state", 14), said
    assert 2 <= record["step"] < 14
    assert process.returncode == 130 or first == 2  # torchrun has an exit code of its own
    assert not Path("parts.st").exists()
    # What comes behind in a pipe does not take it for the result.
    assert "no checkpoint" in sanactl.fails("inspect", "-", stdin=out)
    if first == 1:
        done = two(*part)
        assert done.returncode == 0, done.stderr
        said = done.stderr
    else:
        sanactl(*part)
        said = sanactl.said
    assert f"resuming at step {record['step']} of 14" in said
    start, whole, parts = (load_file(f"{name}.st") for name in ("tiny", "whole", "parts"))
    moved = np.mean([np.abs(whole[k].astype(float) - start[k]).mean() for k in start])
    apart = np.mean([np.abs(whole[k].astype(float) - parts[k]).mean() for k in start])
    assert apart < 0.05 * moved


def test_other_ways_of_dividing_a_model_are_refused(
    place: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `accelerate launch --use_deepspeed` asks for it."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    said = sanactl.fails("finetune", "tiny.st", "--steps", "1", "-b", "2", code=2)
    assert "DeepSpeed" in said and "DDP" in said


def test_a_batch_that_cannot_be_shared(place: Path) -> None:
    done = two("finetune", "tiny.st", "--steps", "1", "-b", "1", "-o", "x.st")
    assert done.returncode != 0
    # One line, from the first process, and the same exit code of all.
    assert done.stderr.count("cannot be shared by 2 processes") == 1, done.stderr
    assert "exitcode  : 2" in done.stderr and "(process 1)" not in done.stderr
    assert not (place / "x.st").exists()


def judged_pictures(count: int) -> None:
    """Pictures of the built-in world with their records, some of them twice."""
    rng = np.random.default_rng(5)
    lines = []
    for i in range(count):
        prompt = load_eval_prompts()[12 * (i // 4)]
        if i % 7:  # else the picture before, with this record
            write_png(render(scene_for(prompt, rng)), Path(f"{i}.png"))
        record = {"kind": "image", "path": f"{i if i % 7 else max(i - 1, 1)}.png", "prompt_id": str(i // 4)}
        lines.append(json.dumps({**prompt, **record, "samples": 4, "index": i % 4}) + "\n")
    Path("r.jsonl").write_text("".join(lines))


JUDGE = ("judge", "r.jsonl", "--all", "-b", "3")
ROOT = Path(__file__).parents[2]
SLOW = """
import sys, time
from sanactl.cli.app import main
from sanactl.judging.backends.oracle import OracleJudge
from sanactl.judging.registry import JUDGES

class Slow(OracleJudge):
    def judge(self, images, records):
        time.sleep(0.5)
        return super().judge(images, records)

JUDGES["oracle"] = Slow
sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_judge_as_one(
    tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is killed midway: one line, and the verdicts so far are kept. Then the same command ends as one process does."""
    monkeypatch.chdir(tmp_path)
    judged_pictures(48)
    Path("slow.py").write_text(SLOW)
    slowly = [*torchrun(), "slow.py", *JUDGE, "--model", "oracle"]
    process = subprocess.Popen(
        slowly, env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 200
    while not list(tmp_path.glob(".sanactl/verdicts/*.jsonl")) and time.monotonic() < until:
        time.sleep(0.005)
    kill_second(tmp_path)
    _, said = process.communicate(timeout=100)
    assert process.returncode == 1
    own = [line for line in said.splitlines() if line.startswith("sanactl")]
    assert (
        len([line for line in own if "another process of this run ended" in line or "interrupted;" in line])
        == 1
    )
    assert "unexpected" not in said and not Path("judge.jsonl").exists(), said
    done = two(*JUDGE, "--model", "oracle")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "taken over" in line]
    assert int(line.split()[1]) >= 6
    shutil.rmtree(".sanactl")
    whole = sanactl(*JUDGE, "--model", "oracle", "-o", "whole.jsonl")
    assert [json.loads(line) for line in done.stdout.splitlines()] == whole
    assert Path("judge.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_three_processes_judge_as_one(
    tmp_path: Path, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records through a pipe that all share; also as `accelerate launch` starts them, and an image that is damaged."""
    monkeypatch.chdir(tmp_path)
    judged_pictures(40)
    whole = sanactl(*JUDGE, "-o", "whole.jsonl")
    shutil.rmtree(".sanactl")
    three = [*torchrun(3), "-m", "sanactl"]
    records = Path("r.jsonl").read_text()
    few = ("judge", "-", "--all", "-b", "3")
    for number, launcher in enumerate([three, ACCELERATE]):
        done = subprocess.run(
            [*launcher, *few, "-o", f"{number}.jsonl", "--no-cache"],
            input=records, env=ENVIRONMENT, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()] == whole
        assert Path(f"{number}.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
        assert len(Path(".sanactl/journal.jsonl").read_text().splitlines()) == number + 1
    shutil.rmtree(".sanactl")
    Path("20.png").write_bytes(Path("20.png").read_bytes()[:60])
    done = subprocess.run(
        [*three, *few], input=records, env=ENVIRONMENT, capture_output=True, text=True, timeout=280
    )
    own = [line for line in done.stderr.splitlines() if line.startswith(("sanactl:", "sanactl ("))]
    own = [line for line in own if "judging with" not in line]  # progress, which a slow machine shows
    assert len(own) == 1 and "20.png: not a readable image" in own[0], done.stderr
    assert "exitcode  : 1" in done.stderr and not Path("judge.jsonl").exists()
    # The batches before, and those beside it, are kept.
    (kept,) = tmp_path.glob(".sanactl/verdicts/*.jsonl")
    assert kept.read_bytes().count(b"\n") == 5
