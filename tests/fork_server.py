"""Starts Python processes in milliseconds: it has imported torch and diffusers, and each process is a fork of it.

Those imports are most of what a command of a test takes. A fork has streams, a folder, an environment and signals of
its own, and imports sanactl by itself. `python_command` stands for `python`: it takes `-m sanactl`, `-c CODE`, or a file.
Where a GPU is present it is `python`, because a fork cannot use CUDA in every case. Tests of how a process starts use
`python`, too: closed streams, signals while modules are imported, variables that libraries read when they are imported.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import psutil

_CLIENT = Path(__file__).with_name("fork_client.py")
_held: list[socket.socket] = []


def python_command() -> list[str]:
    """The beginning of a command line, in place of `python`; the test processes of a run share one server."""
    if not hasattr(os, "pidfd_open") or os.path.exists("/dev/nvidiactl"):
        return [sys.executable]
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    folder = Path(tempfile.gettempdir(), f"sanactl-forks-{os.getuid()}-{run}")
    address = folder / "s"
    if not _held:
        folder.mkdir(mode=0o700, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            here = _connected(address)
            if here is None:
                _start(address)
                here = _connected(address)
        assert here is not None, "the server of forks does not run"
        here.sendall(b"h")  # the server ends with the last test process
        _held.append(here)
        atexit.register(here.close)
    return [sys.executable, "-I", "-S", str(_CLIENT), str(address)]


def kill(process: subprocess.Popen[str] | psutil.Process) -> None:
    """SIGKILL to a process that was started by `python_command`; it is gone when the command is."""
    process.send_signal(signal.SIGKILL if python_command() == [sys.executable] else signal.SIGUSR1)


def _connected(address: Path) -> socket.socket | None:
    found = socket.socket(socket.AF_UNIX)
    try:
        found.connect(str(address))
    except OSError:
        found.close()
        return None
    return found


def _start(address: Path) -> None:
    address.unlink(missing_ok=True)
    process = subprocess.Popen(
        [sys.executable, __file__, str(address)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()


def serve(address: str) -> None:
    """Answers until the last test process is gone."""
    _import_much()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    print("ready", flush=True)
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    holders: list[socket.socket] = []
    seen = False
    while holders or not seen:
        ready, _, _ = select.select([listener, *holders], [], [])
        for one in ready:
            if one is not listener:
                holders.remove(one)
                one.close()
                continue
            asked, _ = listener.accept()
            kind, files, _, _ = socket.recv_fds(asked, 1, 4)
            if kind == b"h":
                holders.append(asked)
                seen = True
                continue
            if kind and os.fork() == 0:
                for other in (listener, *holders):
                    other.close()
                _keep(asked, list(files))
            for file in files:
                os.close(file)
            asked.close()
    shutil.rmtree(Path(address).parent, ignore_errors=True)


def _import_much() -> None:
    import diffusers
    import torch
    import torch.distributed
    import transformers
    from transformers.models.gemma2 import modeling_gemma2  # the built-in world's text encoder

    named = (diffusers.SanaTransformer2DModel, diffusers.AutoencoderDC, transformers.AutoTokenizer)
    assert all((*named, torch.distributed, modeling_gemma2))


def _keep(client: socket.socket, files: list[int]) -> NoReturn:
    """Starts the process and tells the client its number and exit code; it is killed if the client is."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked = json.loads(client.makefile("r").readline())
    child = os.fork()
    if child == 0:
        client.close()
        _become(asked, files)
    for file in files:
        os.close(file)
    process = os.pidfd_open(child)
    with contextlib.suppress(OSError):
        client.sendall(f"{child}\n".encode())
    ready, _, _ = select.select([process, client.fileno()], [], [])
    if process not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        client.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(asked: dict[str, Any], files: list[int]) -> NoReturn:
    """This process, a fork, becomes what was asked for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in asked["ignored"] else default)
    for standard in (0, 1, 2):
        os.dup2(files[standard], standard)
    os.fchdir(files[3])
    if asked["leads"]:
        os.setpgid(0, 0)
    for file in files:
        os.close(file)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.stdin, sys.stdout = open(0, encoding="utf-8", closefd=False), _writer(1, "strict")
    sys.stderr = _writer(2, "backslashreplace", line_buffering=True)
    code: object = 0
    try:
        _run(asked["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code if isinstance(code, int) else 0)


def _writer(number: int, errors: str, *, line_buffering: bool = False) -> io.TextIOWrapper:
    file = open(number, "wb", closefd=False)
    return io.TextIOWrapper(file, "utf-8", errors, line_buffering=line_buffering or file.isatty())


def _run(arguments: list[str]) -> None:
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, paths), *(p for p in sys.path[1:] if p not in paths)]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        sys.path.insert(0, "")
        exec(compile(arguments[1], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).parent.resolve()))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
