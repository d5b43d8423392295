"""Jobs that share files: two of one shard at the same time, after one that was killed in the middle of a record."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from sanactl.errors import InputError, OutputExistsError
from sanactl.files.append import try_lock
from sanactl.sampling.open_folder import SETTINGS, opened_folder
from tests.cli.test_processes import ENVIRONMENT, ROOT
from tests.cli.test_shards import pictures
from tests.fork_server import python_command
from tests.program import Program, snapshot
from tests.prompts.test_chat import save_model

# The second line of results is written by half, or the second image or file of encode, and then the process is killed.
KILLED = """
import os, signal, sys
from sanactl.cli.app import main
from sanactl.files import append, atomic
from sanactl.records import partial

left = 2
append_to, publish = append.append_to, atomic._publish

def counted(path=None):
    global left
    left -= 1
    return left == 0

def half_a_line(descriptor, data, *, locked):
    if counted():
        os.write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    append_to(descriptor, data, locked=locked)

def half_a_file(temporary, target, force):
    if target.suffix == ".png" or target.name[:2] == "00":
        if counted():
            os.truncate(temporary, os.path.getsize(temporary) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    publish(temporary, target, force)

append.append_to = partial.append_to = half_a_line
atomic._publish = half_a_file
sys.exit(main(sys.argv[1:]))
"""
COMMANDS = {
    "sample": ["sample", "tiny.st", "-p", "p.txt", "-n", "3", "--steps", "1", "-o", "out"],
    "judge": ["judge", "r.jsonl", "-k", "2", "-m", "oracle", "-b", "3"],
    "eval": ["eval", "geneval", "r.jsonl", "-b", "3"],
    "relabel": ["relabel", "p.txt", "--llm", "hf:chat", "--llm-option", "answer_tokens=8", "--llm-option", "batch_size=2",
                "--allow-failed", "--tries", "1"],
    "encode": ["encode", "tiny.st", "--count", "20", "--shard-size", "20KB", "-o", "out"],
}  # fmt: skip
OUTPUTS = {"sample": "out", "encode": "out", "judge": "judge.jsonl", "eval": "geneval.jsonl"}


def started(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*python_command(), *arguments], env={**ENVIRONMENT, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def result(name: str) -> object:
    """What a command has made. No answer of the tiny language model passes the checks, so all its records have failed."""
    output = Path(OUTPUTS.get(name, ""))
    if name == "relabel":
        return sorted(
            line for path in output.glob("*.failed.jsonl") for line in path.read_text().splitlines()
        )
    return snapshot(output) if output.is_dir() else output.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", COMMANDS)
def test_one_writer_each_file(place: Path, sanactl: Program, name: str) -> None:
    command = COMMANDS[name]
    pictures(24)
    Path("p.txt").write_text("\n".join(f"a photo of {n} red stars" for n in range(8)))
    save_model(place / "chat")
    before = {*place.iterdir()}
    sanactl(*command)
    whole = result(name)
    assert whole
    for made in {*place.iterdir()} - before:
        shutil.rmtree(made) if made.is_dir() else made.unlink()
    Path("killed.py").write_text(KILLED)
    first = [*command, "--shard", "0/2"]
    killed = started("killed.py", *first)
    _, said = killed.communicate(timeout=280)
    assert killed.returncode == -signal.SIGKILL, said
    Path("killed.py").unlink()
    both = [started("-m", "sanactl", *first) for _ in range(2)]
    for job in both:
        _, said = job.communicate(timeout=280)
        assert job.returncode == 0, said
    sanactl(*command, "--shard", "1/2")
    if name == "eval":
        sanactl(*command)
    elif name in ("sample", "encode"):
        sanactl("merge", "out")
    else:
        files = sorted(map(str, Path().glob(f"{name}.?-of-2.jsonl")))
        assert len(files) == 2 == len([*Path().glob(f"{name}.*-of-2*.jsonl")]) - 2 * (name == "relabel")
        sanactl("merge", *files)
    for part in place.glob("**/*-of-2.jsonl"):
        part.unlink()
    assert result(name) == whole
    # Nothing else is left: no temporary files, and no results of single images.
    names = {p.name for p in {*place.iterdir()} - before} - {".sanactl", OUTPUTS.get(name)}
    assert not {n for n in names if not n.startswith("relabel.")}


WANTED = {"digest": 1, "prompts": {"count": 1, "digest": "x"}}


def opened(folder: Path) -> AbstractContextManager[Path]:
    return opened_folder(folder, "s", WANTED, force=False, shared=True)


def test_jobs_make_a_folder_at_the_same_time(tmp_path: Path) -> None:
    """A file that another job is writing at this moment, or that a kill left, is no other content."""
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / f".{SETTINGS}.00000000-00000000-00000000.tmp").write_text("{")
    with opened(folder) as there:
        assert there == folder and json.loads((folder / SETTINGS).read_text()) == WANTED
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(OutputExistsError, match="other contents"), opened(tmp_path / "other"):
        pass


def test_a_job_that_fails_leaves_the_others_their_folder(tmp_path: Path) -> None:
    """Before the first image; the last one that fails removes it."""
    folder = tmp_path / "images"
    with pytest.raises(InputError, match="of two"), opened(folder):
        other = os.open(folder, os.O_RDONLY)  # another job has opened it
        assert try_lock(other, shared=True)
        raise InputError("of two")
    assert (folder / SETTINGS).exists()
    os.close(other)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="alone"), opened(folder):
        raise InputError("alone")
    assert not folder.exists()
