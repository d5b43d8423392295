"""`recipes/slurm-array.sh` with a made-up SLURM: three jobs draw, three judge, one joins, and all is as of one process."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from sanactl.shapes.prompts import load_eval_prompts
from tests.fork_server import python_command
from tests.program import Program, snapshot

ROOT = Path(__file__).parents[2]


def array(step: str, jobs: range, **changed: str) -> None:
    """The jobs of one `sbatch`, one after the other."""
    Path("bin").mkdir(exist_ok=True)
    python = Path("bin/python")
    python.write_text(f'#!/bin/sh\nexec {shlex.join(python_command())} "$@"\n')
    python.chmod(0o755)
    work = {"MODEL": "tiny.st", "PROMPTS": "p.jsonl", "N": "4", "STEPS": "1", "KEEP": "2", "JUDGE": "oracle"}
    for job in jobs:
        slurm = {"SLURM_ARRAY_TASK_ID": str(job), "SLURM_ARRAY_TASK_COUNT": str(len(jobs))}
        path = f"{Path('bin').absolute()}:{os.environ['PATH']}"
        subprocess.run(
            ["bash", str(ROOT / "recipes/slurm-array.sh"), step],
            env={**os.environ, **work, **changed, **slurm, "PATH": path, "PYTHONPATH": str(ROOT)}, check=True, timeout=200,
        )  # fmt: skip


@pytest.mark.slow
def test_three_jobs_give_what_one_process_gives(place: Path, sanactl: Program) -> None:
    prompts = [{**record, "kind": "prompt"} for record in load_eval_prompts()[::40]]
    Path("p.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))
    array("draw", range(3))
    array("judge", range(3))
    array("merge", range(1))
    drawn = {name: data for name, data in snapshot(Path("images")).items() if "-of-3" not in name}
    Path("images").rename("of-jobs")
    sanactl("sample", "tiny.st", "-p", "p.jsonl", "-n", "4", "--steps", "1", "-o", "images")
    sanactl("judge", "images/images.jsonl", "-k", "2", "-m", "oracle", "-o", "one.jsonl", "--no-cache")
    sanactl("eval", "geneval", "one.jsonl", "--allow-missing", "-o", "one-scores.jsonl")
    assert drawn == snapshot(Path("images"))
    assert Path("judged.jsonl").read_bytes() == Path("one.jsonl").read_bytes()
    assert Path("scores.jsonl").read_bytes() == Path("one-scores.jsonl").read_bytes()
    # Started again with another setting, its files are made anew.
    shutil.rmtree("images")
    Path("of-jobs").rename("images")
    array("judge", range(3), KEEP="1")
    array("merge", range(1))
    assert len(Path("judged.jsonl").read_text().splitlines()) == len(prompts)


def test_a_wrong_start_ends_with_one_line() -> None:
    own = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    for word, said in (
        ("drw", "usage: slurm-array.sh draw|judge|merge"),
        ("draw", "start it with sbatch --array"),
    ):
        got = subprocess.run(
            ["bash", str(ROOT / "recipes/slurm-array.sh"), word], env=own, capture_output=True, text=True
        )
        assert (got.returncode, len(got.stderr.splitlines())) == (2, 1) and said in got.stderr


def test_the_configuration_of_accelerate_is_known_to_it() -> None:
    from accelerate.commands.config.config_args import ClusterConfig

    path = ROOT / "recipes/accelerate-multinode.yaml"
    config = ClusterConfig.from_yaml_file(str(path))
    assert (config.num_machines, config.num_processes, config.rdzv_backend) == (2, 16, "static")
    assert set(yaml.safe_load(path.read_text())) <= {*vars(config), "compute_environment"}
