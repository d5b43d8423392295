"""Asks `fork_server` for a process and stands in for it: its standard streams, folder, environment, signals, exit code.

Run as `python -I -S fork_client.py SOCKET -m sanactl ...`; what follows the socket is what `python` itself would get.
"""

import array
import json
import os
import signal
import socket
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILL = signal.SIGUSR1  # stands for SIGKILL, which cannot be forwarded


def main() -> None:
    came: list[int] = []
    child = 0

    def forward(number: int, frame: object) -> None:
        number = signal.SIGKILL if number == KILL else number
        if child and leads:  # a signal to the group is one to the process's group
            os.killpg(child, number)
        elif child:
            os.kill(child, number)
        else:
            came.append(number)

    signal.signal(KILL, forward)

    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    for number in SIGNALS:
        if number not in ignored:
            signal.signal(number, forward)
    leads = os.getpgrp() == os.getpid()
    asked = {
        "arguments": sys.argv[2:],
        "environment": dict(os.environ),
        "ignored": ignored,
        "leads": leads,
    }
    files = array.array("i", [0, 1, 2, os.open(".", os.O_RDONLY)])
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        server.sendmsg([b"f"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
        server.sendall(json.dumps(asked).encode() + b"\n")
        answers = server.makefile("r")
        child = int(answers.readline())
        for earlier in came:
            forward(earlier, None)
        for held in (0, 1, 2):  # whoever reads what the process writes waits for it alone
            os.close(held)
        code = int(answers.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code in SIGNALS else None
        os.kill(os.getpid(), -code)
    os._exit(code)


main()
