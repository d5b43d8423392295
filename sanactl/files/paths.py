"""Paths as people type them and as JSON stores them.

A Unix file name is bytes, and JSON is Unicode text. A name that is not UTF-8 is written into records, journals and
headers as a `file:` URI (RFC 8089; relative paths stay relative) with percent-encoded bytes: `file:caf%E9.st`. Reading
restores the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["from_json", "to_json", "user_path", "utf8_name"]

_SCHEME = "file:"
_SURROGATE = re.compile("[\ud800-\udfff]")


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as a person types it: `~/x` is in the home folder, and a record's `file:` URI is decoded.

    A file with exactly the typed name comes first, such as one called `~old.st`. If there is no home folder, or the user
    of `~user` is not known, the name is unchanged.
    """
    name = from_json(os.fspath(text))
    if name.startswith("~") and not os.path.lexists(name.split(os.sep, 1)[0]):
        name = os.path.expanduser(name)
    return Path(name)


def to_json(value: Any) -> Any:
    """A value whose strings, at any depth, are valid Unicode: file names that are not become `file:` URIs.

    The same holds for text that contains a name, such as a line of arguments.
    """
    if isinstance(value, str):
        return _spelled(value) if _SURROGATE.search(value) else value
    if isinstance(value, dict):
        return {to_json(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def _spelled(name: str) -> str:
    from urllib.parse import quote_from_bytes

    raw = name.encode("utf-8", "surrogatepass") if _is_no_name(name) else os.fsencode(name)
    try:
        return raw.decode("utf-8")  # the name is UTF-8, only the locale is not
    except UnicodeDecodeError:
        return f"{_SCHEME}{'//' if name.startswith('/') else ''}{quote_from_bytes(raw)}"


def _is_no_name(name: str) -> bool:
    """Whether this locale cannot encode the name: it lacks a character, or there is half of a surrogate pair."""
    try:
        os.fsencode(name)
        return False
    except UnicodeEncodeError:
        return True


@contextlib.contextmanager
def utf8_name(folder: str | os.PathLike[str]) -> Iterator[str]:
    """A UTF-8 name of the folder, for libraries that need one: its own, else that of a temporary link to it."""
    name = os.fspath(folder)
    if not _SURROGATE.search(name):
        yield name
        return
    import tempfile

    with tempfile.TemporaryDirectory(prefix="sanactl-") as place:
        link = os.path.join(place, "link")
        os.symlink(os.path.abspath(name), link)
        yield link


def from_json(text: str) -> str:
    """The system's path for a record's path; the inverse of `to_json`. A file with exactly this name comes first."""
    if text.startswith(_SCHEME) and not os.path.lexists(text):
        from urllib.parse import unquote_to_bytes

        path = re.sub("^//[^/]*", "", text.removeprefix(_SCHEME))
        return os.fsdecode(unquote_to_bytes(path))
    if _is_no_name(text):  # the locale's encoding is not UTF-8
        return os.fsdecode(text.encode("utf-8", "surrogatepass"))
    return text
