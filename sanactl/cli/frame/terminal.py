"""Words for people: text that is safe on a terminal, and one line on stderr that never ends a run.

File names, prompts, headers and messages of libraries come from outside. On a terminal an escape code in them could
move the cursor, clear the screen, set the window's title or hide text, so all of it goes through `safe`.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import sys
from collections.abc import Callable

__all__ = [
    "at_end", "clip", "drawable", "is_first_process", "json_for_terminal", "one_line", "quiet_end", "safe", "say",
    "write_above",
]  # fmt: skip

# C0 and C1 controls, soft hyphen, what changes the direction of text or has no width, line and paragraph separators,
# halves of surrogate pairs (bytes that are no UTF-8 are such in Python), tags. The joiners U+200C and U+200D stay:
# Persian and emoji need them.
_RANGES = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f"
)
_UNSAFE = re.compile(f"[\x00-\x1f{_RANGES}]")
_UNSAFE_IN_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_RANGES}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Characters of a line: what is longer is cut in the middle, where a message quotes what was read.
LONGEST_LINE = 3000

# Frames, trees and bars where a terminal's encoding has no box-drawing characters.
_ASCII = str.maketrans("╭╮╰╯┌┐└┘├┤┬┴┼─━│┃█╸╺…×·→", "+++++++++++++--||#--.x.>")

_ends: list[Callable[[], None]] = []
# Where messages go in place of stderr while status lines are drawn, and what stands before each.
_above: Callable[[str], None] | None = None
_prefix = "sanactl: "


def safe(value: object, *, lines: bool = False) -> str:
    """`value` as text that moves no cursor and sends no command: every control character is spelled out (`\\x1b`).

    A byte of a file name that is no UTF-8 becomes `\\xe9`, as Python spells it in bytes.

    Args:
        value: text, or a thing with a text.
        lines: leave line feeds as they are.
    """
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(_spelled, str(value))


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def json_for_terminal(line: str, encoding: str | None) -> str:
    """A line of JSON with JSON's own escapes for what is unsafe or not in the encoding, which changes no value."""
    if not (encoding or "utf-8").lower().replace("-", "").startswith("utf8"):
        return re.sub("[^ -~]", _json_escape, line)
    return _UNSAFE.sub(_json_escape, line)


def _json_escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def clip(text: str, longest: int) -> str:
    """The text with its middle left out where it is longer than `longest` characters."""
    if len(text) <= longest:
        return text
    tail = longest // 4
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


def drawable(text: str, encoding: str | None) -> str:
    """The text as far as `encoding` has its characters: lines of frames become - and |, the rest question marks."""
    name = encoding or "utf-8"
    try:
        text.encode(name)
        return text
    except (UnicodeError, LookupError):
        known = name if _is_codec(name) else "ascii"
        return text.translate(_ASCII).encode(known, "replace").decode(known)


def _is_codec(name: str) -> bool:
    try:
        return bool(codecs.lookup(name))
    except LookupError:
        return False


def is_first_process() -> bool:
    """Whether this process owns stdout, the journal and the folder; `torchrun` numbers processes in RANK."""
    return os.environ.get("RANK", "0") == "0"


def one_line(message: object) -> str:
    """A message as one safe line, its line ends as spaces, with the middle left out where it is very long."""
    return clip(safe(re.sub(r"\s*[\r\n]+\s*", " ", str(message).strip())), LONGEST_LINE)


def say(line: object) -> None:
    """One line on stderr, safe, with the process's number where there are several and it is not the first.

    Nothing that is wrong with stderr (closed, a full disk, a reader that left) reaches the caller.
    """
    text = one_line(line)
    if _above is not None:
        _above(_prefix + text)
        return
    rank = "" if is_first_process() else f" (process {safe(os.environ.get('RANK'))})"
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        stream = sys.stderr
        stream.write(drawable(f"sanactl{rank}: {text}\n", stream.encoding))
        stream.flush()


def write_above(write: Callable[[str], None] | None, prefix: str = "sanactl: ") -> None:
    """Has messages written by `write`, with `prefix` before each; None: on stderr again."""
    global _above, _prefix
    _above, _prefix = write, prefix if write is not None else "sanactl: "


def at_end(close: Callable[[], None]) -> None:
    """Has `close` called when the command ends, however it ends: an open progress bar hides the cursor."""
    _ends.append(close)


def quiet_end() -> None:
    """Calls what `at_end` was given, the last first; none may fail the command."""
    while _ends:
        with contextlib.suppress(Exception):
            _ends.pop()()
