"""Reading the zip archive of a .pth: its pickle, and the place of each storage. Nothing is decompressed.

Source: torch `serialization.py`, `_open_zipfile_writer_file`; PKWARE's APPNOTE.TXT, 4.3.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path
from typing import Any

from sanactl.errors import InputError
from sanactl.files.json_values import shown
from sanactl.files.lfs import is_pointer, pointer_error

__all__ = ["read_archive"]

_PICKLE_LIMIT = 64 << 20  # bytes of data.pkl; SANA's 60 blocks have 500 KB
_DIRECTORY_LIMIT = 16 << 20  # bytes of the archive's list of entries; SANA's 60 blocks have 150 KB


def read_archive(path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """data.pkl of the archive, and each storage's first byte in the file and its size."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise InputError(f"{path} is not a regular file")
        if is_pointer(path):
            raise pointer_error(path)
        with open(path, "rb") as raw:
            _check_directory(raw, path)
            with zipfile.ZipFile(raw) as archive:
                return _contents(archive, raw, path)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {os.strerror(error.errno or 0)}") from error
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a PyTorch zip checkpoint ({error})",
            hint="if torch older than 1.6 wrote it, load and save it again with a newer one",
        ) from error
    except Exception as error:  # zipfile raises many kinds of errors on damaged archives
        raise InputError(f"{path} is a damaged zip archive ({type(error).__name__}: {error})") from error


def _check_directory(raw: Any, path: Path) -> None:
    """Refuse an archive whose list of entries is too large, because zipfile reads the whole list into memory."""
    size = os.fstat(raw.fileno()).st_size
    raw.seek(max(0, size - 65_557))  # the end record of 22 bytes, and the longest comment
    tail = raw.read()
    at = tail.rfind(b"PK\x05\x06")
    sizes = [int.from_bytes(tail[at + 12 : at + 16], "little")] if at >= 0 else []
    locator = tail[at - 20 : at] if at >= 20 else b""
    if locator[:4] == b"PK\x06\x07":
        raw.seek(min(size, int.from_bytes(locator[8:16], "little")))
        sizes.append(int.from_bytes(raw.read(48)[40:48], "little"))
    if any(_DIRECTORY_LIMIT < value != 0xFFFFFFFF for value in sizes):
        raise InputError(f"{path} lists more files than any checkpoint has")
    raw.seek(0)


def _contents(archive: zipfile.ZipFile, raw: Any, path: Path) -> tuple[bytes, dict[str, tuple[int, int]]]:
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError(f"{path} is a zip archive without one data.pkl, so no PyTorch checkpoint")
    prefix = pickles[0][: -len("data.pkl")]

    def read(name: str, limit: int) -> bytes:
        """An entry as it is stored, without decompression; its size is limited."""
        start, size = _span(raw, entries[name], path)
        if size > limit:
            raise InputError(f"{path}: {shown(name)} has {size:,} bytes; at most {limit:,} are read")
        raw.seek(start)
        return bytes(raw.read(size))

    if prefix + "byteorder" in entries and read(prefix + "byteorder", 16)[:6] != b"little":
        raise InputError(
            f"{path} was saved on a big-endian machine", hint="save it again on a little-endian one"
        )
    places = {
        name[len(prefix) + 5 :]: _span(raw, entry, path)
        for name, entry in entries.items()
        if name.startswith(prefix + "data/")
    }
    return read(pickles[0], _PICKLE_LIMIT), places


def _span(raw: Any, entry: zipfile.ZipInfo, path: Path) -> tuple[int, int]:
    """The first byte of an entry, which only its local header tells, and the number of its bytes."""
    name = shown(entry.filename)
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise InputError(f"{path}: {name} is compressed or encrypted", hint="save it again with torch.save")
    raw.seek(entry.header_offset)
    header = raw.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise InputError(f"{path} is damaged: no local header for {name}")
    lengths = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + sum(lengths)
    if start + entry.file_size > os.fstat(raw.fileno()).st_size:
        raise InputError(
            f"{path} is truncated: {name} reaches past its end", hint="copy or download it again"
        )
    return int(start), int(entry.file_size)
