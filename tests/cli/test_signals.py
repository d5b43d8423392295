"""SIGINT and SIGTERM at any moment: exit code 130, one line, nothing left behind."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.program import heed_interrupts, on_terminal

# Runs the program with something happening where it imports a module, as libraries do such things when imported.
DRIVER = """
import os, signal, sys, time

class Moment:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            happens()

def interrupt(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0.05)

def happens():
{happening}

sys.meta_path.insert(0, Moment())
sys.argv[1:] = {arguments!r}
from sanactl.__main__ import run
run()
"""
LINEAGE = "sanactl.report.lineage"  # which `log` imports


def driver(happening: str, module: str = LINEAGE, arguments: tuple[str, ...] = ("log",)) -> str:
    indented = textwrap.indent(textwrap.dedent(happening).strip(), "    ")
    return DRIVER.format(module=module, happening=indented, arguments=list(arguments))


def run(
    code: str, cwd: Path, *, ignoring: tuple[signal.Signals, ...] = ()
) -> subprocess.CompletedProcess[str]:
    def prepare() -> None:
        heed_interrupts()
        for number in ignoring:
            signal.signal(number, signal.SIG_IGN)

    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=prepare,
    )


MOMENTS = {
    "as it is": "interrupt()",
    "SIGTERM": "interrupt(signal.SIGTERM)",
    "turned into another exception": """
        try:
            interrupt()
        except KeyboardInterrupt:
            raise ImportError("cannot import name 'x'") from None
        """,
    "turned into an error of ours": """
        from sanactl.errors import InputError
        try:
            interrupt()
        except KeyboardInterrupt:
            raise InputError("base.st: its vae cannot be loaded") from None
        """,
    "turned into an exit": """
        try:
            interrupt()
        except KeyboardInterrupt:
            sys.exit(3)
        """,
    "swallowed just before the end": """
        try:
            interrupt()
        except KeyboardInterrupt:
            pass
        """,
    "swallowed long before the end": """
        try:
            interrupt(signal.SIGTERM)
        except KeyboardInterrupt:
            pass
        time.sleep(100)
        """,
    "lost in a finaliser": """
        class Thing:
            def __del__(self):
                interrupt()
        Thing()
        time.sleep(100)
        """,
    "lost in a callback of a weak reference": """
        import weakref
        class Thing: pass
        thing = Thing()
        kept = weakref.ref(thing, lambda _: interrupt())
        del thing
        time.sleep(100)
        """,
    "sent twice": """
        try:
            interrupt()
        finally:
            interrupt(signal.SIGTERM)
            open("cleaned", "w")
        """,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_an_interrupt_is_one_however_it_comes_out(tmp_path: Path, moment: str) -> None:
    done = run(driver(MOMENTS[moment]), tmp_path)
    assert done.returncode == 130
    assert done.stderr.removeprefix("sanactl: nothing yet\n") == "sanactl: interrupted\n"
    assert moment != "sent twice" or (tmp_path / "cleaned").exists()


@pytest.mark.parametrize("kept", ["the images so far stay", None])
def test_an_interrupt_is_one_line_that_says_what_is_kept(tmp_path: Path, kept: str | None) -> None:
    """No last line of progress, and no note of its own; not even where it comes out as another exception."""
    happening = f"""
        from sanactl.cli.frame.progress import open_progress
        progress = open_progress()
        progress.start(10, "working")
        progress.keeps({kept!r})
        progress.advance()
        time.sleep(1.1)
        try:
            interrupt()
        except KeyboardInterrupt:
            try:
                raise ImportError("cannot import name 'x'") from None
            finally:
                progress.close()
        """
    done = run(driver(happening), tmp_path)
    more = "" if kept is None else f"; {kept}, and the same command goes on from there"
    assert (done.returncode, done.stderr) == (130, f"sanactl: interrupted{more}\n")


@pytest.mark.parametrize("module", ["typer", "sanactl.cli.app", "sanactl.cli.log", "rich.console"])
def test_an_interrupt_of_an_import(tmp_path: Path, module: str) -> None:
    done = run(driver("interrupt()", module, ("log", "--help")), tmp_path)
    assert (done.returncode, done.stderr) == (130, "sanactl: interrupted\n")


def test_an_interrupt_after_the_work_leaves_no_traceback(tmp_path: Path) -> None:
    happening = """
        import atexit, threading
        atexit.register(interrupt)
        threading.Thread(target=time.sleep, args=(0.2,)).start()
        """
    done = run(driver(happening), tmp_path)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_a_signal_that_is_to_be_ignored_is(tmp_path: Path) -> None:
    """`nohup`, and commands that a script starts with &."""
    both = "interrupt(); interrupt(signal.SIGTERM)"
    done = run(driver(both), tmp_path, ignoring=(signal.SIGINT, signal.SIGTERM))
    assert (done.returncode, done.stderr) == (0, "sanactl: nothing yet\n")


ENDS = {
    130: "interrupt()",
    1: "from sanactl.errors import InputError; raise InputError('no good')",
    0: "pass",
}


@pytest.mark.parametrize("code", ENDS)
def test_a_bar_gives_the_cursor_back(tmp_path: Path, code: int) -> None:
    happening = f"""
        from sanactl.cli.frame.progress import open_progress
        progress = open_progress()
        progress.start(10, "working")
        progress.advance()
        {ENDS[code]}
        """
    got, shown = on_terminal(["-c", driver(happening)], tmp_path, program=[sys.executable])
    assert got == code, shown
    assert "\x1b[?25l" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")
    assert "working" in shown
    said = {130: "interrupted", 1: "no good", 0: "nothing yet"}[code]
    assert shown.rindex(f"sanactl: {said}") > shown.rindex("\x1b[?25l")


COMMANDS = [
    ["inspect", "tiny.st"],
    ["grow", "tiny.st", "--to", "40", "-o", "g.st", "--force"],
    ["convert", "tiny.st", "-o", "x.pth", "--force"],
    ["importance", "tiny.st", "-p", "p.txt", "-o", "i.jsonl", "--force"],
    ["sample", "tiny.st", "-p", "p.txt", "-n", "16", "--steps", "2", "-o", "images"],
    ["finetune", "tiny.st", "--steps", "60", "-b", "4", "-o", "f.st", "--force"],
    ["judge", "drawn/images.jsonl", "-o", "j.jsonl", "--force"],
    ["--help"],
]


@pytest.mark.slow
def test_signals_at_random_moments(place: Path) -> None:
    """Of every command, from its first import to its last write."""
    (place / "p.txt").write_text("a photo of a red circle\na photo of a star\n")
    chance = random.Random(0)

    def start(arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "sanactl", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            text=True,
            preexec_fn=heed_interrupts,
        )

    assert start(["sample", "tiny.st", "-p", "p.txt", "-n", "4", "--steps", "1", "-o", "drawn"]).wait() == 0
    for arguments in COMMANDS:
        started = time.monotonic()
        assert start(arguments).wait() == 0
        took = time.monotonic() - started
        for _ in range(6):
            shutil.rmtree("images", ignore_errors=True)
            process = start(arguments)
            time.sleep(0.1 + chance.random() * took)
            for number in chance.choices([signal.SIGINT, signal.SIGTERM], k=chance.choice([1, 1, 2])):
                process.send_signal(number)
                time.sleep(chance.choice([0, 0.02, 0.2]))
            _, said = process.communicate(timeout=120)
            assert process.returncode in (0, 130), (arguments, said)
            assert not {"Traceback", "unexpected", "Exception ignored"} & set(said.split()), (arguments, said)
            assert not list(place.rglob("*.tmp")), arguments


def test_a_signal_in_the_last_steps_changes_no_exit_code(tmp_path: Path) -> None:
    """An exit handler that runs after all others sends the signal: what follows is the end of the interpreter."""
    code = """
import atexit, os, signal, sys
from sanactl.cli.frame.process import ignore_at_exit
class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
ignore_at_exit()
sys.modules["late"] = Late()
sys.argv = ["sanactl", "--version"]
from sanactl.__main__ import run
run()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
