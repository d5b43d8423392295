"""Runs that are killed in the middle end as undisturbed ones do; readers that leave, and pipes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sanactl.cli.app import main
from sanactl.files.images import write_png
from sanactl.shapes.prompts import load_eval_prompts, scene_for
from sanactl.shapes.render import render
from tests.fork_server import kill, python_command
from tests.program import Program, heed_interrupts

SANACTL = [sys.executable, "-m", "sanactl"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def killed(folder: Path, sent: signal.Signals, ready: str, *arguments: str) -> tuple[int, str]:
    """Runs a command until a file that matches `ready` appears, then kills it; its exit code and stderr."""
    process = subprocess.Popen(
        [*python_command(), "-m", "sanactl", *arguments],
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    until = time.monotonic() + 200
    # Something has to be in the file: right after it is made there is nothing to take over.
    while (
        not any(map(has_content, folder.glob(ready))) and process.poll() is None and time.monotonic() < until
    ):
        time.sleep(0.005)
    assert process.poll() is None, "it ended before it could be killed"
    kill(process) if sent == signal.SIGKILL else process.send_signal(sent)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def has_content(path: Path) -> bool:
    """Whether it is a folder, or a file with something in it; files may go while they are looked at."""
    with contextlib.suppress(FileNotFoundError):
        return path.is_dir() or path.stat().st_size > 16
    return False


def stopped(kept: str) -> list[str]:
    """The only line of a command that was stopped."""
    return [f"sanactl: interrupted; {kept}, and the same command goes on from there"]


def lines_of(said: str) -> list[str]:
    """What a command says beside its progress, of which there is a line every 15 seconds."""
    return [line for line in said.splitlines() if not re.match(r"sanactl: \w+: [\d,]+(/| )", line)]


def digests(folder: Path, pattern: str) -> dict[str, str]:
    """SHA-256 of each file that matches, by its path within the folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.glob(pattern))
        if p.is_file()
    }


SAMPLE = ["sample", "tiny.st", "--prompts", "shapes", "--limit", "8", "-n", "6", "--steps", "4", "-o", "out"]
FINETUNE = ["finetune", "tiny.st", "--steps", "40", "-b", "4", "--save-every", "3", "-o", "trained.st"]


@pytest.fixture(scope="module")
def whole(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Undisturbed runs of `sample` and `finetune`."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copyfile(tiny_file, folder / "tiny.st")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(SAMPLE) == 0
        assert main(FINETUNE) == 0
    return folder


# An interrupt and a request to end take the same way in sanactl; `judge` and `eval` show both.
@pytest.mark.parametrize(
    "sent",
    [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM, signal.SIGKILL],
    ids=["SIGINT", "SIGTERM", "SIGKILL"],
)
def test_sample_goes_on_where_it_was(
    whole: Path, place: Path, sanactl: Program, sent: signal.Signals
) -> None:
    code, said = killed(place, sent, "out/00001/samples/*.png", *SAMPLE)
    if sent == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 130
        assert lines_of(said) == stopped("the images drawn so far stay")
    there = digests(place, "out/*/samples/*.png")
    assert 0 < len(there) < 48
    assert there.items() <= digests(whole, "out/*/samples/*.png").items()
    assert len(sanactl(*SAMPLE)) == 48
    assert f"{len(there)} of 48 images were there already" in sanactl.said
    assert digests(place, "out/**/*") == digests(whole, "out/**/*")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda s: s.name)
def test_finetune_goes_on_where_it_was(
    whole: Path, place: Path, sanactl: Program, sent: signal.Signals
) -> None:
    code, said = killed(place, sent, ".trained.st.training/step-00000006", *FINETUNE)
    assert code == (-signal.SIGKILL if sent == signal.SIGKILL else 130)
    last = said.splitlines()[-1]
    if sent == signal.SIGINT:
        (line,) = stopped("the state after step \\d+ is saved")
        assert re.fullmatch(line, last)
    elif sent == signal.SIGTERM:
        assert "is saved, and the same command goes on from there" in last
    assert not (place / "trained.st").exists()
    sanactl(*FINETUNE)
    assert "resuming at step" in sanactl.said
    assert digests(place, "trained.st") == digests(whole, "trained.st")
    assert not list(place.glob(".trained.st*"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of the built-in world with their records, and what `judge` and `eval geneval` say of them undisturbed."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(5)
    with (folder / "r.jsonl").open("w") as stream:
        for i in range(120):
            prompt = load_eval_prompts()[12 * (i // 4)]
            write_png(render(scene_for(prompt, rng)), folder / f"{i}.png")
            record = {"path": f"{i}.png", "prompt_id": str(i // 4), "samples": 4, "index": i % 4}
            stream.write(json.dumps({**prompt, "kind": "image", **record}) + "\n")
    for command in (JUDGE, EVAL):
        done = subprocess.run(
            [*python_command(), "-m", "sanactl", *command, "-o", f"{command[0]}-whole.jsonl"],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=240,
        )
        assert done.returncode == 0
    return folder


JUDGE = ["judge", "r.jsonl", "--model", "oracle", "--all", "-b", "4"]
EVAL = ["eval", "geneval", "r.jsonl"]


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", [JUDGE, EVAL], ids=["judge", "eval"])
def test_no_verdict_is_asked_for_twice(
    drawn: Path, command: list[str], sent: signal.Signals, sanactl: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped run ends as an undisturbed one does, and takes over what was found out before."""
    monkeypatch.chdir(drawn)
    shutil.rmtree(".sanactl", ignore_errors=True)  # the judge's verdicts of the undisturbed run
    target = f"{command[0]}-{sent.name}.jsonl"
    place = ".sanactl/verdicts/*.jsonl" if command is JUDGE else ".eval*.partial"
    code, said = killed(drawn, sent, place, *command, "-o", target)
    assert code == (-9 if sent == signal.SIGKILL else 130)
    what = "verdicts" if command is JUDGE else "results"
    assert sent == signal.SIGKILL or lines_of(said) == stopped(f"the {what} so far are kept")
    assert not (drawn / target).exists()
    # Torn in the middle of a line, as a power cut leaves it.
    (kept,) = drawn.glob(place)
    os.truncate(kept, kept.stat().st_size - 5)
    whole = kept.read_bytes().count(b"\n") * (4 if command is JUDGE else 1)  # a line has a judge's batch
    sanactl(*command, "-o", target)
    assert (drawn / target).read_bytes() == (drawn / f"{command[0]}-whole.jsonl").read_bytes()
    taken = [line for line in sanactl.said.splitlines() if "taken over" in line]
    assert [int(line.split()[1]) for line in taken] == ([whole] if whole else [])
    assert not list(drawn.glob(".*.partial"))


def test_a_reader_that_leaves_is_no_failure(whole: Path, place: Path) -> None:
    command = " ".join([*python_command(), "-m", "sanactl", *SAMPLE])
    done = subprocess.run(
        ["bash", "-c", f"{command} </dev/null | head -1; echo ${{PIPESTATUS[0]}}"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    first, code = done.stdout.splitlines()
    assert json.loads(first)["kind"] == "image"
    assert code == "0"
    assert "Traceback" not in done.stderr
    # The folder and its listing are owed to whoever reads them later.
    assert len((place / "out/images.jsonl").read_text().splitlines()) == 48
    assert digests(place, "out/*/samples/*.png") == digests(whole, "out/*/samples/*.png")


@pytest.mark.parametrize("arguments", [["prompts", "shapes"], ["inspect", "tiny.st"], ["--help"]])
def test_stdout_that_is_full_or_closed(place: Path, arguments: list[str]) -> None:
    command = " ".join([*SANACTL, *arguments])
    full = subprocess.run(["bash", "-c", f"{command} >/dev/full"], capture_output=True, text=True)
    assert full.returncode == 1
    assert full.stderr.lower().count("no space left on device") == 1
    assert len(full.stderr.splitlines()) == 1
    closed = subprocess.run(["bash", "-c", f"{command} >&-"], capture_output=True, text=True)
    lost = arguments != ["--help"]
    assert closed.returncode == int(lost)
    assert closed.stderr == ("sanactl: cannot write to stdout: it is closed\n" if lost else "")


def test_an_empty_pipe_is_a_failure(tmp_path: Path) -> None:
    command = " ".join(SANACTL)
    done = subprocess.run(
        ["bash", "-c", f"{command} grow gone.st --to 4 | {command} prune --blocks 0"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2
    assert not list(tmp_path.glob("*.st"))
