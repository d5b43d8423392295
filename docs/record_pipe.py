"""Records a pipe of six commands on a terminal and draws what it showed into docs/images/pipe.svg.

    python docs/record_pipe.py                   # one to two minutes on two cores
    python docs/record_pipe.py --output other.svg

The pipe is a real run on the built-in world, in a folder of its own that is removed at the end. It runs on a
pseudo-terminal of 100 columns. pyte, a terminal emulator, turns the bytes into the lines that a person would see. The
picture has three moments: the first status lines, the most of them at once, and the end.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 40
COMMANDS = ("importance", "prune", "finetune", "sample", "judge", "eval")
PIPE = (
    "sanactl importance base.st --steps 8 | sanactl prune --keep 9 | sanactl finetune --steps 10 \\\n"
    "  | sanactl sample --prompts shapes --limit 12 -n 8 -b 8 | sanactl judge -b 8 | sanactl eval geneval"
)
# Of the picture, in pixels: a character's width and a line's height at a font size of 13, and the margin.
CHARACTER, LINE, MARGIN = 7.83, 18, 16


@dataclass(frozen=True)
class Moment:
    """What the terminal showed: seconds since the pipe began, and its lines."""

    seconds: float
    lines: tuple[str, ...]

    @property
    def running(self) -> tuple[str, ...]:
        """The commands that have a status line, which begins with the command's name."""
        return tuple(c for c in COMMANDS if any(line.startswith(f"{c} ") for line in self.lines))


def record(command: str, folder: Path) -> Iterator[Moment]:
    """Runs a shell command on a terminal; what that showed after each piece of output.

    Raises:
        RuntimeError: the command failed; the message has what it showed last.
    """
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("COLUMNS", None)
    # A session of its own with this terminal, as a person's shell has one.
    process = subprocess.Popen(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)
    screen = pyte.HistoryScreen(COLUMNS, ROWS)
    stream, began, lines = pyte.ByteStream(screen), time.monotonic(), ()
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while part := os.read(leader, 65536):
            stream.feed(part)
            lines = tuple("\n".join(line.rstrip() for line in screen.display).rstrip().split("\n"))
            yield Moment(time.monotonic() - began, lines)
    os.close(leader)
    if process.wait() != 0:
        raise RuntimeError(f"the pipe ended with {process.returncode}:\n" + "\n".join(lines))


def chosen(moments: list[Moment]) -> list[Moment]:
    """The first moment with status lines, the one with the most of them, and the last."""
    drawn = [moment for moment in moments if moment.running]
    if not drawn:
        raise RuntimeError("no status line was shown")
    # A few moments into it, so that the lines have numbers.
    first = drawn[min(3, len(drawn) - 1)]
    fullest = max(len(moment.running) for moment in drawn)
    most = [moment for moment in drawn if len(moment.running) == fullest]
    picked = [first, most[len(most) // 2], moments[-1]]
    return sorted(dict.fromkeys(picked), key=lambda moment: moment.seconds)


def picture(command: str, moments: list[Moment]) -> str:
    """The moments below each other as SVG text."""
    rows: list[tuple[str, str]] = []
    for moment in moments:
        last = moment is moments[-1]
        rows.append(("when", f"after {moment.seconds:.0f} s" + (", at the end" if last else "")))
        rows += [("typed", ("$ " if n == 0 else "") + line) for n, line in enumerate(command.split("\n"))]
        for line in moment.lines:
            status = any(line.startswith(f"{c} ") for c in COMMANDS)
            rows.append(("status" if status else "said" if line.startswith("sanactl ") else "shown", line))
        rows.append(("shown", ""))
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), len(rows) * LINE + 2 * MARGIN
    colours = {
        "when": "#8a93a6",
        "typed": "#ffffff",
        "status": "#7fd4ff",
        "said": "#b9c2d3",
        "shown": "#d7e3c4",
    }
    texts = []
    for number, (kind, line) in enumerate(rows):
        y = MARGIN + LINE * number + 13
        style = ' font-style="italic"' if kind == "when" else ' font-weight="bold"' if kind == "typed" else ""
        texts.append(
            f'<text x="{MARGIN}" y="{y}" fill="{colours[kind]}"{style} xml:space="preserve">{escape(line)}</text>'
        )
    title = f"A pipe of {len(COMMANDS)} sanactl commands on a terminal, at {len(moments)} moments"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            ' font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13" role="img">',
            f"<title>{title}</title>",
            f'<rect width="{width}" height="{height}" rx="8" fill="#1b1f2a"/>',
            *texts,
            "</svg>\n",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    default = Path(__file__).parent / "images" / "pipe.svg"
    parser.add_argument("--output", "-o", type=Path, default=default, help="the SVG file")
    options = parser.parse_args()
    program = f"{sys.executable} -m sanactl"
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(
            [*program.split(), "init", "shapes", "-o", "base.st"], cwd=name, check=True, capture_output=True
        )
        # The terminal shows the commands as they are typed; the program that runs is this checkout's.
        command = f'sanactl() {{ {program} "$@"; }}; {PIPE}'
        moments = list(record(command, Path(name)))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(picture(PIPE, chosen(moments)), encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
