"""Text for terminals: removing control characters, and messages on stderr that never end a run.

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
    "at_end", "clip", "drawable", "is_first_process", "json_for_terminal", "note", "one_line", "quiet_end", "safe", "say",
    "write_above",
]  # fmt: skip

# C0 and C1 controls, soft hyphen, what changes the direction of text or has no width, line and paragraph separators,
# halves of surrogate pairs (Python's form of bytes that are not UTF-8), tags. The joiners U+200C and U+200D are kept,
# because Persian and emoji need them.
_RANGES = (
    "\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f"
)
_UNSAFE = re.compile(f"[\x00-\x1f{_RANGES}]")
_UNSAFE_IN_LINES = re.compile(f"[\x00-\x09\x0b-\x1f{_RANGES}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Characters of a line; of a longer line, the middle is left out, where a message quotes a file.
LONGEST_LINE = 3000

# Frames, trees and bars where a terminal's encoding has no box-drawing characters.
_ASCII = str.maketrans("╭╮╰╯┌┐└┘├┤┬┴┼─━│┃█╸╺…×·→", "+++++++++++++--||#--.x.>")

_ends: list[Callable[[], None]] = []
# While status lines are drawn: the function that writes messages instead of stderr, and the prefix of each message.
_above: Callable[[str], None] | None = None
_prefix = "sanactl: "


def safe(value: object, *, lines: bool = False) -> str:
    """`value` as text without control characters: each is spelled out (`\\x1b`).

    A byte of a file name that is not UTF-8 becomes `\\xe9`, as in Python's bytes.

    Args:
        value: text, or an object with a `str`.
        lines: keep line feeds.
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
    """A line of JSON with JSON escapes for characters that are unsafe or not in the encoding; its values are the same."""
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
    """The text; if it is longer than `longest` characters, its middle is left out."""
    if len(text) <= longest:
        return text
    tail = longest // 4
    return f"{text[: longest - tail - 3]}...{text[-tail:]}"


def drawable(text: str, encoding: str | None) -> str:
    """The text with characters of `encoding` only: frames become - and |, other missing characters question marks."""
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
    """A message as one safe line: line ends become spaces, and the middle of a very long one is left out."""
    return clip(safe(re.sub(r"\s*[\r\n]+\s*", " ", str(message).strip())), LONGEST_LINE)


def say(line: object) -> None:
    """Write one safe line to stderr; processes other than the first add their number.

    Errors of stderr (closed, a full disk, a reader that left) are ignored.
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


def note(line: str) -> None:
    """One line for people, on stderr."""
    if is_first_process():
        say(line)


def write_above(write: Callable[[str], None] | None, prefix: str = "sanactl: ") -> None:
    """Write messages with `write` from now on, each with `prefix`; None: to stderr again."""
    global _above, _prefix
    _above, _prefix = write, prefix if write is not None else "sanactl: "


def at_end(close: Callable[[], None]) -> None:
    """Register `close` to be called when the command ends, in every case; an open progress bar hides the cursor."""
    _ends.append(close)


def quiet_end() -> None:
    """Call the functions registered with `at_end`, the last one first; their errors are ignored."""
    while _ends:
        with contextlib.suppress(Exception):
            _ends.pop()()
