"""Two machines, which are two launchers here, each in a folder of its own: what one process gives."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.cli.test_eval_processes import SEVERAL
from tests.cli.test_processes import ENVIRONMENT, ROOT
from tests.fork_server import python_command
from tests.program import Program, snapshot

CONFIGURATION = ROOT / "recipes/accelerate-multinode.yaml"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def accelerate(machine: int, each: int, port: int) -> list[str]:
    """As in the recipe, with as many processes as are wanted here in place of the sixteen, and this machine's address."""
    launcher = ["-m", "accelerate.commands.launch", "--config_file", str(CONFIGURATION), "--no_python"]
    launcher += ["--machine_rank", str(machine), "--num_processes", str(2 * each)]
    return [*launcher, "--main_process_ip", "127.0.0.1", "--main_process_port", str(port)]


def torchrun(machine: int, each: int, port: int) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", str(each), "--no-python"]
    return [*launcher, "--node-rank", str(machine), "--master-addr", "127.0.0.1", "--master-port", str(port)]


def commands(folder: Path, start: Path) -> list[list[str]]:
    """All paths are full ones, since the machines work in folders of their own."""
    few = ["-b", "4", "-o"]
    return [
        ["sample", str(start), "-p", str(start.parent / "p.txt"), "-n", "3", "--steps", "1", "-o", str(folder / "images")],
        ["judge", str(folder / "images/images.jsonl"), "-k", "2", *few, str(folder / "judge.jsonl")],
        ["finetune", str(start), "--steps", "3", "--optimizer", "adamw", "--lr", "1e-4", "--warmup", "1", *few,
         str(folder / "trained.st")],
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("launcher", "each"), [(accelerate, 1), (accelerate, 2), (torchrun, 1)])
def test_two_machines_as_one_process(
    place: Path, sanactl: Program, launcher: Callable[[int, int, int], list[str]], each: int
) -> None:
    Path("p.txt").write_text("a red circle\ntwo stars\na blue square\n")
    one = place / "out"
    one.mkdir()
    for command in commands(one, place / "tiny.st"):
        sanactl(*command)
    alone = snapshot(one)
    # Records name their images by full paths, so both runs write into a folder of one name.
    one.rename(place / "alone")
    one.mkdir()
    shutil.rmtree(".sanactl")
    port = free_port()
    machines = []
    for number in (1, 0):
        (place / f"machine-{number}").mkdir()
        program = place / f"machine-{number}/program.py"
        program.write_text(SEVERAL)
        work = [*python_command(), str(program), json.dumps(commands(one, place / "tiny.st"))]
        machine = subprocess.Popen(
            [*python_command(), *launcher(number, each, port), *work], cwd=program.parent,
            env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        machines.append(machine)
    second, first = [(*machine.communicate(timeout=500), machine.returncode) for machine in machines]
    assert (first[2], second[2]) == (0, 0), first[1] + second[1]
    # The first process of the first machine alone writes records and the journal.
    assert second[0] == "" and len(first[0].splitlines()) == 9 + 6 + 1
    assert sorted(p.name for p in (place / "machine-1").rglob("*") if p.is_file()) == ["program.py"]
    assert len((place / "machine-0/.sanactl/journal.jsonl").read_text().splitlines()) == 3
    several = snapshot(one)
    weights = [load_file(folder / "trained.st") for folder in (place / "alone", one)]
    different = {name for name in {*alone, *several} if alone.get(name) != several.get(name)}
    assert different <= {"trained.st", "trained.train.jsonl"} and alone.keys() == several.keys()
    # Gradients are added in another order.
    start = load_file("tiny.st")
    moved = np.mean([np.abs(weights[0][k].astype(float) - start[k]).mean() for k in start])
    apart = np.mean([np.abs(weights[0][k].astype(float) - weights[1][k]).mean() for k in start])
    assert moved > 0 and apart < 0.05 * moved
